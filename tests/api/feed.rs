//! Who watches is told.

use std::{pin::pin, sync::Arc, time::Duration};

use async_graphql::Request;
use chrono::{TimeDelta, Utc};
use futures_util::{StreamExt as _, poll};
use serde_json::{Value, json};
use sneaker_drop::{
    client::Client,
    clock::ClockReading,
    config::Limits,
    drops::DropStatus,
    graphql::{Credentials, FanOut, Gate, schema},
    ids::DropId,
    read_time::ReadTimes,
};
use tokio::{runtime::Handle, time::timeout};

use crate::harness::{HeldLock, Socket, at_once, drive, drive_still, eventually, global};

const WATCH: &str = "subscription($id: ID!) { stockUpdated(dropId: $id) {
    dropId status version availableStock heldStock soldStock totalStock at sizes { size availableStock }
    drop { id stockVersion availableStock }
} }";
const BOARD: &str = "subscription { activeStockUpdated { dropId status version availableStock } }";

async fn watch(app: &crate::harness::TestApp, drop: DropId) -> Socket {
    let mut socket = Socket::ready(app.address, Value::Null).await;
    socket.subscribe("1", WATCH, json!({ "id": global(drop) })).await;
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_the_state_at_once_and_then_each_change() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("US 9", 1), ("US 10", 2)]).await);
        let mut socket = watch(app, drop).await;
        let first = socket.next().await["stockUpdated"].take();
        assert_eq!(
            (&first["version"], &first["availableStock"], &first["status"]),
            (&json!(1), &json!(3), &json!("LIVE"))
        );
        assert_eq!(first["sizes"][1], json!({ "size": "US 10", "availableStock": 2 }));
        let hold = app.hold(&buyer, drop, "US 9").await;
        let second = socket.next().await["stockUpdated"].take();
        assert_eq!((&second["version"], &second["heldStock"]), (&json!(2), &json!(1)));
        assert_eq!(second["drop"], json!({ "id": global(drop), "stockVersion": 2, "availableStock": 2 }));
        app.purchase(&buyer, &hold).await;
        let third = socket.next().await["stockUpdated"].take();
        assert_eq!((&third["version"], &third["soldStock"]), (&json!(3), &json!(1)));
    })
    .await;
}

