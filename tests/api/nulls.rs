//! Every field that was asked for is in an answer, null where it failed; where it may not be null, what is around it is.

use serde_json::{Value, json};

use crate::harness::{Socket, TestApp, drive, global};

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

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_which_nothing_is_selected_is_there_all_the_same() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let id = global(drop);
        for (query, expected) in [
            ("{ serverTime @skip(if: true) }", json!({})),
            ("{ viewer @skip(if: true) { user { id } } }", json!({})),
            ("{ ...none @skip(if: true) } fragment none on Query { serverTime }", json!({})),
            ("{ ...none } fragment none on Query { serverTime @include(if: false) }", json!({})),
            ("mutation { logout @skip(if: true) { __typename } }", json!({})),
            ("{ drops { nodes { id @skip(if: true) } } }", json!({ "drops": { "nodes": [{}] } })),
            ("{ drops { nodes { ... @skip(if: true) { id } } } }", json!({ "drops": { "nodes": [{}] } })),
            ("{ drops { pageInfo { hasNextPage @skip(if: true) } } }", json!({ "drops": { "pageInfo": {} } })),
            // A fragment of another type; and a type that is not known from the field.
            ("query($id: ID!) { node(id: $id) { ... on Purchase { id } } }", json!({ "node": {} })),
            (
                "query($id: ID!) { nodes(ids: [$id, \"x\"]) { ...other ... on Drop { price { amount @skip(if: true) } } } }
                 fragment other on Purchase { id drop { id @skip(if: true) } }",
                json!({ "nodes": [{ "price": {} }, null] }),
            ),
            // What is not there stays so.
            ("{ drop(id: \"x\") { id @skip(if: true) } }", json!({ "drop": null })),
            ("{ viewer { user { id @skip(if: true) } } }", json!({ "viewer": null })),
        ] {
            let variables = if query.contains("$id") { json!({ "id": id }) } else { Value::Null };
            assert_eq!(app.data(None, query, variables).await, expected, "{query}");
        }
        let signed_in = app.data(Some(&buyer.token), "{ viewer { user { id @skip(if: true) } } }", Value::Null);
        assert_eq!(signed_in.await, json!({ "viewer": { "user": {} } }));
        assert_eq!(
            data(app, None, "{ drops(first: 51) { nodes { id @skip(if: true) } } }", &Value::Null).await,
            json!({ "drops": null })
        );
        let mut socket = Socket::ready(app.address, Value::Null).await;
        let query = "subscription($id: ID!) { stockUpdated(dropId: $id) { version @skip(if: true) drop { ...none } } }
            fragment none on Drop { id @include(if: false) }";
        socket.subscribe("1", query, json!({ "id": id })).await;
        assert_eq!(socket.next().await, json!({ "stockUpdated": { "drop": {} } }));
    })
    .await;
}
