//! Reserving a pair.

use chrono::{TimeDelta, Utc};
use diesel_async::SimpleAsyncConnection as _;
use serde_json::json;
use sneaker_drop::{
    ids::{DropId, UserId},
    stock::{Reserve, StockError},
};

use crate::harness::{HeldLock, at_once, codes, drive, drive_still, global};

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_holds_one_numbered_pair_at_todays_price() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("US 9", 2), ("US 10", 1)]).await);
        let payload = app.reserve(&buyer, drop, Some("US 9"), None).await;
        assert_eq!(codes(&payload), [] as [&str; 0]);
        let reservation = &payload["reservation"];
        assert_eq!((&reservation["size"], &reservation["pairNumber"]), (&json!("US 9"), &json!(1)));
        assert_eq!(
            (&reservation["status"], &reservation["price"]["amount"]),
            (&json!("ACTIVE"), &json!(18_000))
        );
        let at = |value: &serde_json::Value| {
            chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap()
        };
        assert_eq!(at(&reservation["expiresAt"]) - at(&payload["serverTime"]), TimeDelta::seconds(60));
        assert_eq!((&payload["drop"]["stockVersion"], &payload["drop"]["heldStock"]), (&json!(2), &json!(1)));
        assert_eq!(app.counts(drop).await, [2, 1, 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_says_why() {
    drive(async |app| {
        let buyer = app.buyer().await;
        let now = Utc::now();
        let one = [("ONE", 1)];
        let hour = TimeDelta::hours(1);
        let scheduled = app.drop_like(&one, |drop| drop.starts_at = Some(now + hour)).await;
        let ended = app.drop_like(&one, |drop| drop.ends_at = Some(now + hour)).await;
        app.sql(&format!(
            "UPDATE drops SET starts_at = starts_at - interval '2 h', ends_at = ends_at - interval '2 h' WHERE id = '{ended}'"
        ))
        .await;
        let cancelled = app.drop(&one).await;
        app.app.stock.cancel_drop(cancelled).await.unwrap();
        let two = app.drop(&[("US 9", 1), ("US 10", 1)]).await;
        for (drop, size, code) in [
            (scheduled, None, "NOT_STARTED"),
            (ended, None, "ENDED"),
            (cancelled, None, "CANCELLED"),
            (two, None, "SIZE_REQUIRED"),
            (two, Some("US 11"), "UNKNOWN_SIZE"),
            (DropId::new(), None, "DROP_NOT_FOUND"),
        ] {
            let payload = app.reserve(&buyer, drop, size, None).await;
            assert_eq!(codes(&payload), [code]);
            assert!(payload["reservation"].is_null() && payload["serverTime"].is_string(), "{payload}");
            assert_eq!(payload["drop"].is_null(), code == "DROP_NOT_FOUND", "{payload}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_at_the_limit_gets_the_live_hold() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("US 9", 5), ("US 10", 5)]).await);
        let hold = app.hold(&buyer, drop, "US 9").await;
        let payload = app.reserve(&buyer, drop, Some("US 10"), None).await;
        assert_eq!(codes(&payload), ["LIMIT_REACHED"]);
        assert_eq!(payload["reservation"]["id"], json!(hold));
        app.purchase(&buyer, &hold).await;
        let payload = app.reserve(&buyer, drop, Some("US 10"), None).await;
        assert_eq!(codes(&payload), ["LIMIT_REACHED"], "a purchase counts too");
        assert!(payload["reservation"].is_null(), "a purchase is no live hold: {payload}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_the_same_key_gets_the_first_reservation() {
    drive(async |app| {
        let (buyer, other) = (app.buyer().await, app.buyer().await);
        let drop = app.drop(&[("US 9", 5), ("US 10", 5)]).await;
        let key = Some("click-1");
        let first = app.reserve(&buyer, drop, Some("US 9"), key).await;
        let again = app.reserve(&buyer, drop, Some("US 9"), key).await;
        assert_eq!(first["reservation"], again["reservation"]);
        let reused = app.reserve(&buyer, drop, Some("US 10"), key).await;
        assert_eq!(codes(&reused), ["IDEMPOTENCY_KEY_REUSED"]);
        assert!(reused["reservation"].is_null());
        let others = app.reserve(&other, drop, Some("US 9"), key).await;
        assert_ne!(others["reservation"]["id"], first["reservation"]["id"], "keys are each buyer's own");

        app.age_holds(drop, 1).await;
        let lapsed = app.reserve(&buyer, drop, Some("US 9"), key).await;
        assert_eq!(lapsed["reservation"]["id"], first["reservation"]["id"]);
        assert_eq!(lapsed["reservation"]["status"], "EXPIRED", "its status of today");
        assert_eq!(codes(&lapsed), [] as [&str; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_remembered_under_its_key() {
    drive(async |app| {
        let (buyer, other, drop) = (app.buyer().await, app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let hold = app.hold(&other, drop, "ONE").await;
        assert_eq!(codes(&app.reserve(&buyer, drop, None, Some("k")).await), ["ALL_HELD"]);
        app.cancel(&other, &hold).await;
        assert_eq!(codes(&app.reserve(&buyer, drop, None, Some("k")).await), [] as [&str; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_bad_user_input() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let query = "mutation($input: ReserveInput!) { reserve(input: $input) { serverTime } }";
        for key in ["", "a\u{0}b", "a\nb", &"x".repeat(256)] {
            let input = json!({ "input": { "dropId": global(drop), "idempotencyKey": key } });
            assert_eq!(app.error_code(Some(&buyer.token), query, input).await, "BAD_USER_INPUT", "{key:.20}");
        }
        for size in ["\u{0}", &"x".repeat(10_000)] {
            assert_eq!(codes(&app.reserve(&buyer, drop, Some(size), None).await), ["UNKNOWN_SIZE"]);
        }
        let key = "é".repeat(255);
        assert_eq!(codes(&app.reserve(&buyer, drop, None, Some(&key)).await), [] as [&str; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_buyers_get_fifty_pairs() {
    drive(async |app| {
        let drop = app.drop(&[("US 9", 20), ("US 10", 30)]).await;
        let buyers = app.buyers(500).await;
        let size = |index: usize| if index.is_multiple_of(2) { "US 9" } else { "US 10" };
        let asked =
            buyers.iter().enumerate().map(|(index, buyer)| app.reserve(buyer, drop, Some(size(index)), None));
        let payloads = at_once(asked).await;
        let held: Vec<_> =
            payloads.iter().zip(&buyers).filter(|(payload, _)| codes(payload).is_empty()).collect();
        assert_eq!(held.len(), 50);
        assert_eq!(payloads.iter().filter(|payload| codes(payload) == ["ALL_HELD"]).count(), 450);
        assert_eq!(app.counts(drop).await, [0, 50, 0]);

        let bought = held.iter().map(|(payload, buyer)| {
            let id = payload["reservation"]["id"].as_str().unwrap();
            app.purchase(buyer, id)
        });
        assert!(at_once(bought).await.iter().all(|payload| codes(payload).is_empty()));
        assert_eq!(app.counts(drop).await, [0, 0, 50]);
        let late = app.reserve(&app.buyer().await, drop, Some("US 9"), None).await;
        assert_eq!(codes(&late), ["SOLD_OUT"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_buyer_fifty_times_at_once_gets_one_hold() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 100)]).await);
        let second = app.second().await;
        let asked = (0..50).map(|index| {
            let server = if index % 2 == 0 { app } else { &second };
            server.reserve(&buyer, drop, None, None)
        });
        let payloads = at_once(asked).await;
        let held: Vec<_> = payloads.iter().filter(|payload| codes(payload).is_empty()).collect();
        assert_eq!(held.len(), 1);
        let refused = payloads.iter().filter(|payload| codes(payload) == ["LIMIT_REACHED"]);
        assert!(refused.clone().all(|payload| payload["reservation"]["id"] == held[0]["reservation"]["id"]));
        assert_eq!(refused.count(), 49);
        assert_eq!(app.counts(drop).await, [99, 1, 0]);
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_fifty_times_at_once_is_one_reservation() {
    drive(async |app| {
        let (buyer, drop) =
            (app.buyer().await, app.drop_like(&[("ONE", 100)], |drop| drop.purchase_limit = 100).await);
        let second = app.second().await;
        let asked = (0..50).map(|index| {
            let server = if index % 2 == 0 { app } else { &second };
            server.reserve(&buyer, drop, None, Some("once"))
        });
        let payloads = at_once(asked).await;
        assert!(payloads.iter().all(|payload| codes(payload).is_empty()));
        assert!(
            payloads.iter().all(|payload| payload["reservation"]["id"] == payloads[0]["reservation"]["id"])
        );
        assert_eq!(app.counts(drop).await, [99, 1, 0]);
        second.stop().await;
    })
    .await;
}

/// Lock first, look second: what was committed while a reserve waited for the lock is seen by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_that_waited_for_the_lock_sees_what_was_done_under_it() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 5)]).await);
        let second = app.second().await;
        let lock = HeldLock::take(app, drop).await;
        let first = app.reserve(&buyer, drop, None, None);
        let other = async {
            app.wait_for_lock_waiters(1).await;
            second.reserve(&buyer, drop, None, None).await
        };
        let release = async {
            app.wait_for_lock_waiters(2).await;
            lock.release().await;
        };
        let (first, other, ()) = tokio::join!(first, other, release);
        assert_eq!((codes(&first), codes(&other)), (vec![], vec!["LIMIT_REACHED"]));
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pair_numbers_are_given_once_and_freed_ones_again() {
    drive(async |app| {
        let drop = app.drop(&[("ONE", 3)]).await;
        let buyers = app.buyers(4).await;
        let mut holds = Vec::new();
        for buyer in &buyers[..3] {
            let payload = app.reserve(buyer, drop, None, None).await;
            holds.push((payload["reservation"]["pairNumber"].clone(), payload["reservation"]["id"].clone()));
        }
        assert_eq!(holds.iter().map(|hold| hold.0.as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
        app.cancel(&buyers[1], holds[1].1.as_str().unwrap()).await;
        let payload = app.reserve(&buyers[3], drop, None, None).await;
        assert_eq!(payload["reservation"]["pairNumber"], 2);
    })
    .await;
}

/// Dear queries wait for each other, and for a connection; whoever buys waits for neither.
#[tokio::test(flavor = "multi_thread")]
async fn what_reads_takes_no_connection_from_what_sells() {
    drive_still(async |app| {
        let drop = app.drop(&[("ONE", 9)]).await;
        let [(holder, held)] = app.holds(drop, 1).await[..] else { unreachable!() };
        let mut brake = HeldLock::take(app, app.drop(&[("ONE", 1)]).await).await;
        brake.run("SELECT pg_advisory_xact_lock(1)").await;
        let read = async || {
            let db = &app.app.db;
            let wait = "SELECT pg_advisory_xact_lock_shared(1)";
            db.run(async |connection| Ok(connection.batch_execute(wait).await?)).await
        };
        let (read, ()) = tokio::join!(at_once((0..20).map(|_| read())), async {
            // As many as there are connections for them.
            app.wait_for_lock_waiters(2).await;
            app.holds(drop, 3).await;
            assert_eq!(app.app.stock.purchase(holder, held).await.unwrap().refusal, None);
            brake.release().await;
        });
        assert!(read.iter().all(Result::is_ok), "{read:?}");
        assert_eq!(app.counts(drop).await, [5, 3, 1]);
    })
    .await;
}

/// This server has heard nothing of the drop.
#[tokio::test]
async fn of_many_who_come_at_once_one_looks_whether_there_is_a_drop() {
    drive_still(async |app| {
        let drop = app.drop(&[("ONE", 100)]).await;
        let before = app.app.metrics.sql_statements.get();
        app.holds(drop, 100).await;
        let sent = app.app.metrics.sql_statements.get() - before;
        assert!(sent < 20, "{sent} statements");

        let before = app.app.metrics.sql_statements.get();
        let request =
            || Reserve { drop_id: DropId::new(), size: None, idempotency_key: None, admission: None };
        let answers = at_once((0..100).map(|_| app.app.stock.reserve(UserId::new(), request()))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(StockError::DropNotFound))));
        assert_eq!(app.app.metrics.sql_statements.get() - before, 100, "each id is looked for");
    })
    .await;
}

/// A lock that somebody else holds too long is an overload, not a hung request; nothing was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_does_not_come_free_is_overloaded() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 5)]).await);
        let lock = HeldLock::take(app, drop).await;
        let query = "mutation($id: ID!) { reserve(input: { dropId: $id }) { serverTime } }";
        let answer = app.ask(Some(&buyer.token), query, json!({ "id": global(drop) })).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], "OVERLOADED", "{answer}");
        assert!(answer["errors"][0]["extensions"]["retryAfterMs"].as_i64().unwrap() > 0);
        lock.release().await;
        assert_eq!(app.counts(drop).await, [5, 0, 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_lead_nowhere_find_nothing() {
    drive(async |app| {
        let buyer = app.buyer().await;
        let query =
            "mutation($id: ID!) { reserve(input: { dropId: $id }) { drop { id } userErrors { code } } }";
        for id in ["", "x", "drop_", "user_AAAA", &"drop_".repeat(1_000)] {
            let answer = app.data(Some(&buyer.token), query, json!({ "id": id })).await;
            assert_eq!(codes(&answer["reserve"]), ["DROP_NOT_FOUND"]);
        }
        for _ in 0..50 {
            let answer = app.reserve(&buyer, DropId::new(), None, None).await;
            assert_eq!(codes(&answer), ["DROP_NOT_FOUND"]);
        }
        let queues = &app.app.metrics.stock_queues;
        assert_eq!(queues.get(), 0, "what leads nowhere starts nothing");
        app.hold(&buyer, app.drop(&[("ONE", 1)]).await, "ONE").await;
        assert_eq!(queues.get(), 1);
    })
    .await;
}

/// A connection that is cut in the middle of a transaction: the buyer does not learn of it, and has one pair.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_connection_is_cut_is_run_again() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 5)]).await);
        let lock = HeldLock::take(app, drop).await;
        let cut = async {
            app.wait_for_lock_waiters(1).await;
            app.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .await;
            lock.release().await;
        };
        let (payload, ()) = tokio::join!(app.reserve(&buyer, drop, None, None), cut);
        assert_eq!(codes(&payload), [] as [&str; 0]);
        assert_eq!(app.counts(drop).await, [4, 1, 0]);
        assert!(app.app.metrics.stock_retries.get() > 0);
    })
    .await;
}
