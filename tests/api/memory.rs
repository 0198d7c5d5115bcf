//! No from memory, yes never.

use crate::harness::{Buyer, TestApp, at_once, codes, drive, eventually};
use serde_json::json;
use sneaker_drop::ids::DropId;

/// Asks until an answer cost no statement: what runs in the background is counted too.
async fn costs_nothing(app: &TestApp, buyer: &Buyer, drop: DropId, code: &str) {
    eventually(async || {
        let before = app.app.metrics.sql_statements.get();
        let answer = app.reserve(buyer, drop, Some("US 9"), None).await;
        assert_eq!(codes(&answer), [code]);
        assert!(answer["reservation"].is_null());
        app.app.metrics.sql_statements.get() == before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sold_out_is_told_from_memory_and_retries_get_through() {
    drive(async |app| {
        let (buyers, late) = (app.buyers(3).await, app.buyer().await);
        let drop = app.drop(&[("US 9", 3), ("US 10", 1)]).await;
        let mut bought = Vec::new();
        for buyer in &buyers {
            let held = app.reserve(buyer, drop, Some("US 9"), Some("k")).await;
            let id = held["reservation"]["id"].as_str().unwrap().to_owned();
            assert_eq!(codes(&app.purchase(buyer, &id).await), [] as [&str; 0]);
            bought.push(id);
        }
        costs_nothing(app, &late, drop, "SOLD_OUT").await;
        for (buyer, id) in buyers.iter().zip(&bought) {
            let retry = app.reserve(buyer, drop, Some("US 9"), Some("k")).await;
            assert_eq!(retry["reservation"]["id"].as_str(), Some(id.as_str()), "{retry}");
            assert_eq!(codes(&app.purchase(buyer, id).await), [] as [&str; 0]);
            assert_eq!(codes(&app.reserve(buyer, drop, Some("US 9"), None).await), ["LIMIT_REACHED"]);
        }
        // Another size has some, and then has not.
        let last = app.hold(&late, drop, "US 10").await;
        assert_eq!(codes(&app.reserve(&late, drop, Some("US 9"), None).await), ["LIMIT_REACHED"]);
        assert_eq!(codes(&app.purchase(&late, &last).await), [] as [&str; 0]);
        assert_eq!(codes(&app.reserve(&app.buyer().await, drop, Some("US 8"), None).await), ["UNKNOWN_SIZE"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_held_is_told_from_memory_until_a_pair_comes_back() {
    drive(async |app| {
        let holder = app.buyer().await;
        let drop = app.drop(&[("US 9", 1)]).await;
        for round in 0..5 {
            let (key, late) = (round.to_string(), app.buyer().await);
            let held = app.reserve(&holder, drop, Some("US 9"), Some(&key)).await;
            let hold = held["reservation"]["id"].as_str().unwrap();
            costs_nothing(app, &late, drop, "ALL_HELD").await;
            let retry = app.reserve(&holder, drop, Some("US 9"), Some(&key)).await;
            assert_eq!(retry["reservation"]["id"].as_str(), Some(hold));
            app.cancel(&holder, hold).await;
            // The next to ask has it, whatever was remembered.
            let hold = app.hold(&late, drop, "US 9").await;
            assert_eq!(codes(&app.reserve(&app.buyer().await, drop, Some("US 9"), None).await), ["ALL_HELD"]);
            app.cancel(&late, &hold).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_withdrawn_through_another_server_is_not_sold_out_for_long() {
    drive(async |app| {
        let (buyer, late) = (app.buyer().await, app.buyer().await);
        let drop = app.drop(&[("US 9", 1)]).await;
        let hold = app.hold(&buyer, drop, "US 9").await;
        app.purchase(&buyer, &hold).await;
        costs_nothing(app, &late, drop, "SOLD_OUT").await;
        let second = app.second().await;
        second.app.stock.cancel_drop(drop).await.unwrap();
        // Each time another, for one buyer may not ask as often.
        eventually(async || {
            codes(&app.reserve(&Buyer::unknown(), drop, Some("US 9"), None).await) == ["CANCELLED"]
        })
        .await;
        second.stop().await;
    })
    .await;
}

/// A batch that changes nothing sees the version that another server made, and knows nothing of whom it gave holds.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_given_a_hold_by_another_server_is_not_told_from_memory() {
    drive(async |app| {
        let second = app.second().await;
        let (gone, owner) = (app.buyer().await, app.buyer().await);
        let drop = app.drop(&[("US 9", 1)]).await;
        app.hold(&gone, drop, "US 9").await;
        costs_nothing(app, &app.buyer().await, drop, "ALL_HELD").await;
        // Taken back and given out again in one batch, which is one version.
        app.age_holds(drop, 1).await;
        let held = second.reserve(&owner, drop, Some("US 9"), Some("k")).await;
        let hold = held["reservation"]["id"].as_str().unwrap();
        let seen = async |code: &str| {
            eventually(async || {
                codes(&app.reserve(&app.buyer().await, drop, Some("US 9"), None).await) == [code]
            })
            .await;
        };
        eventually(async || {
            seen("ALL_HELD").await;
            app.app.feed.find(drop).is_some_and(|state| json!(state.version) == held["drop"]["stockVersion"])
        })
        .await;
        assert_eq!(codes(&second.purchase(&owner, hold).await), [] as [&str; 0]);
        seen("SOLD_OUT").await;
        let retry = app.reserve(&owner, drop, Some("US 9"), Some("k")).await;
        assert_eq!(retry["reservation"]["id"].as_str(), Some(hold), "{retry}");
        second.stop().await;
    })
    .await;
}

/// Two servers, one drop: what either remembers never keeps a pair from a buyer or a reservation from its owner.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_with_memories_sell_every_pair() {
    drive(async |app| {
        let second = app.second().await;
        let drop = app.drop(&[("US 9", 10)]).await;
        let buyers = app.buyers(60).await;
        let servers = [app, &second];
        let tries = buyers.iter().enumerate().map(async |(index, buyer)| {
            // Each goes on until it has bought a pair or all are sold; holders give up half of their first holds.
            let mut turn = index;
            loop {
                let server = servers[turn % 2];
                turn += 1;
                let key = turn.to_string();
                let answer = server.reserve(buyer, drop, Some("US 9"), Some(&key)).await;
                match codes(&answer).as_slice() {
                    [] => {
                        let hold = answer["reservation"]["id"].as_str().unwrap().to_owned();
                        let other = servers[turn % 2];
                        let retry = server.reserve(buyer, drop, Some("US 9"), Some(&key)).await;
                        assert_eq!(retry["reservation"]["id"].as_str(), Some(hold.as_str()), "{retry}");
                        if turn % 2 == 0 {
                            app.cancel(buyer, &hold).await;
                            continue;
                        }
                        assert_eq!(codes(&other.purchase(buyer, &hold).await), [] as [&str; 0]);
                        return 1;
                    }
                    ["SOLD_OUT"] => return 0,
                    refused => assert_eq!(refused, ["ALL_HELD"]),
                }
            }
        });
        assert_eq!(at_once(tries).await.into_iter().sum::<i32>(), 10);
        second.stop().await;
    })
    .await;
}
