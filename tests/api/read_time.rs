//! Whoever has used up their time of the processors waits, and nobody else does.

use std::{hint::black_box, time::Duration};

use async_graphql::Request;
use diesel_async::SimpleAsyncConnection as _;
use futures_util::{StreamExt as _, poll, stream};
use reqwest::{Response, StatusCode, header};
use serde_json::{Value, json};
use sneaker_drop::{
    client::Client,
    config::Limits,
    graphql::{Credentials, FanOut, Gate, schema},
    read_time::{ReadTime, ReadTimes},
};
use tokio::runtime::Handle;

use crate::harness::{Socket, TestApp, at_once, drive, global};

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

/// Asks until there is no time left, many at once: they are answered all the same, for none has taken any when they begin.
/// How often that is differs between machines.
async fn use_up(server: &TestApp, from: &str) -> Response {
    const AT_ONCE: usize = 30;
    for first in (0..10_000).step_by(AT_ONCE) {
        let answers = at_once((first..first + AT_ONCE).map(|number| {
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
        let server = app.second_that_limits(Limits { read_time_per_address: 1, ..Limits::default() }).await;
        let refusal = use_up(&server, GREEDY).await;
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refusal.headers().contains_key(header::RETRY_AFTER));
        let refusal: Value = refusal.json().await.unwrap();
        assert!(refusal.get("data").is_none(), "{refusal}");
        let extensions = &refusal["errors"][0]["extensions"];
        assert_eq!(extensions["code"], "RATE_LIMITED");
        assert!((1..=121_000).contains(&extensions["retryAfterMs"].as_u64().unwrap()), "{refusal}");

        // The same over a socket.
        let from: [(&str, &str); 1] = [("x-forwarded-for", GREEDY)];
        let mut socket = Socket::open_with(server.address, &from).await.unwrap().initialised(json!({})).await;
        socket.subscribe("page", &page(10_001), json!({})).await;
        let refusal = socket.hear().await;
        assert_eq!((&refusal["type"], &refusal["id"]), (&json!("error"), &json!("page")), "{refusal}");
        assert_eq!(refusal["payload"][0]["extensions"]["code"], "RATE_LIMITED");

        // To find out that a document is none takes time too.
        socket.subscribe("none", "{ nonsense } # mutation", json!({})).await;
        let refusal = socket.hear().await;
        assert_eq!(refusal["payload"][0]["extensions"]["code"], "RATE_LIMITED", "{refusal}");

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
        let (drop, limits) = (app.drop(&[("US 9", 3)]).await, Limits::default());
        let gate = Gate::new(&limits, true);
        let fan_out = FanOut::new(schema(true, &limits), app.app.clone(), Handle::current());
        let times = ReadTimes::new(20);
        let [greedy, modest] = [GREEDY, MODEST].map(|address| times.of(Client::at(address.parse().unwrap())));
        let subscribe = async |words: &str, payer: &ReadTime| {
            let fields = format!("{words}: version drop {{ availableStock }}");
            let query =
                format!("subscription {{ stockUpdated(dropId: \"{}\") {{ {fields} }} }}", global(drop));
            let admitted = gate.admit(Request::new(&query), &Credentials::Anonymous).unwrap();
            let updates = fan_out.subscribe(admitted, Credentials::Anonymous, payer.clone()).await;
            Box::pin(updates.unwrap())
        };
        let mut other = subscribe("ours", &modest).await;
        let mut among_others = subscribe("ours", &greedy).await;
        let mut alone = subscribe("mine", &greedy).await;
        for updates in [&mut other, &mut among_others, &mut alone] {
            assert!(updates.next().await.unwrap().contains(r#""availableStock":3"#));
        }
        let exhaust = async |wait| {
            while greedy.is_left().err() < Some(wait) {
                greedy.pay_later().pay_for(async { black_box((0..100_000_u64).sum::<u64>()) }).await;
            }
        };
        exhaust(Duration::from_millis(500)).await;
        app.hold(&app.buyer().await, drop, "US 9").await;
        for updates in [&mut other, &mut among_others, &mut alone] {
            assert!(updates.next().await.unwrap().contains(r#""availableStock":2"#));
        }
        exhaust(Duration::from_secs(20)).await;
        // While one waits for time to see a state, somebody else is shown a later one. That is told once, and not again when
        // it is its turn.
        app.hold(&app.buyer().await, drop, "US 9").await;
        let mut witness = subscribe("theirs", &modest).await;
        assert!(witness.next().await.unwrap().contains(r#""availableStock":1"#));
        let mut late = among_others.next();
        assert!(poll!(&mut late).is_pending());
        app.hold(&app.buyer().await, drop, "US 9").await;
        let mut seen = String::new();
        while !seen.contains(r#""availableStock":0"#) {
            seen = other.next().await.unwrap().to_string();
        }
        assert_eq!(late.await.unwrap().to_string(), seen);
        let mut next = among_others.next();
        for _ in 0..20 {
            tokio::task::yield_now().await;
            assert!(poll!(&mut next).is_pending(), "it was told");
        }
    })
    .await;
}

/// Each begins with a share of the time that is left, or all that begin at once would find some.
#[tokio::test(flavor = "multi_thread")]
async fn updates_for_one_client_begin_as_its_time_allows() {
    drive(async |app| {
        let (drop, limits) = (app.drop(&[("US 9", 3)]).await, Limits::default());
        let gate = Gate::new(&limits, true);
        let fan_out = FanOut::new(schema(true, &limits), app.app.clone(), Handle::current());
        let greedy = ReadTimes::new(1).of(Client::at(GREEDY.parse().unwrap()));
        // Updates that wait for PostgreSQL take no time of a processor.
        let mut hindrance = app.connection().await;
        hindrance.batch_execute("BEGIN; LOCK TABLE purchases IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let mut all = Vec::new();
        for number in 0..30 {
            let fields = format!("asked{number}: version drop {{ recentBuyers {{ id }} }}");
            let query =
                format!("subscription {{ stockUpdated(dropId: \"{}\") {{ {fields} }} }}", global(drop));
            let admitted = gate.admit(Request::new(&query), &Credentials::Anonymous).unwrap();
            let updates = fan_out.subscribe(admitted, Credentials::Anonymous, greedy.clone()).await;
            all.push(updates.unwrap().boxed());
        }
        let mut updates = stream::select_all(all);
        while poll!(updates.next()).is_pending() && app.app.metrics.updates_executed.get() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..200 {
            assert!(poll!(updates.next()).is_pending());
            tokio::task::yield_now().await;
        }
        let begun = app.app.metrics.updates_executed.get();
        assert!((1..=6).contains(&begun), "{begun} updates began on 10 ms, each with 2 ms");
        hindrance.batch_execute("COMMIT").await.unwrap();
        assert!(updates.next().await.is_some());
    })
    .await;
}
