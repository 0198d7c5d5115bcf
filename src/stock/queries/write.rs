//! Write third: what a stock transaction changes.

use std::collections::HashMap;

use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::Result;
use crate::{
    clock::Timestamp,
    db::statement,
    drops::StockCount,
    ids::{DropId, UserId},
    stock::decide::{Look, Plan},
};

statement!(
    /// All at once: looked up one by one, each might be compared with every hold of the drop.
    ListFreedPairs -> Integer,
    "SELECT pair_number FROM pairs WHERE drop_id = $1 AND size = $2 AND pair_number < $3
     EXCEPT
     SELECT pair_number FROM reservations
     WHERE drop_id = $1 AND size = $2 AND status IN ('active', 'purchased')
     ORDER BY pair_number LIMIT $4",
    { drop_id: SqlUuid => Uuid, size: Text => String, below: Integer => i32, limit: BigInt => i64 }
);

/// Numbers below `below` that were used and are free; the lowest first.
pub(in crate::stock) async fn list_freed_pairs(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    size: &str,
    below: i32,
    limit: i32,
) -> Result<Vec<i32>> {
    let list = ListFreedPairs { drop_id: drop_id.0, size: size.to_owned(), below, limit: limit.into() };
    Ok(list.load(&mut connection).await?)
}

/// The drop after the batch.
pub(in crate::stock) struct Settled {
    /// The database clock.
    pub(in crate::stock) now: Timestamp,
    pub(in crate::stock) version: i32,
    pub(in crate::stock) counts: HashMap<String, StockCount>,
    /// When the next of the holds lapses that were there before.
    pub(in crate::stock) next_deadline: Option<Timestamp>,
}

