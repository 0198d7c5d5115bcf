//! How much a batch reads, and a page. The planner makes its plans when a table is empty, or by figures in which a drop that is new
//! does not occur; the drop then grows to thousands of holds within a minute, and a plan that compares each buyer with
//! each of them sells a twentieth of what a right one does.

use serde_json::json;
use sneaker_drop::ids::{DropId, ReservationId, UserId};

use crate::harness::{TestApp, at_once, drive_still, global};

const HOLDS: i32 = 800;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_few_rows_of_a_table_that_nobody_analysed() {
    drive_still(async |app| reads_few_rows(app).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_few_rows_of_a_table_that_was_small_when_it_was_analysed() {
    drive_still(async |app| {
        fill(app, 2).await;
        app.sql("ANALYZE").await;
        reads_few_rows(app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_few_rows_of_a_drop_that_nobody_analysed() {
    drive_still(async |app| {
        for round in 0..2 {
            fill(app, HOLDS).await;
            // Once with an index that is larger than its rows, and once more with figures of two drops.
            app.sql(if round == 0 { "VACUUM ANALYZE" } else { "ANALYZE" }).await;
        }
        reads_few_rows(app).await;
    })
    .await;
}

/// A drop with this many holds.
async fn fill(app: &TestApp, holds: i32) -> (DropId, Vec<(UserId, ReservationId)>) {
    let drop = app.drop(&[("ONE", 2 * HOLDS)]).await;
    (drop, apart(app, async |server| server.holds(drop, holds).await).await)
}

/// Does something on a server of its own, whose connections have told what they read when this returns.
async fn apart<T>(app: &TestApp, work: impl AsyncFnOnce(&TestApp) -> T) -> T {
    let connections = "SELECT count(*) AS count FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = 'sneaker-drop'";
    let others = app.count(connections).await;
    let server = app.still_second().await;
    let done = work(&server).await;
    server.stop().await;
    app.wait_for_count(connections, others).await;
    done
}

async fn rows_read(app: &TestApp) -> i64 {
    app.count(
        "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'reservations')::bigint
              + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'reservations') AS count",
    )
    .await
}

async fn reads_few_rows(app: &TestApp) {
    let (drop, mut held) = fill(app, HOLDS).await;
    let before = rows_read(app).await;
    let bought = held.split_off(held.len() - 60);
    let cancelled = held.split_off(held.len() - 30);
    let operations = bought.len() + cancelled.len() + 1 + 30 + 30;
    apart(app, async |server| {
        let stock = &server.app.stock;
        // Those after the first need not look.
        server.holds(drop, 1).await;
        server.holds(drop, 30).await;
        let purchases = at_once(bought.into_iter().map(|(user, id)| stock.purchase(user, id)));
        let cancels = at_once(cancelled.into_iter().map(|(user, id)| stock.cancel_reservation(user, id)));
        let (purchases, cancels, _) = tokio::join!(purchases, cancels, server.holds(drop, 30));
        assert!(purchases.iter().all(|answer| answer.as_ref().unwrap().refusal.is_none()));
        assert!(cancels.iter().all(|answer| answer.as_ref().unwrap().refusal.is_none()));
    })
    .await;
    let read = rows_read(app).await - before;
    // Each is found some times over; a wrong plan reads all holds of the drop for each.
    let most = 20 * i64::try_from(operations).unwrap();
    assert!(read < most, "{operations} operations read {read} rows");
}

/// Here each plan is made when there is next to nothing to read. The one hold is another server's: this one does not know
/// all buyers, and looks each new one up.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_few_rows_of_a_table_that_was_nearly_empty_when_it_was_planned() {
    drive_still(async |app| {
        const BUYERS: i32 = 300;
        let drop = app.drop(&[("ONE", BUYERS + 1)]).await;
        app.holds(drop, 1).await;
        let before = rows_read(app).await;
        apart(app, async |server| {
            for _ in 0..BUYERS {
                server.holds(drop, 1).await;
            }
        })
        .await;
        let read = rows_read(app).await - before;
        assert!(read < 20 * i64::from(BUYERS), "{BUYERS} reserves, one after the other, read {read} rows");
    })
    .await;
}

/// Every pair of this drop was held before, and two servers sell it in turn: what one knows of pairs that came back, the
/// other may have given out.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_is_found_among_many_that_are_held() {
    drive_still(async |app| {
        const FREE: i32 = 100;
        let drop = app.drop(&[("ONE", HOLDS)]).await;
        let before = rows_read(app).await;
        apart(app, async |one| {
            let held = one.holds(drop, HOLDS).await;
            let given_back = held.into_iter().step_by(8).take(FREE.try_into().unwrap());
            at_once(given_back.map(|(user, id)| one.app.stock.cancel_reservation(user, id))).await;
            apart(app, async |other| {
                for _ in 0..FREE / 2 {
                    one.holds(drop, 1).await;
                    other.holds(drop, 1).await;
                }
            })
            .await;
        })
        .await;
        assert_eq!(app.counts(drop).await, [0, HOLDS.into(), 0]);
        let read = rows_read(app).await - before;
        // The other one, which has closed none of these holds, looks for what is free once.
        let most = 20 * i64::from(HOLDS + 2 * FREE);
        assert!(read < most, "{read} rows were read");
    })
    .await;
}

/// A drop's lists are read anew after each change, for whoever asks next.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_few_rows_of_a_drop_with_many_holds() {
    drive_still(async |app| {
        const LAPSED: i32 = 7;
        let (drop, _) = fill(app, HOLDS).await;
        let some = format!("SELECT id FROM reservations ORDER BY id LIMIT {LAPSED}");
        let ages = "created_at = created_at - interval '1 h', expires_at = expires_at - interval '1 h'";
        app.sql(&format!("UPDATE reservations SET {ages} WHERE id IN ({some})")).await;
        for figures in ["", "ANALYZE", "VACUUM ANALYZE"] {
            app.sql(figures).await;
            let before = rows_read(app).await;
            let page = apart(app, async |server| {
                let query = "query($id: ID!) { drop(id: $id) { heldStock activeReservations(first: 1) { totalCount } } }";
                server.data(None, query, json!({ "id": global(drop) })).await["drop"].take()
            });
            let page = page.await;
            let counts = [&page["heldStock"], &page["activeReservations"]["totalCount"]];
            assert_eq!(counts, [HOLDS, HOLDS - LAPSED], "whoever has lapsed still has their pair, but no live hold");
            let read = rows_read(app).await - before;
            assert!(read < 200, "{read} rows were read, {figures}");
        }
    })
    .await;
}
