//! The fields of an answer stand in the order in which they were selected, however long each took.

use serde_json::json;

use crate::harness::{TestApp, drive_still, global};

/// The numbers of the keys `k0`, `k1` and so on, as they stand in the answer.
async fn keys(app: &TestApp, query: &str, id: &str) -> Vec<usize> {
    let body = json!({ "query": query, "variables": { "id": id } });
    let answer =
        app.client().post(app.url("/graphql")).json(&body).send().await.unwrap().text().await.unwrap();
    let found = answer.split("\"k").skip(1);
    found.filter_map(|rest| rest.split_once("\":")?.0.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_had_to_wait_and_fields_that_failed_stand_in_their_places() {
    drive_still(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        app.hold(&buyer, drop, "ONE").await;
        for (count, query) in [
            // Of the query itself: from the database, from memory, and at once.
            (
                9,
                "query($id: ID!) {
                    k0: drop(id: $id) {
                        k1: recentBuyers { id } k2: activeReservations { k3: totalCount } k4: status }
                    k5: serverTime
                    k6: drops { k7: pageInfo { k8: hasNextPage } } }",
            ),
            // Of an interface, and through fragments.
            (
                6,
                "query($id: ID!) { k0: node(id: $id) { ...some k3: id ... on Drop { k4: status } } k5: __typename }
                fragment some on Drop { k1: activeReservations { k2: totalCount } }",
            ),
            // Some fail.
            (
                7,
                "query($id: ID!) {
                    k0: drops(first: 51) { nodes { id } }
                    k1: drop(id: $id) {
                        k2: recentBuyers(first: 51) { id } k3: activeReservations { k4: totalCount } k5: status }
                    k6: serverTime }",
            ),
        ] {
            // One that has nothing in memory.
            let server = app.still_second().await;
            let found = keys(&server, query, &global(drop)).await;
            server.stop().await;
            assert_eq!(found, (0..count).collect::<Vec<_>>(), "{query}");
        }
    })
    .await;
}
