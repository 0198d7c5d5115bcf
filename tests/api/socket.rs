//! graphql-transport-ws, message by message.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::harness::{HeldLock, Socket, codes, drive, drive_still, eventually, global};

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_is_closed_with_its_code() {
    drive(async |app| {
        let init = json!({ "type": "connection_init" });
        let subscribe = json!({ "id": "1", "type": "subscribe", "payload": {
            "query": "subscription { activeStockUpdated { version } }" } });
        let cases: [(&[Value], u16); 7] = [
            (&[json!({ "type": "nonsense" })], 4400),
            (&[json!("nonsense")], 4400),
            (&[init.clone(), json!({ "id": "1", "type": "subscribe", "payload": {} })], 4400),
            (std::slice::from_ref(&subscribe), 4401),
            (
                &[json!({ "type": "connection_init", "payload": { "Authorization": "Bearer nonsense" } })],
                4403,
            ),
            (&[init.clone(), subscribe.clone(), subscribe.clone()], 4409),
            (&[init.clone(), init.clone()], 4429),
        ];
        for (messages, code) in cases {
            let mut socket = Socket::open(app.address).await;
            for message in messages {
                socket.say(message.clone()).await;
            }
            assert_eq!(socket.closed().await.0, code, "{messages:?}");
        }
        let mut socket = Socket::open(app.address).await;
        socket.say_raw(Message::Binary(vec![1, 2, 3].into())).await;
        assert_eq!(socket.closed().await.0, 4400);
        let socket = Socket::open(app.address).await;
        assert_eq!(socket.closed().await.0, 4408, "no init in time");
        let mut socket = Socket::ready(app.address, Value::Null).await;
        for _ in 0..2 {
            let id = "é".repeat(128);
            socket.say(json!({ "id": id, "type": "subscribe", "payload": subscribe["payload"] })).await;
        }
        assert_eq!(socket.closed().await.0, 4409, "a long id makes no illegal frame");
        let mut socket = Socket::ready(app.address, Value::Null).await;
        socket
            .say(json!({ "id": "x".repeat(257), "type": "subscribe", "payload": subscribe["payload"] }))
            .await;
        assert_eq!(socket.closed().await.0, 4400);
    })
    .await;
}

