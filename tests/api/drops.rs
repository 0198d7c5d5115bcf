//! The catalogue.

use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{TimeDelta, Utc};
use diesel_async::SimpleAsyncConnection as _;
use serde_json::{Value, json};
use sneaker_drop::{
    drops::{DropStatus, StockCount},
    ids::DropId,
    telemetry::PoolLabel,
};

use tokio::sync::oneshot;

use crate::{
    harness::{TestApp, at_once, codes, drive, drive_still, eventually, global},
    shoe::shoe,
};

const CREATE: &str = "mutation($input: CreateDropInput!) { createDrop(input: $input) {
    drop { id name price { amount currency } status stockVersion totalStock availableStock holdSeconds purchaseLimit
           sizes { size totalStock } startsAt endsAt createdAt }
    userErrors { code field message }
} }";

async fn create(app: &TestApp, token: &str, input: Value) -> Value {
    app.data(Some(token), CREATE, json!({ "input": input })).await["createDrop"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_creates_a_drop_with_its_opening_stock() {
    drive(async |app| {
        let admin = app.admin().await;
        let sizes = json!([{ "size": "US 10", "stock": 2 }, { "size": " US 9 ", "stock": 3 }]);
        let price = json!({ "amount": 18_000, "currency": "USD" });
        let made =
            create(app, &admin.token, json!({ "name": " Runner ", "price": price, "sizes": sizes })).await;
        let drop = &made["drop"];
        assert_eq!(
            (&drop["name"], &drop["status"], &drop["stockVersion"]),
            (&json!("Runner"), &json!("LIVE"), &json!(1))
        );
        assert_eq!(
            (&drop["totalStock"], &drop["holdSeconds"], &drop["purchaseLimit"]),
            (&json!(5), &json!(60), &json!(1))
        );
        let in_order = json!([{ "size": "US 10", "totalStock": 2 }, { "size": "US 9", "totalStock": 3 }]);
        assert_eq!(drop["sizes"], in_order);
        assert_eq!(drop["startsAt"], drop["createdAt"]);
        let largest =
            create(app, &admin.token, json!({ "name": "All", "price": price, "stock": 100_000 })).await;
        assert_eq!(largest["drop"]["availableStock"], 100_000);
        let single = create(app, &admin.token, json!({ "name": "One", "price": price, "stock": 7 })).await;
        assert_eq!(single["drop"]["sizes"], json!([{ "size": "ONE", "totalStock": 7 }]));
    })
    .await;
}

/// Whoever waits for a connection may be told OVERLOADED, which means that nothing was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_was_made_is_told_however_busy_it_is() {
    drive_still(async |app| {
        let new = shoe(&[("ONE", 3)], 60, 1);
        let occupy = || {
            let (release, released) = oneshot::channel::<()>();
            let db = app.app.db.clone();
            let held = tokio::spawn(async move { db.run(async |_| Ok(released.await.is_ok())).await });
            (release, held)
        };
        let waiting = || {
            app.app.db.record_pools();
            app.app.metrics.pool_waiting.get_or_create(&PoolLabel { pool: "reads" }).get()
        };
        // Of two connections one is held, and the other is the one that makes the drop.
        let first = occupy();
        let mut hindrance = app.connection().await;
        hindrance.batch_execute("BEGIN; LOCK TABLE drops IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
        let services = app.app.clone();
        let made = tokio::spawn(async move { services.create_drop(new).await });
        app.wait_for_lock_waiters(1).await;
        let second = occupy();
        eventually(async || waiting() == 1).await;
        hindrance.batch_execute("COMMIT").await.unwrap();
        assert_eq!(made.await.unwrap().unwrap().version, 1);
        for (release, held) in [first, second] {
            release.send(()).unwrap();
            assert!(held.await.unwrap().unwrap());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_made_once_per_key() {
    drive(async |app| {
        let (admin, other) = (app.admin().await, app.admin().await);
        let input = |key: &str, change: Value| {
            let mut input = json!({
                "name": "Runner", "price": { "amount": 1, "currency": "USD" }, "idempotencyKey": key,
                "sizes": [{ "size": "US 9", "stock": 2 }, { "size": "US 10", "stock": 3 }],
            });
            change.as_object().unwrap().iter().for_each(|(name, value)| input[name] = value.clone());
            input
        };
        let same = input("spring", json!({}));
        let made = at_once((0..8).map(|_| create(app, &admin.token, same.clone()))).await;
        assert!(made[0]["drop"]["id"].is_string(), "{}", made[0]);
        assert!(made.iter().all(|one| one["drop"] == made[0]["drop"]), "{}", json!(made));
        assert_eq!(app.count("SELECT count(*) AS count FROM drops").await, 1);

        // As it is by now.
        let id = DropId::decode(made[0]["drop"]["id"].as_str().unwrap()).unwrap();
        app.hold(&app.buyer().await, id, "US 9").await;
        let again = create(app, &admin.token, same.clone()).await;
        assert_eq!(
            (&again["drop"]["id"], &again["drop"]["stockVersion"]),
            (&made[0]["drop"]["id"], &json!(2))
        );

        let fewer = json!([{ "size": "US 9", "stock": 2 }]);
        for change in [
            json!({ "name": "Walker" }),
            json!({ "description": "Another." }),
            json!({ "imageUrl": "https://x.example/" }),
            json!({ "price": { "amount": 2, "currency": "USD" } }),
            json!({ "startsAt": "2030-01-01T00:00:00Z" }),
            json!({ "endsAt": "2090-01-01T00:00:00Z" }),
            json!({ "holdSeconds": 61 }),
            json!({ "purchaseLimit": 2 }),
            json!({ "sizes": fewer }),
            json!({ "sizes": null, "stock": 5 }),
        ] {
            let refused = create(app, &admin.token, input("spring", change.clone())).await;
            assert_eq!(codes(&refused), ["IDEMPOTENCY_KEY_REUSED"], "{change}");
            assert_eq!(refused["userErrors"][0]["field"], json!(["input", "idempotencyKey"]));
            assert!(refused["drop"].is_null());
        }
        assert_eq!(app.count("SELECT count(*) AS count FROM drops").await, 1);

        // Another key or another person is another drop, and a refusal is not remembered.
        let late =
            create(app, &admin.token, input("summer", json!({ "endsAt": "2020-01-01T00:00:00Z" }))).await;
        assert_eq!(codes(&late), ["ENDS_TOO_EARLY"]);
        for (token, key) in [(&admin.token, "summer"), (&other.token, "spring")] {
            let new = create(app, token, input(key, json!({}))).await;
            assert_eq!(new["drop"]["stockVersion"], 1, "{new}");
            assert_ne!(new["drop"]["id"], made[0]["drop"]["id"]);
        }
        for _ in 0..2 {
            create(app, &admin.token, input("spring", json!({ "idempotencyKey": null }))).await;
        }
        assert_eq!(app.count("SELECT count(*) AS count FROM drops").await, 5);
        for key in ["", "a\nb", &"x".repeat(256)] {
            let code =
                app.error_code(Some(&admin.token), CREATE, json!({ "input": input(key, json!({})) })).await;
            assert_eq!(code, "BAD_USER_INPUT", "{key:?}");
        }
    })
    .await;
}

/// Retries of a large drop, while the first is on its way: connections that read are there for others.
#[tokio::test(flavor = "multi_thread")]
async fn drops_are_made_one_at_a_time() {
    drive_still(async |app| {
        let admin = app.admin().await;
        let input = json!({
            "name": "Runner", "price": { "amount": 1, "currency": "USD" }, "stock": 1, "idempotencyKey": "spring",
        });
        let mut elsewhere = app.connection().await;
        let claim = format!("INSERT INTO drop_keys VALUES ('{}', 'spring', '{}')", admin.user_id, DropId::new());
        elsewhere.batch_execute(&format!("BEGIN; {claim}")).await.unwrap();
        let variables = json!({ "input": input });
        let answered = AtomicUsize::new(0);
        let made = at_once((0..6).map(async |_| {
            let made = app.ask(Some(&admin.token), CREATE, variables.clone()).await;
            answered.fetch_add(1, Ordering::Relaxed);
            made
        }));
        let (made, ()) = tokio::join!(made, async {
            let waits = "SELECT least(1, count(*)) AS count FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
            app.wait_for_count(waits, 1).await;
            for _ in 0..4 {
                app.data(None, "{ serverTime }", json!({})).await;
            }
            assert_eq!(answered.load(Ordering::Relaxed), 0, "they waited until one was given up");
            elsewhere.batch_execute("ROLLBACK").await.unwrap();
        });
        for made in made {
            let code = made.pointer("/errors/0/extensions/code").and_then(Value::as_str);
            assert!(matches!(code, None | Some("OVERLOADED")), "{made}");
        }
        assert!(create(app, &admin.token, input).await["drop"].is_object());
        assert_eq!(app.count("SELECT count(*) AS count FROM drops").await, 1);
    })
    .await;
}

/// What its times allowed then they need not allow now.
#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_is_over_is_found_by_its_key() {
    drive(async |app| {
        let admin = app.admin().await;
        let input = json!({
            "name": "Runner", "price": { "amount": 1, "currency": "USD" }, "stock": 1, "idempotencyKey": "autumn",
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2090-01-01T00:00:00Z",
        });
        let made = create(app, &admin.token, input.clone()).await;
        app.sql("UPDATE drops SET ends_at = '2020-01-02T00:00:00Z'").await;
        let mut over = input;
        over["endsAt"] = json!("2020-01-02T00:00:00Z");
        let again = create(app, &admin.token, over).await;
        assert_eq!((&again["drop"]["id"], &again["drop"]["status"]), (&made["drop"]["id"], &json!("ENDED")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_run_drops() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let input = json!({ "input": { "name": "x", "price": { "amount": 1, "currency": "USD" }, "stock": 1 } });
        assert_eq!(app.error_code(Some(&buyer.token), CREATE, input.clone()).await, "FORBIDDEN");
        assert_eq!(app.error_code(None, CREATE, input.clone()).await, "UNAUTHENTICATED");
        let cancel = "mutation($id: ID!) { cancelDrop(input: { dropId: $id }) { drop { status } userErrors { code } } }";
        assert_eq!(app.error_code(Some(&buyer.token), cancel, json!({ "id": global(drop) })).await, "FORBIDDEN");
        let admin = app.admin().await;
        assert!(create(app, &admin.token, input["input"].clone()).await["drop"].is_object());
        // A role that is taken is gone at once.
        app.sql("UPDATE users SET role = 'buyer'").await;
        assert_eq!(app.error_code(Some(&admin.token), CREATE, input).await, "FORBIDDEN");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_of_a_drop_is_told_at_once() {
    drive(async |app| {
        let admin = app.admin().await;
        let far = "9999-12-31T23:59:59Z";
        let wrong = json!({
            "name": " ", "description": "x".repeat(5_001), "imageUrl": "javascript:alert(1)",
            "price": { "amount": 0, "currency": "usd" }, "holdSeconds": 0, "purchaseLimit": -1,
            "sizes": [{ "size": "9", "stock": 1 }, { "size": "9", "stock": 0 }, { "size": "", "stock": 2_000_000_000 }],
        });
        let refused = create(app, &admin.token, wrong).await;
        assert!(refused["drop"].is_null());
        let mut found: Vec<(String, String)> = refused["userErrors"].as_array().unwrap().iter().map(|error| {
            let path: Vec<&str> = error["field"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
            assert!(!error["message"].as_str().unwrap().is_empty());
            (path.join("."), error["code"].as_str().unwrap().to_owned())
        }).collect();
        found.sort();
        let expected = [
            ("input.description", "TOO_LONG"), ("input.holdSeconds", "NOT_POSITIVE"), ("input.imageUrl", "INVALID"),
            ("input.name", "BLANK"), ("input.price.amount", "NOT_POSITIVE"), ("input.price.currency", "INVALID"),
            ("input.purchaseLimit", "NOT_POSITIVE"), ("input.sizes", "INVALID"), ("input.sizes.1.size", "DUPLICATE"),
            ("input.sizes.1.stock", "NOT_POSITIVE"), ("input.sizes.2.size", "BLANK"),
        ];
        assert_eq!(found, expected.map(|(path, code)| (path.to_owned(), code.to_owned())));

        let good = |change: Value| {
            let mut input = json!({ "name": "x", "price": { "amount": 1, "currency": "USD" }, "stock": 1 });
            for (key, value) in change.as_object().unwrap() {
                input[key] = value.clone();
            }
            input
        };
        for (change, code) in [
            (json!({ "sizes": [{ "size": "9", "stock": 1 }] }), "SIZES_OR_STOCK"),
            (json!({ "stock": null }), "SIZES_OR_STOCK"),
            (json!({ "stock": null, "sizes": [] }), "SIZES_OR_STOCK"),
            (json!({ "endsAt": "2020-01-01T00:00:00Z" }), "ENDS_TOO_EARLY"),
            (json!({ "startsAt": far, "endsAt": far }), "ENDS_TOO_EARLY"),
            // As far as the API shows them these are the same.
            (json!({ "startsAt": "2030-01-01T00:00:00.0001Z", "endsAt": "2030-01-01T00:00:00.0002Z" }), "ENDS_TOO_EARLY"),
            (json!({ "name": "a\u{0}b" }), "INVALID"),
            (json!({ "name": "\u{202e}rennuR" }), "INVALID"),
            (json!({ "name": "\u{200b}\u{200d}" }), "BLANK"),
            (json!({ "stock": null, "sizes": [{ "size": "\u{e9}", "stock": 1 }, { "size": "E\u{301}", "stock": 1 }] }), "DUPLICATE"),
            (json!({ "startsAt": "0000-01-01T00:00:00Z" }), "INVALID"),
            (json!({ "holdSeconds": i32::MAX }), "INVALID"),
        ] {
            assert_eq!(codes(&create(app, &admin.token, good(change.clone())).await), [code], "{change}");
        }
        // A leap second is the next minute's first to PostgreSQL, and the last of 9999 is beyond.
        let leaps = ["2030-01-01T00:00:60Z", "9999-12-31T23:59:60Z"].map(|at| json!({ "startsAt": at }));
        let others = [json!({ "startsAt": "yesterday" }), json!({ "stock": 3_000_000_000_i64 })];
        for input in others.into_iter().chain(leaps) {
            let input = json!({ "input": good(input) });
            assert!(app.ask(Some(&admin.token), CREATE, input).await["errors"][0]["extensions"]["code"].is_string());
        }
        let nul_url = json!({ "imageUrl": "https://x.example/a\u{0}b" });
        assert_eq!(codes(&create(app, &admin.token, good(nul_url)).await), [] as [&str; 0]);
        assert_eq!(app.count("SELECT count(*) AS count FROM drops").await, 1, "nothing of what was refused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lists_status_is_the_one_that_each_drop_shows() {
    drive_still(async |app| {
        let now = Utc::now();
        let hour = TimeDelta::hours(1);
        let live = app.drop(&[("ONE", 1)]).await;
        let scheduled = app.drop_like(&[("ONE", 1)], |drop| drop.starts_at = Some(now + hour)).await;
        let sold_out = app.drop(&[("ONE", 1)]).await;
        let buyer = app.buyer().await;
        let hold = app.hold(&buyer, sold_out, "ONE").await;
        app.purchase(&buyer, &hold).await;
        let ended = app.drop(&[("ONE", 1)]).await;
        app.sql(&format!(
            "UPDATE drops SET starts_at = now() - interval '2 h', ends_at = now() WHERE id = '{ended}'"
        ))
        .await;
        let cancelled = app.drop(&[("ONE", 1)]).await;
        app.app.stock.cancel_drop(cancelled).await.unwrap();
        let query = "query($statuses: [DropStatus!]) { drops(statuses: $statuses) { nodes { id status } } }";
        let all = [
            (live, "LIVE", DropStatus::Live),
            (scheduled, "SCHEDULED", DropStatus::Scheduled),
            (sold_out, "SOLD_OUT", DropStatus::SoldOut),
            (ended, "ENDED", DropStatus::Ended),
            (cancelled, "CANCELLED", DropStatus::Cancelled),
        ];
        for (id, name, status) in all {
            let found = app.data(None, query, json!({ "statuses": [name] })).await;
            assert_eq!(found["drops"]["nodes"], json!([{ "id": global(id), "status": name }]));
            let state = app.app.drops.find(id).await.unwrap().unwrap();
            assert_eq!(state.status(state.read.at), status);
        }
        let active = app.data(None, "{ drops { nodes { id } } }", Value::Null).await;
        assert_eq!(active["drops"]["nodes"], json!([{ "id": global(sold_out) }, { "id": global(live) }]));
        let none = app.data(None, query, json!({ "statuses": [] })).await;
        assert_eq!(none["drops"]["nodes"], json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_with_more_holds_than_one_transaction_could_take_back_is_cancelled() {
    drive_still(async |app| {
        let drop = app.held_drop(2_500).await;
        let answer = app.app.stock.cancel_drop(drop).await.unwrap();
        assert_eq!(answer.state.count(), StockCount { total: 2_500, available: 2_500, held: 0, sold: 0 });
        assert!(answer.state.catalogue.cancelled_at.is_some());
        let events = format!("FROM stock_events WHERE drop_id = '{drop}' AND released[1]");
        assert_eq!(app.count(&format!("SELECT count(*) AS count {events} > 1000")).await, 0);
        assert_eq!(app.count(&format!("SELECT count(*) AS count {events} > 0")).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_drop_gives_its_holds_back_once() {
    drive(async |app| {
        let (admin, buyer) = (app.admin().await, app.buyer().await);
        let drop = app.drop(&[("ONE", 3)]).await;
        let hold = app.hold(&buyer, drop, "ONE").await;
        let query = "mutation($id: ID!) { cancelDrop(input: { dropId: $id }) {
            drop { status stockVersion availableStock heldStock } userErrors { code } } }";
        let first = app.data(Some(&admin.token), query, json!({ "id": global(drop) })).await;
        let expected =
            json!({ "status": "CANCELLED", "stockVersion": 3, "availableStock": 3, "heldStock": 0 });
        assert_eq!(first["cancelDrop"]["drop"], expected);
        assert_eq!(
            app.data(Some(&admin.token), query, json!({ "id": global(drop) })).await,
            first,
            "twice changes nothing"
        );
        let node = "query($id: ID!) { node(id: $id) { ... on Reservation { status } } }";
        let seen = app.data(Some(&buyer.token), node, json!({ "id": hold })).await;
        assert_eq!(seen["node"]["status"], "CANCELLED");
        for id in [global(DropId::new()), "x".to_owned()] {
            let unknown = app.data(Some(&admin.token), query, json!({ "id": id })).await;
            assert_eq!(codes(&unknown["cancelDrop"]), ["DROP_NOT_FOUND"]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_found_by_whom_they_are_for() {
    drive_still(async |app| {
        let (owner, other, admin) = (app.buyer().await, app.buyer().await, app.admin().await);
        let drop = app.drop_like(&[("ONE", 5)], |drop| drop.purchase_limit = 3).await;
        let live = app.hold(&owner, drop, "ONE").await;
        let bought = app.hold(&owner, drop, "ONE").await;
        let purchase = app.purchase(&owner, &bought).await["purchase"]["id"].as_str().unwrap().to_owned();
        let closed = app.hold(&owner, drop, "ONE").await;
        app.cancel(&owner, &closed).await;
        let user = sneaker_drop::ids::NodeId::User(owner.user_id).encode();
        let ids = [&global(drop), &user, &live, &bought, &purchase, &closed, "nonsense", ""];
        let query = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }";
        for (token, sees_closed) in [(None, false), (Some(&other), false), (Some(&owner), true), (Some(&admin), true)] {
            let token = token.map(|buyer| buyer.token.as_str());
            let found = app.data(token, query, json!({ "ids": ids })).await;
            let kinds: Vec<Option<&str>> =
                found["nodes"].as_array().unwrap().iter().map(|node| node["__typename"].as_str()).collect();
            let closed = sees_closed.then_some("Reservation");
            let rest = [Some("Drop"), Some("User"), Some("Reservation"), Some("Reservation"), Some("Purchase"), closed];
            assert_eq!(kinds, [rest.as_slice(), &[None, None]].concat());
        }
        assert_eq!(app.error_code(None, query, json!({ "ids": vec!["x"; 51] })).await, "BAD_USER_INPUT");
        let viewer = "query { viewer { id email role user { username }
            reservations(first: 2) { totalCount nodes { id } pageInfo { hasNextPage endCursor } }
            purchases { nodes { id reservation { id } drop { id } } } none: purchases(dropId: \"x\") { nodes { id } } } }";
        let seen = app.data(Some(&owner.token), viewer, Value::Null).await["viewer"].take();
        assert_eq!(seen["reservations"]["totalCount"], 3);
        assert_eq!(seen["reservations"]["nodes"][0]["id"], json!(closed), "newest first");
        assert_eq!(seen["purchases"]["nodes"][0]["reservation"]["id"], json!(bought));
        assert_eq!((&seen["role"], &seen["none"]["nodes"]), (&json!("BUYER"), &json!([])));
    })
    .await;
}
