//! Batches in which PostgreSQL refuses something.

use std::pin::pin;

use futures_util::{future::join_all, poll};
use sneaker_drop::{
    ids::{DropId, UserId},
    stock::{Reserve, StockError},
};

use crate::harness::{HeldLock, TestApp, drive_still};

fn reserve(drop_id: DropId) -> Reserve {
    Reserve { drop_id, size: None, idempotency_key: None, admission: None }
}

/// Runs `body`, in the language of PostgreSQL, before each row that is inserted into `table` when it is so.
async fn before_insert(app: &TestApp, table: &str, when: &str, body: &str) {
    app.sql(&format!(
        "CREATE FUNCTION planted_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$"
    ))
    .await;
    app.sql(&format!(
        "CREATE TRIGGER planted BEFORE INSERT ON {table} FOR EACH ROW WHEN ({when})
         EXECUTE FUNCTION planted_{table}()"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_breaks_its_batch_fails_alone() {
    drive_still(async |app| {
        let (drop, stock) = (app.drop(&[("ONE", 9)]).await, &app.app.stock);
        let (poison, gone) = (UserId::new(), UserId::new());
        let when = format!("NEW.user_id = '{poison}'");
        before_insert(app, "reservations", &when, "PERFORM pg_advisory_xact_lock(1); RAISE 'poison'").await;
        let mut brake = HeldLock::take(app, app.drop(&[("ONE", 1)]).await).await;
        brake.run("SELECT pg_advisory_xact_lock(1)").await;

        // The first one is at the lock while the others come together.
        let lock = HeldLock::take(app, drop).await;
        let service = stock.clone();
        let first = tokio::spawn(async move { service.reserve(UserId::new(), reserve(drop)).await });
        app.wait_for_lock_waiters(1).await;
        let mut poisoned = pin!(stock.reserve(poison, reserve(drop)));
        assert!(poll!(&mut poisoned).is_pending());
        let mut hung_up = Box::pin(stock.reserve(gone, reserve(drop)));
        assert!(poll!(&mut hung_up).is_pending());
        let others: Vec<_> = (0..5).map(|_| Box::pin(stock.reserve(UserId::new(), reserve(drop)))).collect();
        let mut others = pin!(join_all(others));
        assert!(poll!(&mut others).is_pending());
        lock.release().await;
        assert!(first.await.unwrap().unwrap().refusal.is_none());

        // Their batch is in the middle of its transaction when one of them hangs up.
        app.wait_for_lock_waiters(1).await;
        std::mem::drop(hung_up);
        brake.release().await;
        let answer = poisoned.await;
        assert!(
            matches!(&answer, Err(StockError::Unexpected(text)) if text.contains("poison")),
            "{answer:?}"
        );
        assert!(others.await.into_iter().all(|answer| answer.unwrap().refusal.is_none()));
        assert_eq!(app.counts(drop).await, [3, 6, 0]);
        let theirs =
            format!("SELECT count(*) AS count FROM reservations WHERE user_id IN ('{gone}', '{poison}')");
        assert_eq!(app.count(&theirs).await, 0, "who hung up is not served for nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_whose_second_part_meets_a_lock_is_not_said_to_be_undone() {
    drive_still(async |app| {
        let drop = app.held_drop(2_500).await;
        app.sql("CREATE SEQUENCE parts").await;
        let (when, busy) = ("NEW.released[1] > 0", "canceling statement due to lock timeout");
        before_insert(
            app,
            "stock_events",
            when,
            &format!("IF nextval('parts') = 2 THEN RAISE '{busy}'; END IF"),
        )
        .await;
        let answer = app.app.stock.cancel_drop(drop).await.unwrap();
        assert_eq!(answer.state.count().available, 2_500);
        assert!(answer.state.catalogue.cancelled_at.is_some());
        assert_eq!(
            app.count("SELECT last_value AS count FROM parts").await,
            4,
            "three parts, one of them twice"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_does_not_wait_until_all_that_lapsed_is_back() {
    drive_still(async |app| {
        let stock = &app.app.stock;
        let drop = app.drop(&[("ONE", 2_501)]).await;
        let (buyer, hold) = app.holds(drop, 2_501).await[0];
        app.age_holds(drop, 1).await;
        let last = format!("created_at = now(), expires_at = now() + interval '1 h' WHERE id = '{}'", hold.hold_id);
        app.sql(&format!("UPDATE reservations SET {last}")).await;
        let lock = HeldLock::take(app, drop).await;
        stock.look_for_deadlines().await.unwrap();
        app.wait_for_lock_waiters(1).await;
        // Behind more than a batch has room for.
        let reserves: Vec<_> = (0..200).map(|_| Box::pin(stock.reserve(UserId::new(), reserve(drop)))).collect();
        let mut reserves = pin!(join_all(reserves));
        assert!(poll!(&mut reserves).is_pending());
        let mut bought = pin!(stock.purchase(buyer, hold));
        assert!(poll!(&mut bought).is_pending());
        lock.release().await;
        let (bought, reserves) = tokio::join!(bought, reserves);
        assert!(bought.unwrap().refusal.is_none());
        assert!(reserves.into_iter().all(|answer| answer.unwrap().refusal.is_none()));
        assert_eq!(app.counts(drop).await, [2_300, 200, 1]);
        let later = "SELECT count(*) AS count FROM stock_events AS lapse, stock_events AS purchase
                     WHERE purchase.purchased[1] > 0 AND lapse.expired[1] > 0 AND lapse.version > purchase.version";
        assert_eq!(app.count(later).await, 1, "one part after it");
    })
    .await;
}

/// An answer to COMMIT is lost, and before the batch is run again so many holds lapse that this becomes its first part.
#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_of_unknown_outcome_is_not_said_to_be_undone_after_a_part() {
    drive_still(async |app| {
        let network = app.network().await;
        let server = app.still_second_behind(&network).await;
        let drop = app.drop(&[("ONE", 1_200)]).await;
        app.holds(drop, 1_100).await;
        let buyer = UserId::new();
        let age = "UPDATE reservations SET created_at = now() - interval '2 h', expires_at = now() - interval '1 h'";
        before_insert(app, "reservations", &format!("NEW.user_id = '{buyer}'"), age).await;
        app.sql("CREATE SEQUENCE parts").await;
        let busy = "IF nextval('parts') = 2 THEN RAISE 'canceling statement due to lock timeout'; END IF";
        before_insert(app, "stock_events", "NEW.expired[1] > 0", busy).await;
        network.lose_next_commit();
        let answer = server.app.stock.reserve(buyer, reserve(drop)).await.unwrap();
        assert!(answer.refusal.is_none());
        assert_eq!(network.lost_commits(), 1);
        assert_eq!(app.count("SELECT last_value AS count FROM parts").await, 3, "two parts, one of them twice");
        assert_eq!(app.counts(drop).await, [1_199, 1, 0]);
        server.stop().await;
    })
    .await;
}

/// What its last words mean nobody has to know.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_in_another_language_is_an_unknown_outcome_too() {
    drive_still(async |app| {
        let network = app.network().await;
        network.translate();
        let server = app.still_second_behind(&network).await;
        let drop = app.drop(&[("ONE", 5)]).await;
        app.sql("CREATE SEQUENCE tries").await;
        let end = "IF nextval('tries') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF";
        before_insert(app, "reservations", "true", end).await;
        let answer = server.app.stock.reserve(UserId::new(), reserve(drop)).await.unwrap();
        assert!(answer.refusal.is_none());
        assert_eq!(app.count("SELECT last_value AS count FROM tries").await, 2);
        assert_eq!(app.counts(drop).await, [4, 1, 0]);
        server.stop().await;
    })
    .await;
}
