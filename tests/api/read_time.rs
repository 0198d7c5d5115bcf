//! Whoever has used up their time of the processors waits, and nobody else does.

use reqwest::{Response, StatusCode, header};
use serde_json::{Value, json};
use sneaker_drop::config::Limits;

use crate::harness::{Socket, TestApp, at_once, drive, global};

fn limits(millis: usize) -> Limits {
    Limits { read_time_per_address: millis, ..Limits::default() }
}

const GREEDY: &str = "203.0.113.1";
const MODEST: &str = "198.51.100.7";

/// What nobody keeps, for these words are never used again.
fn page(number: usize) -> String {
    let fields = "id name status stockVersion availableStock sizes { id size availableStock } activeReservations { totalCount }";
    format!("{{ drops(first: 50) {{ nodes {{ {fields} }} }} asked{number}: __typename }}")
}

async fn ask(server: &TestApp, from: &str, query: &str) -> Response {
    let request = server.client().post(server.url("/graphql")).json(&json!({ "query": query }));
    request.header("x-forwarded-for", from).send().await.unwrap()
}

/// Asks until there is no time left, as many at once as are to be answered all the same, for none of them has taken any when
/// they begin. How often that is differs between machines.
async fn use_up(server: &TestApp, from: &str, at_a_time: usize) -> Response {
    for first in (0..10_000).step_by(at_a_time) {
        let answers = at_once((first..first + at_a_time).map(|number| {
            let query = page(number);
            async move { ask(server, from, &query).await }
        }));
        if let Some(refusal) = answers.await.into_iter().find(|answer| answer.status() != StatusCode::OK) {
            return refusal;
        }
    }
    panic!("nobody was ever told to wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_dearly_waits_and_nobody_else() {
    drive(async |app| {
        let drop = app.drop(&[("US 9", 3)]).await;
        // Ten milliseconds are soon used up, and what is used beyond it is not back before the test is over.
        let server = app.second_that_limits(limits(1)).await;
        let refusal = use_up(&server, GREEDY, 30).await;
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refusal.headers().contains_key(header::RETRY_AFTER));
        let refusal: Value = refusal.json().await.unwrap();
        assert!(refusal.get("data").is_none(), "{refusal}");
        let extensions = &refusal["errors"][0]["extensions"];
        assert_eq!(extensions["code"], "RATE_LIMITED");
        assert!((1..=20_000).contains(&extensions["retryAfterMs"].as_u64().unwrap()), "{refusal}");

        // The same over a socket.
        let from: [(&str, &str); 1] = [("x-forwarded-for", GREEDY)];
        let mut socket = Socket::open_with(server.address, &from).await.unwrap().initialised(json!({})).await;
        socket.subscribe("page", &page(10_001), json!({})).await;
        let refusal = socket.hear().await;
        assert_eq!((&refusal["type"], &refusal["id"]), (&json!("error"), &json!("page")), "{refusal}");
        assert_eq!(refusal["payload"][0]["extensions"]["code"], "RATE_LIMITED");

        // Somebody else is served, and so is what costs nothing.
        let shared = "{ drops { nodes { id availableStock } } }";
        assert_eq!(ask(&server, MODEST, shared).await.status(), StatusCode::OK);
        assert_eq!(ask(&server, GREEDY, shared).await.status(), StatusCode::OK, "it is in memory");

        // Nor is a mutation refused, whoever asks.
        let buyer = app.buyer().await;
        let input = format!("{{ dropId: \"{}\", size: \"US 9\" }}", global(drop));
        let mutation = format!(
            "mutation {{ reserve(input: {input}) {{ reservation {{ id }} userErrors {{ code }} }} }}"
        );
        let request = server.client().post(server.url("/graphql")).json(&json!({ "query": mutation }));
        let reserved =
            request.header("x-forwarded-for", GREEDY).bearer_auth(&buyer.token).send().await.unwrap();
        let reserved: Value = reserved.json().await.unwrap();
        assert_eq!(reserved["data"]["reserve"]["userErrors"], json!([]), "{reserved}");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_time_left_is_told_of_the_stock_all_the_same() {
    drive(async |app| {
        let drop = app.drop(&[("US 9", 3)]).await;
        // What is used beyond it is soon back.
        let server = app.second_that_limits(limits(20)).await;
        let watch = |own: &str| {
            format!(
                "subscription($drop: ID!) {{ stockUpdated(dropId: $drop) {{ {own}: version drop {{ availableStock }} }} }}"
            )
        };
        let [alone, among_others, other] = [GREEDY, GREEDY, MODEST].map(async |from| {
            let from: [(&str, &str); 1] = [("x-forwarded-for", from)];
            Socket::open_with(server.address, &from).await.unwrap().initialised(json!({})).await
        });
        let (mut alone, mut among_others, mut other) = (alone.await, among_others.await, other.await);
        for (socket, words) in
            [(&mut alone, "mine"), (&mut among_others, "ours"), (&mut other, "ours")]
        {
            socket.subscribe("1", &watch(words), json!({ "drop": global(drop) })).await;
        }
        for socket in [&mut other, &mut among_others, &mut alone] {
            assert_eq!(socket.next().await["stockUpdated"]["drop"]["availableStock"], 3);
        }
        use_up(&server, GREEDY, 4).await;
        app.hold(&app.buyer().await, drop, "US 9").await;
        for socket in [&mut other, &mut among_others, &mut alone] {
            assert_eq!(socket.next().await["stockUpdated"]["drop"]["availableStock"], 2);
        }
        server.stop().await;
    })
    .await;
}
