//! Holds that lapse.

use futures_util::StreamExt as _;
use serde_json::json;

use crate::harness::{codes, drive, drive_still, eventually, global};

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_hold_comes_back_by_itself_at_its_deadline() {
    drive(async |app| {
        let (buyer, drop) =
            (app.buyer().await, app.drop_like(&[("ONE", 1)], |drop| drop.hold_seconds = 2).await);
        app.hold(&buyer, drop, "ONE").await;
        let updates = app.app.feed.watch_drop(drop).await.unwrap().unwrap();
        let versions: Vec<_> =
            updates.take(2).map(|shown| (shown.state.version, shown.state.count().held)).collect().await;
        assert_eq!(versions, [(2, 1), (3, 0)]);
        let early = "SELECT count(*) AS count FROM reservations WHERE closed_at < expires_at";
        assert_eq!(app.count(early).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_hold_reads_expired_before_anyone_has_taken_it_back() {
    drive_still(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        app.age_holds(drop, 0).await;
        let query = "query($id: ID!, $drop: ID!) {
            node(id: $id) { ... on Reservation { status } }
            drop(id: $drop) { activeReservations { totalCount nodes { id } } }
            viewer { reservations { totalCount nodes { status } }
                     active: reservations(statuses: [ACTIVE]) { totalCount nodes { status } }
                     expired: reservations(statuses: [EXPIRED]) { totalCount } }
        }";
        let answer = app.data(Some(&buyer.token), query, json!({ "id": hold, "drop": global(drop) })).await;
        let none = json!({ "totalCount": 0, "nodes": [] });
        assert_eq!(answer["node"]["status"], "EXPIRED");
        assert_eq!(answer["drop"]["activeReservations"], none);
        assert_eq!(
            answer["viewer"]["reservations"],
            json!({ "totalCount": 1, "nodes": [{ "status": "EXPIRED" }] })
        );
        assert_eq!(
            (&answer["viewer"]["active"], &answer["viewer"]["expired"]["totalCount"]),
            (&none, &json!(1))
        );
        let strangers =
            app.data(None, "query($id: ID!) { node(id: $id) { id } }", json!({ "id": hold })).await;
        assert!(strangers["node"].is_null(), "a closed hold is its owner's to see");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_takes_lapsed_holds_back_itself() {
    drive_still(async |app| {
        let (late, buyer) = (app.buyer().await, app.buyer().await);
        let drop = app.drop(&[("ONE", 1)]).await;
        app.hold(&late, drop, "ONE").await;
        app.age_holds(drop, 5).await;
        let payload = app.reserve(&buyer, drop, None, None).await;
        assert_eq!(codes(&payload), [] as [&str; 0]);
        assert_eq!(payload["reservation"]["pairNumber"], 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_holds_lapse_together_than_one_transaction_could_take_back() {
    drive_still(async |app| {
        let drop = app.held_drop(2_500).await;
        app.age_holds(drop, 1).await;
        let buyer = app.buyer().await;
        app.hold(&buyer, drop, "ONE").await;
        assert_eq!(app.counts(drop).await, [2_499, 1, 0], "nobody was told before all were back");
        let events = format!("FROM stock_events WHERE drop_id = '{drop}' AND expired[1]");
        assert_eq!(app.count(&format!("SELECT count(*) AS count {events} > 1000")).await, 0);
        assert_eq!(app.count(&format!("SELECT count(*) AS count {events} > 0")).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyers_own_lapsed_hold_does_not_count_against_the_limit() {
    drive_still(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let first = app.hold(&buyer, drop, "ONE").await;
        app.age_holds(drop, 1).await;
        assert_ne!(app.hold(&buyer, drop, "ONE").await, first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_of_a_server_that_is_gone_come_back_right_after_a_start() {
    drive_still(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        app.hold(&buyer, drop, "ONE").await;
        app.age_holds(drop, 3_600).await;
        let started = app.second().await;
        let mut updates = started.app.feed.watch_drop(drop).await.unwrap().unwrap().boxed();
        while updates.next().await.unwrap().state.count().available != 1 {}
        started.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_fire_at_once_take_a_hold_back_once() {
    drive(async |app| {
        let second = app.second().await;
        let drop = app.drop_like(&[("ONE", 20)], |drop| drop.hold_seconds = 1).await;
        for buyer in app.buyers(20).await {
            app.hold(&buyer, drop, "ONE").await;
        }
        second.app.stock.look_for_deadlines().await.unwrap();
        app.wait_for_count("SELECT count(*) AS count FROM reservations WHERE status = 'expired'", 20).await;
        // What the second server did, the first shows once its poll has found it.
        eventually(async || app.counts(drop).await == [20, 0, 0]).await;
        second.stop().await;
    })
    .await;
}

/// Expiry is for active holds: what was bought or given back stays so when its deadline passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_changes_nothing_about_a_closed_hold() {
    drive_still(async |app| {
        let (buyer, other, third) = (app.buyer().await, app.buyer().await, app.buyer().await);
        let drop = app.drop(&[("ONE", 3)]).await;
        let bought = app.hold(&buyer, drop, "ONE").await;
        app.purchase(&buyer, &bought).await;
        let given_back = app.hold(&other, drop, "ONE").await;
        app.cancel(&other, &given_back).await;
        app.sql(
            "UPDATE reservations SET created_at = created_at - interval '1 h', expires_at = expires_at - interval '1 h',
                                     closed_at = closed_at - interval '1 h'",
        )
        .await;
        app.sql("UPDATE purchases SET purchased_at = purchased_at - interval '1 h'").await;
        app.hold(&third, drop, "ONE").await;
        assert_eq!(app.counts(drop).await, [1, 1, 1]);
        assert_eq!(codes(&app.purchase(&buyer, &bought).await), [] as [&str; 0]);
    })
    .await;
}
