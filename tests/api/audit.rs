//! The audit finds what is off: each rule is broken on purpose.

use diesel_async::SimpleAsyncConnection as _;

use sneaker_drop::stock::audit::{self, Watch};

use crate::harness::{drive, drive_still};

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_is_found_and_named() {
    drive_still(async |app| {
        let buyers = app.buyers(3).await;
        let drop = app.drop(&[("US 9", 5), ("US 10", 5)]).await;
        let other = app.drop(&[("US 9", 5)]).await;
        let held = app.hold(&buyers[0], drop, "US 9").await;
        app.purchase(&buyers[0], &held).await;
        app.hold(&buyers[1], drop, "US 9").await;
        let late = app.hold(&buyers[2], drop, "US 10").await;
        app.cancel(&buyers[2], &late).await;
        app.assert_stock_law().await;

        for (rule, faults) in [
            (
                "counters = rows",
                "UPDATE drop_sizes SET available = available - 1, held = held + 1 WHERE size = 'US 9'",
            ),
            (
                "counters = rows",
                "UPDATE reservations SET status = 'cancelled', closed_at = now() WHERE status = 'active'",
            ),
            ("a purchase is what its reservation was", "UPDATE purchases SET price_amount = 1"),
            (
                "nobody has more pairs than one may",
                "UPDATE reservations SET user_id = (SELECT user_id FROM purchases)",
            ),
            ("a cancelled drop has no active holds", "UPDATE drops SET cancelled_at = now()"),
            ("the ledger has every version once", "UPDATE drops SET stock_version = stock_version + 1"),
            ("the ledger has every version once", "DELETE FROM stock_events WHERE version = 3"),
            (
                "the ledger adds up to the counters",
                "UPDATE stock_events SET reserved = array[7] WHERE version = 2",
            ),
            (
                "each event's counters follow from the one before",
                "UPDATE stock_events SET held = array[4] WHERE version = 2",
            ),
        ] {
            // Rolled back with its connection.
            let mut connection = app.connection().await;
            connection.batch_execute("BEGIN").await.unwrap();
            connection.batch_execute(faults).await.unwrap();
            for drops in [None, Some([drop].as_slice())] {
                let found = audit::find(&mut connection, drops).await.unwrap();
                assert!(
                    found.iter().any(|it| it.rule == rule && it.drop_id == drop.0),
                    "{faults}: {found:?}"
                );
            }
            let found = audit::find(&mut connection, Some(&[other])).await.unwrap();
            assert!(found.iter().all(|it| it.drop_id == other.0), "{faults}: {found:?}");
        }
        app.assert_stock_law().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_looks_at_everything_and_then_at_what_moves() {
    drive_still(async |app| {
        let (buyers, drop) = (app.buyers(2).await, app.drop(&[("ONE", 5)]).await);
        app.drop(&[("ONE", 5)]).await;
        let (mut watch, mut connection) = (Watch::default(), app.connection().await);
        assert_eq!(watch.look(&mut connection).await.unwrap().drops, 2);
        assert_eq!(watch.look(&mut connection).await.unwrap().drops, 0);
        app.hold(&buyers[0], drop, "ONE").await;
        let seen = watch.look(&mut connection).await.unwrap();
        assert_eq!((seen.drops, seen.findings.len(), seen.totals.held), (1, 0, 1));

        // Beside the server, so that no version tells of it.
        let fault = "UPDATE drop_sizes SET available = available - 1, held = held + 1 WHERE held = 1";
        app.sql(fault).await;
        let seen = watch.look(&mut connection).await.unwrap();
        assert_eq!(seen.drops, 1);
        assert!(seen.findings.iter().any(|finding| finding.rule == "counters = rows"), "{seen:?}");
        app.sql("UPDATE drop_sizes SET available = available + 1, held = held - 1 WHERE held = 2").await;

        // A row by itself is seen when its drop moves, or with everything.
        app.sql(
            "UPDATE reservations SET user_id = gen_random_uuid(), status = 'cancelled', closed_at = now()",
        )
        .await;
        watch.look(&mut connection).await.unwrap();
        assert_eq!(watch.look(&mut connection).await.unwrap().drops, 0);
        app.hold(&buyers[1], drop, "ONE").await;
        let found = watch.look(&mut connection).await.unwrap().findings;
        assert!(!found.is_empty());
        assert_eq!(Watch::default().look(&mut connection).await.unwrap().findings, found);
        app.sql("UPDATE reservations SET status = 'active', closed_at = NULL WHERE status = 'cancelled'")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_names_the_transaction_that_keeps_old_rows() {
    drive_still(async |app| {
        let (mut watch, mut connection) = (Watch::default(), app.connection().await);
        let mut forgotten = app.connection().await;
        let mut seen = async || watch.look(&mut connection).await.unwrap().furthest_behind;
        // Between its statements it keeps nothing.
        forgotten.batch_execute("SET application_name = 'report'; BEGIN; SELECT FROM drops").await.unwrap();
        assert_eq!(seen().await, None);
        forgotten
            .batch_execute("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM drops")
            .await
            .unwrap();
        let report = seen().await.unwrap();
        assert_eq!(report.application, "report");
        app.drop(&[("ONE", 1)]).await;
        assert!(seen().await.unwrap().behind > report.behind);
        forgotten.batch_execute("COMMIT").await.unwrap();
        assert_eq!(seen().await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_itself_refuses_to_oversell() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        app.hold(&buyer, drop, "ONE").await;
        let mut connection = app.connection().await;
        for (oversell, refused_by) in [
            ("UPDATE drop_sizes SET held = held + 1", "drop_sizes_stock_law"),
            ("UPDATE drop_sizes SET available = available - 1, held = held + 1", "drop_sizes_stock_law"),
            ("INSERT INTO reservations SELECT drop_id, gen_random_uuid(), size, pair_number, gen_random_uuid(), status,
                price_amount, price_currency, 'other', created_at, expires_at FROM reservations",
             "reservations_one_live_per_pair"),
            ("INSERT INTO reservations SELECT drop_id, gen_random_uuid(), size, 2, gen_random_uuid(), status,
                price_amount, price_currency, 'other', created_at, expires_at FROM reservations",
             "reservations_drop_id_size_pair_number_fkey"),
            ("UPDATE reservations SET status = 'purchased', closed_at = expires_at", "reservations_check2"),
            ("UPDATE reservations SET status = 'expired', closed_at = created_at", "reservations_check3"),
        ] {
            let refused = connection.batch_execute(oversell).await;
            let Err(diesel::result::Error::DatabaseError(_, told)) = refused else { panic!("{oversell}: {refused:?}") };
            assert_eq!(told.constraint_name(), Some(refused_by), "{oversell}");
        }
    })
    .await;
}
