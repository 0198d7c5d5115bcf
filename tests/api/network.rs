//! The network between a server and PostgreSQL fails, and every buyer gets a definite answer.

use std::time::Duration;

use serde_json::json;
use sneaker_drop::{ids::UserId, stock::Reserve};

use crate::{
    harness::{at_once, drive_still, global},
    proxy::Weather,
};

const RESERVE: &str =
    "mutation($input: ReserveInput!) { reserve(input: $input) { reservation { id } userErrors { code } } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_again() {
    drive_still(async |app| {
        let network = app.network().await;
        let server = app.still_second_behind(&network).await;
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 5)]).await);
        network.lose_next_commit();
        let hold = server.hold(&buyer, drop, "ONE").await;
        assert_eq!(network.lost_commits(), 1);
        network.lose_next_commit();
        let bought = server.purchase(&buyer, &hold).await;
        assert_eq!(bought["userErrors"], json!([]), "{bought}");
        assert_eq!(network.lost_commits(), 2);
        assert_eq!(app.counts(drop).await, [4, 0, 1]);
        server.stop().await;
    })
    .await;
}

/// A batch says some 1,300 bytes to a connection that knows its statements, and more to a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_at_any_byte_loses_and_doubles_nothing() {
    drive_still(async |app| {
        let network = app.network().await;
        let server = app.still_second_behind(&network).await;
        let drop = app.drop(&[("ONE", 200)]).await;
        let stock = &server.app.stock;
        for byte in (1..2_600).step_by(53) {
            let (user, key) = (UserId::new(), format!("cut at {byte}"));
            network.cut_after(byte);
            let request = Reserve { drop_id: drop, size: None, idempotency_key: Some(key), admission: None };
            let first = stock.reserve(user, request.clone()).await;
            let first = first.unwrap_or_else(|error| panic!("cut at {byte}: {error:?}")).reservation.unwrap();
            let again = stock.reserve(user, request).await.unwrap().reservation.unwrap();
            assert_eq!(first.id, again.id, "cut at {byte}");
        }
        network.cut_after(0);
        let holds = i64::try_from((1..2_600).step_by(53).count()).unwrap();
        assert_eq!(app.counts(drop).await, [200 - holds, holds, 0]);
        server.stop().await;
    })
    .await;
}

/// Nobody says that the connection is gone: what bounds the wait is ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_unavailable_and_then_it_is_not() {
    for weather in [Weather::BlackHole, Weather::HalfOpen] {
        drive_still(async |app| {
            let network = app.network().await;
            let server = app.still_second_behind(&network).await;
            let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 5)]).await);
            let input = json!({ "input": { "dropId": global(drop), "idempotencyKey": "once" } });
            server
                .data(None, "query($id: ID!) { drop(id: $id) { name } }", json!({ "id": global(drop) }))
                .await;
            network.set(weather);
            let code = server.error_code(Some(&buyer.token), RESERVE, input.clone()).await;
            assert_eq!(code, "UNAVAILABLE", "{weather:?}");
            network.set(Weather::Fair);
            let retry = server.data(Some(&buyer.token), RESERVE, input).await;
            assert_eq!(retry["reserve"]["userErrors"], json!([]), "{weather:?}: {retry}");
            assert_eq!(app.counts(drop).await, [4, 1, 0], "{weather:?}");
            server.stop().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_sells_every_pair_once() {
    drive_still(async |app| {
        let network = app.network().await;
        let server = app.still_second_behind(&network).await;
        let (buyers, drop) = (app.buyers(60).await, app.drop(&[("ONE", 20)]).await);
        network.set(Weather::Slow(Duration::from_millis(10)));
        let payloads = at_once(buyers.iter().map(|buyer| server.reserve(buyer, drop, None, None))).await;
        let granted = payloads.iter().filter(|payload| payload["userErrors"] == json!([])).count();
        let refused =
            payloads.iter().filter(|payload| payload["userErrors"][0]["code"] == "ALL_HELD").count();
        assert_eq!((granted, refused), (20, 40));
        server.stop().await;
    })
    .await;
}