statement!(
    /// Everything that a batch changes, or nothing and no row: where the drop has another version than the one by which
    /// the batch was planned. Under the drop's lock, which is taken again where the transaction has it already. A batch that
    /// looked under it finds the same version; to one that did not, the version says that nobody changed anything since.
    /// Then the snapshot is right as well, though it is older than the lock: who changes a drop raises its version in the
    /// same transaction.
    ///
    /// `as_expected`: with `$17` the batch did not look. It takes its clock for right to within a tenth of a second, no
    /// hold for due, and some buyers for new ones, who are looked up one by one, as in the looks.
    ///
    /// `closed`: the guards repeat what `decide` has decided: no expiry before the deadline, no purchase from it on, and
    /// nothing twice. The rows are found one by one, as in the looks, and then named by their place. Naming the status
    /// would let the planner take an index that has every live hold in it.
    ///
    /// `made`: asks for the number of closed holds, so that it begins when all of them are. A pair that is given back can
    /// be had again.
    ///
    /// What the counters and the ledger move by is what the statements above them returned. Where that is not all that was
    /// planned there is no next version, which the table refuses: nothing is done then, also with the COMMIT already on
    /// its way.
    Change -> (
        Integer, Timestamptz, Nullable<Timestamptz>,
        (Nullable<Text>, Nullable<Integer>, Nullable<Integer>, Nullable<Integer>, Nullable<Integer>),
    ),
    "WITH locked AS (
        SELECT FROM drops WHERE id = $4 AND stock_version = $15 FOR UPDATE
     ), next AS (
        SELECT expires_at FROM reservations WHERE drop_id = $4 AND status = 'active' AND id <> ALL($2)
        ORDER BY expires_at, id LIMIT 1
     ), expected AS MATERIALIZED (
        SELECT CASE WHEN NOT EXISTS (SELECT FROM locked) THEN false
                    WHEN NOT $17 THEN true
                    ELSE clock_timestamp() BETWEEN $1 AND $1 + interval '100 ms'
                         AND NOT EXISTS (SELECT FROM next WHERE expires_at <= $1)
                         AND NOT EXISTS (
                            SELECT FROM unnest($16) AS newcomer (id) CROSS JOIN LATERAL (
                                SELECT FROM reservations AS r WHERE r.user_id = newcomer.id AND r.drop_id = $4
                                ORDER BY r.idempotency_key LIMIT 1
                            ) AS found
                         )
               END AS is_so
     ), closed AS (
        UPDATE reservations AS r SET status = ($3)[array_position($2, r.id)], closed_at = $1
        WHERE (SELECT is_so FROM expected) AND r.ctid = ANY (ARRAY(
            SELECT found.place FROM unnest($2, $3) AS closing (id, status) CROSS JOIN LATERAL (
                SELECT f.ctid AS place FROM reservations AS f
                WHERE f.drop_id = $4 AND f.id = closing.id AND f.closed_at IS NULL
                  AND CASE closing.status WHEN 'expired' THEN f.expires_at <= $1
                                          WHEN 'purchased' THEN f.expires_at > $1 ELSE true END
                ORDER BY f.id
            ) AS found
        ))
        RETURNING r.id, r.size, r.pair_number, r.user_id, r.status, r.price_amount, r.price_currency
     ), bought AS (
        INSERT INTO purchases (drop_id, reservation_id, size, pair_number, user_id, price_amount, price_currency,
                               purchased_at)
        SELECT $4, id, size, pair_number, user_id, price_amount, price_currency, $1 FROM closed
        WHERE status = 'purchased'
        RETURNING reservation_id
     ), made AS (
        INSERT INTO reservations (drop_id, id, size, pair_number, user_id, status, price_amount, price_currency,
                                  idempotency_key, admission_id, created_at, expires_at)
        SELECT $4, id, size, pair_number, user_id, 'active', $5, $6, key, admission_id, $1,
               $1 + make_interval(secs => $7)
        FROM unnest($8, $9, $10, $11, $12, $13) AS given (id, size, pair_number, user_id, key, admission_id)
        WHERE (SELECT is_so FROM expected) AND (SELECT count(*) FROM closed) = cardinality($2)
        RETURNING size, pair_number
     ), moves AS (
        SELECT size,
               count(*) FILTER (WHERE status = 'active')::integer AS reserved,
               count(*) FILTER (WHERE status = 'purchased')::integer AS purchased,
               count(*) FILTER (WHERE status = 'cancelled')::integer AS released,
               count(*) FILTER (WHERE status = 'expired')::integer AS expired,
               max(pair_number) FILTER (WHERE status = 'active') AS highest
        FROM (SELECT size, status, pair_number FROM closed UNION ALL SELECT size, 'active', pair_number FROM made)
             AS hold
        GROUP BY size
     ), moved AS (
        UPDATE drop_sizes AS s
        SET available = available - m.reserved + m.released + m.expired,
            held = held + m.reserved - m.purchased - m.released - m.expired,
            sold = sold + m.purchased,
            next_pair = greatest(next_pair, m.highest + 1)
        FROM moves AS m
        WHERE s.drop_id = $4 AND s.size = m.size
        RETURNING s.size, s.total, s.available, s.held, s.sold, m.reserved, m.purchased, m.released, m.expired
     ), bumped AS (
        UPDATE drops
        SET stock_version = CASE
                WHEN (SELECT coalesce(sum(reserved + purchased + released + expired), 0) FROM moved)
                         = cardinality($2) + cardinality($8)
                     AND (SELECT count(*) FROM bought) = cardinality(array_positions($3, 'purchased'))
                THEN stock_version + 1 END,
            cancelled_at = CASE WHEN $14 THEN $1 ELSE cancelled_at END
        WHERE id = $4 AND (SELECT is_so FROM expected) RETURNING stock_version
     ), event AS (
        INSERT INTO stock_events (drop_id, version, kind, at, sizes, restocked, reserved, purchased, released,
                                  expired, total, available, held, sold)
        SELECT $4, stock_version, CASE WHEN $14 THEN 'cancelled' ELSE 'traded' END, $1, sizes, restocked, reserved,
               purchased, released, expired, total, available, held, sold
        FROM bumped, (
            SELECT coalesce(array_agg(size), '{}') AS sizes, coalesce(array_agg(0), '{}') AS restocked,
                   coalesce(array_agg(reserved), '{}') AS reserved, coalesce(array_agg(purchased), '{}') AS purchased,
                   coalesce(array_agg(released), '{}') AS released, coalesce(array_agg(expired), '{}') AS expired,
                   coalesce(array_agg(total), '{}') AS total, coalesce(array_agg(available), '{}') AS available,
                   coalesce(array_agg(held), '{}') AS held, coalesce(array_agg(sold), '{}') AS sold
            FROM moved
        ) AS columns
     )
     SELECT stock_version, clock_timestamp(), (SELECT expires_at FROM next), size, total, available, held, sold
     FROM bumped LEFT JOIN moved ON true",
    {
        now: Timestamptz => Timestamp, closings: Array<SqlUuid> => Vec<Uuid>,
        statuses: Array<Text> => Vec<&'static str>, drop_id: SqlUuid => Uuid, amount: Integer => i32,
        currency: Text => String, hold_seconds: Integer => i32, ids: Array<SqlUuid> => Vec<Uuid>,
        sizes: Array<Text> => Vec<String>, pair_numbers: Array<Integer> => Vec<i32>,
        users: Array<SqlUuid> => Vec<Uuid>, keys: Array<Text> => Vec<String>,
        admissions: Array<Nullable<Text>> => Vec<Option<String>>, cancels: Bool => bool,
        version: Integer => i32, newcomers: Array<SqlUuid> => Vec<Uuid>, is_expected: Bool => bool,
    }
);

