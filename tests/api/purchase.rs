//! Purchasing and giving back what is held.

use serde_json::json;

use crate::harness::{HeldLock, at_once, codes, drive, drive_still};

#[tokio::test(flavor = "multi_thread")]
async fn one_hold_bought_twenty_times_at_once_is_one_purchase() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        let second = app.second().await;
        let bought = (0..20).map(|index| {
            let server = if index % 2 == 0 { app } else { &second };
            server.purchase(&buyer, &hold)
        });
        let payloads = at_once(bought).await;
        assert!(payloads.iter().all(|payload| codes(payload).is_empty()), "{payloads:?}");
        assert!(payloads[0]["purchase"]["id"].as_str().unwrap().starts_with("pur_"));
        assert!(payloads.iter().all(|payload| payload["purchase"] == payloads[0]["purchase"]));
        assert_eq!(app.count("SELECT count(*) AS count FROM purchases").await, 1);
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_reservation_looks_like_none() {
    drive(async |app| {
        let (owner, other, drop) = (app.buyer().await, app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let hold = app.hold(&owner, drop, "ONE").await;
        let nowhere =
            sneaker_drop::ids::ReservationId { drop_id: drop, hold_id: sneaker_drop::ids::HoldId::new() };
        let nowhere = sneaker_drop::ids::NodeId::Reservation(nowhere).encode();
        let unknown = app.purchase(&other, &nowhere).await;
        assert_eq!(codes(&unknown), ["RESERVATION_NOT_FOUND"]);
        assert_eq!(app.purchase(&other, &hold).await, unknown);
        assert_eq!(app.purchase(&other, "nonsense").await, unknown);
        let unknown = app.cancel(&other, &nowhere).await;
        assert_eq!(codes(&unknown), ["RESERVATION_NOT_FOUND"]);
        assert_eq!(app.cancel(&other, &hold).await, unknown);
        assert_eq!(app.counts(drop).await, [1, 1, 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_charges_the_price_of_the_reservation() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        app.sql("UPDATE drops SET price_amount = 99900").await;
        let payload = app.purchase(&buyer, &hold).await;
        assert_eq!(payload["purchase"]["price"]["amount"], 18_000);
    })
    .await;
}

/// Every timer that could take the hold back is on: this server's queue knows the deadline, another polls for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_before_the_deadline_stays_when_the_deadline_passes() {
    drive(async |app| {
        let second = app.second().await;
        let (buyer, drop) =
            (app.buyer().await, app.drop_like(&[("ONE", 1)], |drop| drop.hold_seconds = 1).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        second.app.stock.look_for_deadlines().await.unwrap();
        assert_eq!(codes(&app.purchase(&buyer, &hold).await), [] as [&str; 0]);
        app.sql("SELECT pg_sleep_until(max(expires_at) + interval '50 ms') FROM reservations").await;
        app.app.stock.drain().await;
        second.app.stock.drain().await;
        assert_eq!(app.counts(drop).await, [0, 0, 1]);
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_deadline_on_a_purchase_is_refused_and_gives_the_pair_back() {
    drive_still(async |app| {
        let (buyer, drop) =
            (app.buyer().await, app.drop_like(&[("ONE", 1)], |drop| drop.hold_seconds = 1).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        app.sql("SELECT pg_sleep_until(max(expires_at)) FROM reservations").await;
        let payload = app.purchase(&buyer, &hold).await;
        assert_eq!(codes(&payload), ["RESERVATION_EXPIRED"]);
        assert_eq!(payload["reservation"]["status"], "EXPIRED");
        assert_eq!(payload["drop"], json!({ "availableStock": 1, "heldStock": 0, "soldStock": 0 }));
    })
    .await;
}

/// The clock is read after the lock: a purchase that came before the deadline and got the lock after it is late.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_waited_past_the_deadline_is_late() {
    drive_still(async |app| {
        let (buyer, drop) =
            (app.buyer().await, app.drop_like(&[("ONE", 1)], |drop| drop.hold_seconds = 1).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        let mut lock = HeldLock::take(app, drop).await;
        let wait = async {
            app.wait_for_lock_waiters(1).await;
            lock.run("SELECT pg_sleep_until(min(expires_at)) FROM reservations").await;
            lock.release().await;
        };
        let (payload, ()) = tokio::join!(app.purchase(&buyer, &hold), wait);
        assert_eq!(codes(&payload), ["RESERVATION_EXPIRED"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_purchase_and_a_cancel_the_first_at_the_lock_wins() {
    drive(async |app| {
        let second = app.second().await;
        for purchase_first in [true, false] {
            let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
            let hold = app.hold(&buyer, drop, "ONE").await;
            let lock = HeldLock::take(app, drop).await;
            let release = async {
                app.wait_for_lock_waiters(2).await;
                lock.release().await;
            };
            let (purchase, cancel) = if purchase_first {
                let cancel = async {
                    app.wait_for_lock_waiters(1).await;
                    second.cancel(&buyer, &hold).await
                };
                let (purchase, cancel, ()) = tokio::join!(app.purchase(&buyer, &hold), cancel, release);
                (purchase, cancel)
            } else {
                let purchase = async {
                    app.wait_for_lock_waiters(1).await;
                    second.purchase(&buyer, &hold).await
                };
                let (cancel, purchase, ()) = tokio::join!(app.cancel(&buyer, &hold), purchase, release);
                (purchase, cancel)
            };
            if purchase_first {
                assert_eq!((codes(&purchase), codes(&cancel)), (vec![], vec!["ALREADY_PURCHASED"]));
                assert_eq!(app.counts(drop).await, [0, 0, 1]);
            } else {
                assert_eq!((codes(&purchase), codes(&cancel)), (vec!["RESERVATION_CANCELLED"], vec![]));
                assert_eq!(app.counts(drop).await, [1, 0, 0]);
            }
        }
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_what_is_closed_changes_nothing() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let hold = app.hold(&buyer, drop, "ONE").await;
        let first = app.cancel(&buyer, &hold).await;
        assert_eq!((codes(&first), &first["reservation"]["status"]), (vec![], &json!("CANCELLED")));
        let version = "SELECT stock_version::bigint AS count FROM drops";
        let before = app.count(version).await;
        assert_eq!(app.cancel(&buyer, &hold).await, first);
        assert_eq!(app.count(version).await, before);
        assert_eq!(codes(&app.purchase(&buyer, &hold).await), ["RESERVATION_CANCELLED"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlives_the_end_of_its_drop_and_dies_with_its_cancelling() {
    drive(async |app| {
        let buyers = app.buyers(2).await;
        let drop = app.drop(&[("ONE", 2)]).await;
        let holds = [app.hold(&buyers[0], drop, "ONE").await, app.hold(&buyers[1], drop, "ONE").await];
        app.sql("UPDATE drops SET starts_at = starts_at - interval '1 h', ends_at = clock_timestamp()").await;
        assert_eq!(codes(&app.purchase(&buyers[0], &holds[0]).await), [] as [&str; 0]);
        app.app.stock.cancel_drop(drop).await.unwrap();
        assert_eq!(codes(&app.purchase(&buyers[1], &holds[1]).await), ["RESERVATION_CANCELLED"]);
        assert_eq!(app.counts(drop).await, [1, 0, 1]);
    })
    .await;
}
