//! Subscriptions over plain HTTP: server-sent events and multipart.

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use tokio_tungstenite::tungstenite::Error;

use crate::harness::{STREAMS, Socket, TestApp, codes, drive, eventually, global};

const WATCH: &str = "subscription($id: ID!) { stockUpdated(dropId: $id) { version availableStock } }";
const MULTIPART: &str = "multipart/mixed;boundary=\"graphql\";subscriptionSpec=1.0,application/json";

/// An answer that is read bit by bit.
struct Reader {
    answer: Response,
    text: String,
}

impl Reader {
    async fn ask(app: &TestApp, accept: &str, token: Option<&str>, query: &str, variables: Value) -> Self {
        let mut request: RequestBuilder = app.client().post(app.url("/graphql")).header("accept", accept);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Self { answer, text: String::new() }
    }

    /// What comes up to and with `end`.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let chunk = self.answer.chunk().await.unwrap().expect("the answer ended");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// What is left, once the server has ended it.
    async fn rest(mut self) -> String {
        while let Some(chunk) = self.answer.chunk().await.unwrap() {
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        self.text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_carry_a_subscription() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let mut reader =
            Reader::ask(app, "text/event-stream", None, WATCH, json!({ "id": global(drop) })).await;
        let content_type = reader.answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(content_type.starts_with("text/event-stream"));
        assert_eq!(reader.until("\n\n").await, ":\n\n", "headers and a first byte come before any event");
        let event = |version: i64, available: i64| {
            let data =
                json!({ "data": { "stockUpdated": { "version": version, "availableStock": available } } });
            format!("event: next\ndata: {data}\n\n")
        };
        let in_order = |text: String| -> Value {
            serde_json::from_str(text.trim().strip_prefix("event: next\ndata: ").unwrap()).unwrap()
        };
        assert_eq!(in_order(reader.until("\n\n").await), in_order(event(1, 2)));
        app.hold(&buyer, drop, "ONE").await;
        assert_eq!(in_order(reader.until("\n\n").await), in_order(event(2, 1)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_a_multipart_answer_is_whole_when_it_comes() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let mut reader = Reader::ask(app, MULTIPART, None, WATCH, json!({ "id": global(drop) })).await;
        assert!(reader.answer.headers()["content-type"].to_str().unwrap().contains("subscriptionSpec=1.0"));
        assert_eq!(reader.until("\r\n--graphql").await, "\r\n--graphql");
        for version in 1..=2 {
            let part = reader.until("\r\n--graphql").await;
            let (head, body) = part.strip_suffix("\r\n--graphql").unwrap().split_once("\r\n\r\n").unwrap();
            assert_eq!(head, "\r\ncontent-type: application/json");
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["payload"]["data"]["stockUpdated"]["version"], version);
            if version == 1 {
                app.hold(&buyer, drop, "ONE").await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_other_operations_come_as_the_client_asked() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let sse = "text/event-stream";
        for (query, code) in [
            ("{", "GRAPHQL_PARSE_FAILED"),
            ("subscription { nonsense }", "GRAPHQL_VALIDATION_FAILED"),
            (&"[".repeat(1_600), "GRAPHQL_VALIDATION_FAILED"),
            ("subscription { stockUpdated(dropId: \"x\") { version } }", "NOT_FOUND"),
        ] {
            let text = Reader::ask(app, sse, None, query, Value::Null).await.rest().await;
            assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
            assert!(text.ends_with("event: complete\ndata:\n\n"), "{text}");
        }
        let bad = Reader::ask(
            app,
            MULTIPART,
            None,
            "subscription { stockUpdated(dropId: \"x\") { version } }",
            Value::Null,
        );
        let text = bad.await.rest().await;
        assert!(text.contains("{\"payload\":{\"errors\":[") && text.ends_with("--graphql--\r\n"), "{text}");

        // A mutation over the same road, with the same guards.
        let reserve = "mutation($id: ID!) { reserve(input: { dropId: $id }) { userErrors { code } } }";
        let id = json!({ "id": global(drop) });
        let stranger = Reader::ask(app, sse, None, reserve, id.clone()).await.rest().await;
        assert!(stranger.contains("UNAUTHENTICATED"), "{stranger}");
        let text = Reader::ask(app, sse, Some(&buyer.token), reserve, id.clone()).await.rest().await;
        assert!(text.contains("\"userErrors\":[]") && text.ends_with("event: complete\ndata:\n\n"), "{text}");
        assert_eq!(app.counts(drop).await, [1, 1, 0]);
        // A client that takes both gets a query whole.
        let answer = Reader::ask(app, MULTIPART, Some(&buyer.token), reserve, id).await.rest().await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(codes(&answer["data"]["reserve"]), ["LIMIT_REACHED"]);
        // A stream by GET carries no mutation.
        let get = app
            .client()
            .get(app.url("/graphql"))
            .header("accept", sse)
            .query(&[("query", "mutation { logout { endedSessions } }")]);
        assert_eq!(get.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_server_and_with_their_session() {
    drive(async |app| {
        let drop = app.drop(&[("ONE", 2)]).await;
        let query = "mutation { signup(input: { username: \"ada\", email: \"ada@b.co\", password: \"analytical engine\" }) {
            session { accessToken } } }";
        let token = app.data(None, query, Value::Null).await["signup"]["session"]["accessToken"].take();
        let token = token.as_str().unwrap();
        let id = json!({ "id": global(drop) });
        let events = Reader::ask(app, "text/event-stream", Some(token), WATCH, id.clone()).await;
        let parts = Reader::ask(app, MULTIPART, Some(token), WATCH, id.clone()).await;
        app.data(Some(token), "mutation { logout { endedSessions } }", Value::Null).await;
        let text = events.rest().await;
        assert!(!text.contains("complete"), "the client is to come back: {text}");
        assert!(text.contains("UNAUTHENTICATED"), "it is told why: {text}");
        let text = parts.rest().await;
        assert!(text.contains("\"payload\":null,\"errors\":[{") && text.ends_with("--graphql--\r\n"), "{text}");

        let second = app.second().await;
        let mut readers = Vec::new();
        for accept in ["text/event-stream", MULTIPART] {
            let mut reader = Reader::ask(&second, accept, None, WATCH, id.clone()).await;
            reader.until("availableStock").await;
            readers.push(reader);
        }
        second.stop().await;
        for mut reader in readers {
            let broke_off = async { while reader.answer.chunk().await?.is_some() {} reqwest::Result::Ok(()) };
            assert!(broke_off.await.is_err(), "a client would take that for all that there was");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_holds_so_many_sockets_and_streams_and_no_more() {
    drive(async |app| {
        let id = global(app.drop(&[("ONE", 1)]).await);
        let watch = async |accept: &str| {
            let body = json!({ "query": WATCH, "variables": { "id": id } });
            let request = app.client().post(app.url("/graphql")).header("accept", accept).json(&body);
            request.send().await.unwrap()
        };
        let mut sockets: Vec<Socket> = Vec::new();
        let mut streams: Vec<Response> = Vec::new();
        for _ in 0..STREAMS / 3 {
            sockets.push(Socket::ready(app.address, Value::Null).await);
            streams.push(watch("text/event-stream").await);
            streams.push(watch(MULTIPART).await);
        }
        assert!(streams.iter().all(|answer| answer.status() == StatusCode::OK));
        let Err(Error::Http(refused)) = Socket::open_with(app.address, &[]).await else {
            panic!("a socket too many was opened");
        };
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        // Whoever it claims to come from: nobody said that it is a proxy.
        let elsewhere = Socket::open_with(app.address, &[("x-forwarded-for", "203.0.113.9")]).await;
        assert!(matches!(elsewhere, Err(Error::Http(_))));
        for accept in ["text/event-stream", MULTIPART] {
            let refused = watch(accept).await;
            assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(refused.headers()["retry-after"], "10");
            let refused: Value = refused.json().await.unwrap();
            let expected =
                json!({ "code": "RATE_LIMITED", "limit": "STREAMS_PER_ADDRESS", "retryAfterMs": 10_000 });
            assert_eq!(refused["errors"][0]["extensions"], expected);
        }
        // Requests that end are not counted.
        assert!(app.data(None, "{ serverTime }", Value::Null).await["serverTime"].is_string());
        // A closed socket makes room, as soon as the server has noticed.
        drop((sockets, streams));
        eventually(async || Socket::open_with(app.address, &[]).await.is_ok()).await;
    })
    .await;
}