/// A batch as it was worked out.
pub(in crate::stock) struct Planned<'a> {
    /// By what.
    pub(in crate::stock) look: &'a Look,
    /// Of which version.
    pub(in crate::stock) version: i32,
    /// Where nobody looked: who is taken for a buyer without any reservation.
    pub(in crate::stock) newcomers: Option<&'a [UserId]>,
    pub(in crate::stock) plan: &'a Plan,
    /// The pair of each grant.
    pub(in crate::stock) pairs: &'a [i32],
}

/// Closes holds and books the purchases among them, makes holds that begin now, and moves the counters, the version and
/// the ledger. `None`: the drop is not as the batch takes it to be, and nothing was done.
///
/// # Errors
/// The database; also when it did less than was planned.
pub(in crate::stock) async fn change(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    planned: Planned<'_>,
) -> Result<Option<Settled>> {
    type Count = (Option<String>, Option<i32>, Option<i32>, Option<i32>, Option<i32>);
    type Row = (i32, Timestamp, Option<Timestamp>, Count);
    let Planned { look, version, newcomers, plan, pairs } = planned;
    let grants = &plan.grants;
    let change = Change {
        now: look.now,
        closings: plan.closings.iter().map(|closing| closing.hold_id.0).collect(),
        statuses: plan.closings.iter().map(|closing| closing.to.name()).collect(),
        drop_id: drop_id.0,
        amount: look.catalogue.price.amount,
        currency: look.catalogue.price.currency.clone(),
        hold_seconds: look.catalogue.hold_seconds,
        ids: grants.iter().map(|grant| grant.hold_id.0).collect(),
        sizes: grants.iter().map(|grant| grant.size.clone()).collect(),
        pair_numbers: pairs.to_vec(),
        users: grants.iter().map(|grant| grant.user.0).collect(),
        keys: grants.iter().map(|grant| grant.key.clone()).collect(),
        admissions: grants.iter().map(|grant| grant.admission_id.clone()).collect(),
        cancels: plan.cancels_drop,
        version,
        newcomers: newcomers.unwrap_or_default().iter().map(|user| user.0).collect(),
        is_expected: newcomers.is_some(),
    };
    let rows: Vec<Row> = change.load(&mut connection).await?;
    let Some(&(version, now, next_deadline, _)) = rows.as_slice().first() else { return Ok(None) };
    let count = |(_, _, _, (size, total, available, held, sold)): Row| {
        Some((size?, StockCount { total: total?, available: available?, held: held?, sold: sold? }))
    };
    Ok(Some(Settled { now, version, counts: rows.into_iter().filter_map(count).collect(), next_deadline }))
}