/// A client takes a socket that ends without a word for one that broke, and sends the same again over the next.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_to_its_end_is_told_so() {
    drive(async |app| {
        let text = |length| Message::Text("x".repeat(length).into());
        let frame = |opcode, payload: &[u8]| {
            Message::Frame(Frame::message(payload.to_vec(), OpCode::Data(opcode), true))
        };
        for (message, code) in [
            (text(64 * 1024 + 1), 1009),
            (text(4 * 1024 * 1024), 1009),
            (frame(Data::Text, &[0xff, 0xfe]), 1007),
            (frame(Data::Continue, b"nothing to go on with"), 1002),
        ] {
            let mut socket = Socket::ready(app.address, Value::Null).await;
            // The server need not read what it will not have.
            let said = tokio::spawn(async move {
                socket.try_say(message).await;
                socket.closed().await.0
            });
            assert_eq!(said.await.unwrap(), code);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_as_large_as_over_http() {
    drive_still(async |app| {
        for _ in 0..50 {
            app.drop(&[("ONE", 1)]).await;
        }
        app.sql("UPDATE drops SET description = repeat('long ', 1000), starts_at = now() - interval '1 h', ends_at = now()")
            .await;
        let alias = |name: char| format!("{name}: drops(first: 50, statuses: [ENDED]) {{ nodes {{ description }} }}");
        let query = format!("{{ {} }}", ['a', 'b', 'c', 'd', 'e'].map(alias).join(" "));
        let mut socket = Socket::ready(app.address, Value::Null).await;
        socket.subscribe("1", &query, Value::Null).await;
        let answer = socket.next().await;
        assert!(answer.to_string().len() > 1024 * 1024, "{} bytes", answer.to_string().len());
        assert_eq!(socket.hear().await["type"], "complete");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_mutations_work_over_the_socket() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        // As graphql-ws's users write it, or as those who think of HTTP.
        for name in ["authorization", "Authorization"] {
            // null says nothing.
            let payload = json!({ "headers": { name: format!("Bearer {}", buyer.token) }, "authorization": null });
            let mut socket = Socket::ready(app.address, payload).await;
            socket.subscribe("who", "{ viewer { email } }", Value::Null).await;
            assert!(socket.next().await["viewer"]["email"].is_string(), "{name}");
        }
        let payload = json!({ "authorization": format!("Bearer {}", buyer.token) });
        let mut socket = Socket::ready(app.address, payload).await;
        let reserve = "mutation($id: ID!) { reserve(input: { dropId: $id }) { reservation { user { id } } userErrors { code } } }";
        socket.subscribe("a", reserve, json!({ "id": global(drop) })).await;
        assert_eq!(codes(&socket.next().await["reserve"]), [] as [&str; 0]);
        assert_eq!(socket.hear().await, json!({ "id": "a", "type": "complete" }));
        // The id is free again.
        socket.subscribe("a", "{ viewer { email } }", Value::Null).await;
        assert!(socket.next().await["viewer"]["email"].is_string());
        assert_eq!(socket.hear().await["type"], "complete");
        socket.say(json!({ "type": "ping", "payload": { "x": 1 } })).await;
        assert_eq!(socket.hear().await, json!({ "type": "pong" }));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_operation_is_an_error_and_the_socket_lives() {
    drive(async |app| {
        let mut socket = Socket::ready(app.address, Value::Null).await;
        for (query, code) in [
            ("{", "GRAPHQL_PARSE_FAILED"),
            ("{ nonsense }", "GRAPHQL_VALIDATION_FAILED"),
            (&"[".repeat(1_600), "GRAPHQL_VALIDATION_FAILED"),
            ("subscription { nonsense }", "GRAPHQL_VALIDATION_FAILED"),
        ] {
            socket.subscribe("x", query, Value::Null).await;
            let message = socket.hear().await;
            assert_eq!(message["type"], "error", "{message}");
            assert_eq!(message["payload"][0]["extensions"]["code"], code, "{message}");
        }
        socket.subscribe("x", "{ serverTime }", Value::Null).await;
        assert!(socket.next().await["serverTime"].is_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_closes_with_the_session_of_its_token() {
    drive(async |app| {
        let query = "mutation { signup(input: { username: \"ada\", email: \"ada@b.co\", password: \"analytical engine\" }) {
            session { accessToken } } }";
        let token = app.data(None, query, Value::Null).await["signup"]["session"]["accessToken"].take();
        let token = token.as_str().unwrap();
        let socket = Socket::ready(app.address, json!({ "Authorization": format!("Bearer {token}") })).await;
        app.data(Some(token), "mutation { logout { endedSessions } }", Value::Null).await;
        assert_eq!(socket.closed().await, (4403, "Forbidden".to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_origins_and_older_protocols_are_refused() {
    drive(async |app| {
        let own = format!("http://{}", app.address);
        for good in [own.as_str(), "https://shop.example"] {
            assert!(Socket::open_with(app.address, &[("origin", good)]).await.is_ok(), "{good}");
        }
        for bad in
            [("origin", "https://evil.example"), ("origin", "null"), ("sec-websocket-protocol", "graphql-ws")]
        {
            let refused = Socket::open_with(app.address, &[bad]).await;
            assert!(
                matches!(refused, Err(Error::Http(response)) if response.status().is_client_error()),
                "{bad:?}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_close_with_1012_when_the_server_stops() {
    drive(async |app| {
        let second = app.second().await;
        let socket = Socket::ready(second.address, Value::Null).await;
        second.stop().await;
        assert_eq!(socket.closed().await.0, 1012);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answers_what_sockets_and_streams_have_asked() {
    drive(async |app| {
        let (buyers, drop) = (app.buyers(2).await, app.drop(&[("ONE", 2)]).await);
        let second = app.second().await;
        let lock = HeldLock::take(app, drop).await;
        let query = "mutation($id: ID!) { reserve(input: { dropId: $id }) { reservation { status } } }";
        let id = json!({ "id": global(drop) });
        let mut socket =
            Socket::ready(second.address, json!({ "authorization": format!("Bearer {}", buyers[0].token) }))
                .await;
        socket
            .subscribe(
                "watch",
                "subscription($id: ID!) { stockUpdated(dropId: $id) { version } }",
                id.clone(),
            )
            .await;
        assert_eq!(socket.hear().await["payload"]["data"]["stockUpdated"]["version"], 1);
        socket.subscribe("buy", query, id.clone()).await;
        let stream = second.client().post(second.url("/graphql")).bearer_auth(&buyers[1].token);
        let stream =
            stream.header("accept", "text/event-stream").json(&json!({ "query": query, "variables": id }));
        let stream = stream.send().await.unwrap();
        // Both wait in the drop's queue, in one batch or two.
        app.wait_for_lock_waiters(1).await;
        let address = second.address;
        let stopped = tokio::spawn(second.stop());
        eventually(async || tokio::net::TcpStream::connect(address).await.is_err()).await;
        lock.release().await;
        let mut heard = socket.hear().await;
        while heard["id"] != "buy" {
            heard = socket.hear().await;
        }
        assert_eq!(heard["payload"]["data"]["reserve"]["reservation"]["status"], "ACTIVE", "{heard}");
        assert_eq!(socket.closed().await.0, 1012);
        let text = stream.text().await.unwrap();
        assert!(text.contains("ACTIVE") && text.contains("complete"), "{text}");
        stopped.await.unwrap();
        // The other server hears of it in a moment.
        eventually(async || app.counts(drop).await == [0, 2, 0]).await;
    })
    .await;
}

/// RFC 6455, section 5.5.1. Without it an orderly end is a broken connection to the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_answered() {
    drive(async |app| {
        for code in [1000, 4499] {
            let mut socket = Socket::ready(app.address, Value::Null).await;
            socket.subscribe("all", "subscription { activeStockUpdated { version } }", json!({})).await;
            assert_eq!(socket.close(code).await, Some(code));
        }
        eventually(async || app.app.metrics.sockets.get() == 0).await;
    })
    .await;
}