/// A drop brings ten thousand pages in its first minute: were each to read the drop, they would wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_come_at_once_read_the_drop_no_more_often_than_one() {
    drive(async |app| {
        let over = app.drop(&[("ONE", 1)]).await;
        app.sql("UPDATE drops SET starts_at = now() - interval '2 h', ends_at = now()").await;
        let open = app.drop(&[("ONE", 1)]).await;
        // What is over stays on the board for a minute, but not on that of a server that comes later.
        let late = app.second().await;
        let first = late.app.feed.watch_drop(over).await.unwrap().unwrap();
        for watched in [Some(open), Some(over), None] {
            eventually(async || {
                let before = late.app.metrics.sql_statements.get();
                let come = (0..100).map(async |_| match watched {
                    Some(drop) => {
                        let updates = late.app.feed.watch_drop(drop).await.unwrap().unwrap();
                        assert_eq!(pin!(updates).next().await.unwrap().state.id, drop);
                    }
                    None => {
                        let updates = late.app.feed.watch_board().await.unwrap();
                        assert_eq!(pin!(updates).next().await.unwrap().state.id, open);
                    }
                });
                at_once(come).await;
                // What runs in the background is counted too.
                late.app.metrics.sql_statements.get() == before
            })
            .await;
        }
        drop(first);
        late.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_drop_is_not_found() {
    drive(async |app| {
        let mut socket = Socket::ready(app.address, Value::Null).await;
        for id in [global(DropId::new()), "nonsense".to_owned()] {
            socket.subscribe(&id, WATCH, json!({ "id": id })).await;
            let message = socket.hear().await;
            assert_eq!(message["type"], "error", "{message}");
            assert_eq!(message["payload"][0]["extensions"]["code"], "NOT_FOUND", "{message}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_never_fall_and_the_last_state_arrives_in_a_burst() {
    drive(async |app| {
        let drop = app.drop(&[("ONE", 200)]).await;
        let mut updates = app.app.feed.watch_drop(drop).await.unwrap().unwrap().boxed();
        let buyers = app.buyers(100).await;
        let burst = crate::harness::at_once(buyers.iter().map(|buyer| app.reserve(buyer, drop, None, None)));
        let watched = async {
            let mut last = 0;
            loop {
                let shown = updates.next().await.unwrap();
                assert!(shown.state.version > last);
                last = shown.state.version;
                if shown.state.count().held == 100 {
                    return;
                }
            }
        };
        tokio::join!(burst, watched);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_through_another_server_is_seen() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let second = app.second().await;
        let mut socket = watch(&second, drop).await;
        assert_eq!(socket.next().await["stockUpdated"]["version"], 1);
        app.hold(&buyer, drop, "ONE").await;
        assert_eq!(socket.next().await["stockUpdated"]["version"], 2);
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_alone_changes_the_status() {
    drive(async |app| {
        let now = Utc::now();
        // Long enough to make the drop and watch it on a busy machine.
        let second = TimeDelta::milliseconds(1_500);
        let drop = app
            .drop_like(&[("ONE", 1)], |drop| {
                drop.starts_at = Some(now + second);
                drop.ends_at = Some(now + second * 2);
            })
            .await;
        let updates = app.app.feed.watch_drop(drop).await.unwrap().unwrap();
        let seen: Vec<_> = updates.take(3).map(|shown| (shown.status, shown.state.version)).collect().await;
        assert_eq!(seen, [(DropStatus::Scheduled, 1), (DropStatus::Live, 1), (DropStatus::Ended, 1)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_shows_drops_come_and_go() {
    drive(async |app| {
        let buyer = app.buyer().await;
        let old = app.drop(&[("ONE", 1)]).await;
        app.drop_like(&[("ONE", 1)], |drop| drop.starts_at = Some(Utc::now() + TimeDelta::hours(1))).await;
        let cancelled = app.drop(&[("ONE", 1)]).await;
        app.app.stock.cancel_drop(cancelled).await.unwrap();

        let mut socket = Socket::ready(app.address, Value::Null).await;
        socket.subscribe("board", BOARD, Value::Null).await;
        let mut next = async || socket.next().await["activeStockUpdated"].take();
        let first = next().await;
        assert_eq!((&first["dropId"], &first["status"]), (&json!(global(old)), &json!("LIVE")));

        // One that starts in a moment: what is scheduled is not on the board, what goes live is.
        let soon = Utc::now() + TimeDelta::milliseconds(300);
        let new = app.drop_like(&[("ONE", 1)], |drop| drop.starts_at = Some(soon)).await;
        let live = next().await;
        assert_eq!((&live["dropId"], &live["status"]), (&json!(global(new)), &json!("LIVE")));
        let hold = app.hold(&buyer, new, "ONE").await;
        assert_eq!(next().await["availableStock"], 0);
        app.purchase(&buyer, &hold).await;
        assert_eq!(next().await["status"], "SOLD_OUT");
        app.app.stock.cancel_drop(old).await.unwrap();
        let last = next().await;
        assert_eq!((&last["dropId"], &last["status"]), (&json!(global(old)), &json!("CANCELLED")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_goes_with_its_last_subscriber() {
    drive_still(async |app| {
        let drop = app.drop(&[("ONE", 1)]).await;
        let first = app.app.feed.watch_drop(drop).await.unwrap();
        let second = app.app.feed.watch_drop(drop).await.unwrap();
        std::mem::drop(first);
        assert!(app.app.feed.is_watched(drop));
        std::mem::drop(second);
        assert!(!app.app.feed.is_watched(drop));
        assert!(app.app.feed.watch_drop(DropId::new()).await.unwrap().is_none());
        let board = app.app.feed.watch_board().await.unwrap();
        assert!(app.app.feed.is_watched(drop), "by the board");
        std::mem::drop(board);
        assert!(!app.app.feed.is_watched(drop));
        assert_eq!(app.app.metrics.subscribers.get(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_subscriber_who_is_held_up() {
    drive(async |app| {
        let (drop, limits) = (app.drop(&[("ONE", 9)]).await, Limits::default());
        let gate = Gate::new(&limits, true);
        let fan_out = FanOut::new(schema(true, &limits), app.app.clone(), Handle::current());
        let query = format!(
            "subscription {{ stockUpdated(dropId: \"{}\") {{ drop {{ activeReservations {{ totalCount }} }} }} }}",
            global(drop)
        );
        let subscribe = async || {
            let admitted = gate.admit(Request::new(&query), &Credentials::Anonymous).unwrap();
            let payer = ReadTimes::new(1_000).of(Client::at("127.0.0.1".parse().unwrap()));
            let updates = fan_out.subscribe(admitted, Credentials::Anonymous, payer).await;
            Box::pin(updates.unwrap())
        };
        let (mut held_up, mut other) = (subscribe().await, subscribe().await);
        let mut lock = HeldLock::take(app, drop).await;
        lock.run("LOCK TABLE reservations").await;
        // It begins to work the update out, and then nobody asks it any more, as while a client does not read.
        let mut first = held_up.next();
        assert!(poll!(&mut first).is_pending());
        lock.release().await;
        let update = timeout(Duration::from_secs(10), other.next()).await.unwrap().unwrap();
        assert!(update.contains("totalCount"), "{update}");
        assert_eq!(first.await, Some(update));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_worked_out_once_for_all_who_ask_in_the_same_words() {
    drive(async |app| {
        let (buyers, other) = (app.buyers(4).await, app.drop(&[("ONE", 9)]).await);
        let drop = app.drop(&[("ONE", 9)]).await;
        let id = json!({ "id": global(drop) });
        let executed = || app.app.metrics.updates_executed.get();
        let mut same = Vec::new();
        for number in 0..20 {
            let mut socket = Socket::ready(app.address, Value::Null).await;
            socket.subscribe(&number.to_string(), WATCH, id.clone()).await;
            assert_eq!(socket.next().await["stockUpdated"]["version"], 1);
            same.push(socket);
        }
        assert_eq!(executed(), 1, "whoever comes later gets what is there");
        // Other words, another drop, and two operations of one document are not the same.
        let mut socket = Socket::ready(app.address, Value::Null).await;
        let two = "subscription A($id: ID!) { stockUpdated(dropId: $id) { version } }
                   subscription B($id: ID!) { stockUpdated(dropId: $id) { heldStock } }";
        socket
            .subscribe(
                "words",
                "subscription($id: ID!) { s: stockUpdated(dropId: $id) { version } }",
                id.clone(),
            )
            .await;
        assert_eq!(socket.next().await, json!({ "s": { "version": 1 } }));
        socket.subscribe("drop", WATCH, json!({ "id": global(other) })).await;
        assert_eq!(socket.next().await["stockUpdated"]["dropId"], global(other));
        for (name, expected) in [("A", json!({ "version": 1 })), ("B", json!({ "heldStock": 0 }))] {
            let payload = json!({ "query": two, "variables": id, "operationName": name });
            socket.say(json!({ "id": name, "type": "subscribe", "payload": payload })).await;
            assert_eq!(socket.next().await["stockUpdated"], expected);
        }
        let before = executed();
        for number in 2..=5 {
            app.hold(&buyers[number - 2], drop, "ONE").await;
            for socket in &mut same {
                let update = socket.next().await["stockUpdated"].take();
                assert_eq!(update["version"], number);
                assert_eq!(update["drop"]["stockVersion"], number);
            }
        }
        // Of each of the four versions once for the twenty, and at most once for each of the three others.
        let executions = executed() - before;
        assert!((4..=16).contains(&executions), "{executions} executions");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_has_one_field() {
    drive_still(async |app| {
        let mut socket = Socket::ready(app.address, Value::Null).await;
        for query in [
            "subscription { activeStockUpdated { version } b: activeStockUpdated { version } }",
            "subscription { ...f ...f } fragment f on Subscription { activeStockUpdated { version } }",
        ] {
            socket.subscribe("x", query, Value::Null).await;
            let told = socket.hear().await;
            assert_eq!(told["payload"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{told}");
        }
        // One that is skipped has nothing to say.
        let skipped = "subscription { activeStockUpdated @skip(if: true) { version } }";
        socket.subscribe("y", skipped, Value::Null).await;
        assert_eq!(socket.hear().await, json!({ "id": "y", "type": "complete" }));
    })
    .await;
}

/// As where PostgreSQL goes on on another machine, whose clock is another.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_follows_a_database_clock_that_was_set() {
    drive_still(async |app| {
        // A drop that has begun is taken for one that has not, and the other way round.
        for (starts_in, seems_later, seemed, is) in [
            (-10, -24, DropStatus::Scheduled, DropStatus::Live),
            (3_600, 7_200, DropStatus::Live, DropStatus::Scheduled),
        ] {
            let drop = app.drop(&[("ONE", 1)]).await;
            app.sql(&format!(
                "UPDATE drops SET starts_at = now() + interval '{starts_in} s' WHERE id = '{}'",
                drop.0
            ))
            .await;
            let mut state = app.app.drops.find(drop).await.unwrap().unwrap();
            state.read = ClockReading::arrived_now(state.read.at + TimeDelta::seconds(seems_later));
            assert_eq!(state.status(state.read.at), seemed);
            app.app.feed.announce(Arc::new(state));
            let running = tokio::spawn(app.app.feed.clone().run());
            eventually(async || {
                app.app.feed.find(drop).is_some_and(|found| found.status(found.read.now()) == is)
            })
            .await;
            running.abort();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_failed_is_told_when_it_can_be_read() {
    drive(async |app| {
        let drop = app.drop(&[("ONE", 9)]).await;
        let mut socket = Socket::ready(app.address, Value::Null).await;
        let query =
            "subscription($id: ID!) { stockUpdated(dropId: $id) { version drop { recentBuyers { size } } } }";
        socket.subscribe("1", query, json!({ "id": global(drop) })).await;
        assert_eq!(socket.next().await["stockUpdated"]["version"], 1);
        let mut lock = HeldLock::take(app, drop).await;
        lock.run("LOCK TABLE purchases").await;
        // The feed has heard of a change, and nobody can read who bought.
        let mut state = app.app.drops.find(drop).await.unwrap().unwrap();
        state.version = 2;
        app.app.feed.announce(Arc::new(state));
        let failed = socket.hear().await;
        assert_eq!(
            failed["payload"]["data"]["stockUpdated"]["drop"]["recentBuyers"],
            Value::Null,
            "{failed}"
        );
        lock.release().await;
        let told = socket.next().await["stockUpdated"].take();
        assert_eq!((&told["version"], &told["drop"]["recentBuyers"]), (&json!(2), &json!([])));
    })
    .await;
}
