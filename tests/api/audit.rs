//! The audit finds what is off: each rule is broken on purpose.

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};

use crate::harness::{drive, drive_still};

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_is_found_and_named() {
    drive_still(async |app| {
        let buyers = app.buyers(3).await;
        let drop = app.drop(&[("US 9", 5), ("US 10", 5)]).await;
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
            let mut connection = app.connection().await;
            connection.batch_execute("BEGIN").await.unwrap();
            connection.batch_execute(faults).await.unwrap();
            let found = found_in_transaction(&mut connection).await;
            assert!(found.iter().any(|name| name == rule), "{faults}: {found:?}");
        }
        app.assert_stock_law().await;
    })
    .await;
}

/// The audit within the transaction that made the fault, which is rolled back with its connection.
async fn found_in_transaction(connection: &mut AsyncPgConnection) -> Vec<String> {
    let findings = sneaker_drop::stock::audit::find(connection).await.unwrap();
    findings.into_iter().map(|finding| finding.rule).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_itself_refuses_to_oversell() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        app.hold(&buyer, drop, "ONE").await;
        let mut connection = app.connection().await;
        for oversell in [
            "UPDATE drop_sizes SET held = held + 1",
            "UPDATE drop_sizes SET available = available - 1, held = held + 1",
            "INSERT INTO reservations SELECT drop_id, gen_random_uuid(), size, pair_number, gen_random_uuid(), status,
                price_amount, price_currency, 'other', created_at, expires_at FROM reservations",
            "INSERT INTO reservations SELECT drop_id, gen_random_uuid(), size, 2, gen_random_uuid(), status,
                price_amount, price_currency, 'other', created_at, expires_at FROM reservations",
            "UPDATE reservations SET status = 'purchased', closed_at = expires_at",
            "UPDATE reservations SET status = 'expired', closed_at = created_at",
        ] {
            let refused = connection.batch_execute(oversell).await;
            assert!(refused.is_err(), "{oversell}");
        }
    })
    .await;
}
