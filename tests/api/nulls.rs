//! Every field that was asked for is in an answer, null where it failed; where it may not be null, what is around it is.

use serde_json::{Value, json};

use crate::harness::{TestApp, drive, global};

/// The data of an answer that has errors.
async fn data(app: &TestApp, token: Option<&str>, query: &str, variables: &Value) -> Value {
    let mut answer = app.ask(token, query, variables.clone()).await;
    assert!(answer["errors"].is_array(), "{answer}");
    answer["data"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_null_and_nothing_is_left_out() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        app.hold(&buyer, drop, "ONE").await;
        let variables = json!({ "drop": global(drop) });
        for (query, expected) in [
            ("{ drops(first: 51) { nodes { id } } }", json!({ "drops": null })),
            (
                "{ a: drops(first: 51) { nodes { id } } b: drops { pageInfo { hasNextPage } } }",
                json!({ "a": null, "b": { "pageInfo": { "hasNextPage": false } } }),
            ),
            (
                "{ drops { nodes { recentBuyers(first: 51) { id } } } }",
                json!({ "drops": { "nodes": [{ "recentBuyers": null }] } }),
            ),
            (
                "query($drop: ID!) { node(id: $drop) { ...all ... on Drop { status b: activeReservations(first: -1) { nodes { id } } } } }
                 fragment all on Drop { a: activeReservations(after: \"x\") { nodes { id } } }",
                json!({ "node": { "a": null, "status": "LIVE", "b": null } }),
            ),
            // A list of which nothing may be null, in a connection that may not either, in a field that may.
            (
                "query($drop: ID!) { drop(id: $drop) { status activeReservations { nodes { drop { recentBuyers(first: 99) { id } status } } } } }",
                json!({ "drop": { "status": "LIVE", "activeReservations": { "nodes": [{ "drop": { "recentBuyers": null, "status": "LIVE" } }] } } }),
            ),
            (
                "mutation($drop: ID!) { reserve(input: { dropId: $drop }) { drop { recentBuyers(first: 51) { id } } userErrors { code } } }",
                json!({ "reserve": { "drop": { "recentBuyers": null }, "userErrors": [] } }),
            ),
        ] {
            let variables = if query.contains("$drop") { variables.clone() } else { Value::Null };
            let stranger = app.buyer().await;
            assert_eq!(data(app, Some(&stranger.token), query, &variables).await, expected, "{query}");
        }
        // A mutation has an answer or there is none at all.
        let mutation = "mutation($drop: ID!) { reserve(input: { dropId: $drop }) { userErrors { code } } }";
        assert_eq!(data(app, None, mutation, &variables).await, Value::Null);
    })
    .await;
}

/// Held up or broken, whatever is below: here the people are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_null_climbs_to_where_it_may_be() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        app.purchase(&buyer, &hold).await;
        app.hold(&app.buyer().await, drop, "ONE").await;
        app.sql("ALTER TABLE users RENAME TO people").await;
        // `Reservation.user`, `nodes` and their entries may not be null, `activeReservations` may; nor may a purchase's user
        // and the purchases of `recentBuyers`, which itself may.
        let query = "query($drop: ID!) { drop(id: $drop) { id soldStock
            activeReservations { totalCount nodes { id user { username } } } recentBuyers { id user { username } } } }";
        let variables = json!({ "drop": global(drop) });
        let expected = json!({ "drop": { "id": global(drop), "soldStock": 1, "activeReservations": null, "recentBuyers": null } });
        // A server that has met none of them.
        let second = app.still_second().await;
        assert_eq!(data(&second, None, query, &variables).await, expected);
        second.stop().await;
        app.sql("ALTER TABLE people RENAME TO users").await;
    })
    .await;
}
