//! Write third: what a stock transaction changes.

use std::collections::HashMap;

use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::Result;
use crate::{
    clock::Timestamp,
    db::{DbError, statement},
    drops::StockCount,
    ids::DropId,
    stock::decide::{Grant, Look, Plan},
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

/// A hold to be made, with its pair.
pub(in crate::stock) struct NewHold<'a> {
    pub(in crate::stock) grant: &'a Grant,
    pub(in crate::stock) pair_number: i32,
}

/// The drop after the batch.
pub(in crate::stock) struct Settled {
    pub(in crate::stock) version: i32,
    pub(in crate::stock) counts: HashMap<String, StockCount>,
    /// When the next of the holds lapses that were there before.
    pub(in crate::stock) next_deadline: Option<Timestamp>,
}

statement!(
    /// Everything that a batch changes. What the counters and the ledger move by is what the statements above them
    /// returned. Where that is not all that was planned, or where this is another transaction than the one that has the
    /// lock, there is no next version, which the table refuses: nothing is done then, also with the COMMIT already on its
    /// way.
    ///
    /// `closed`: the guards repeat what `decide` has decided: no expiry before the deadline, no purchase from it on, and
    /// nothing twice. The rows are found one by one, as in the looks, and then named by their place. Naming the status
    /// would let the planner take an index that has every live hold in it.
    ///
    /// `made`: asks for the number of closed holds, so that it begins when all of them are. A pair that is given back can
    /// be had again.
    Change -> (
        Integer, Nullable<Timestamptz>, Nullable<Text>, Nullable<Integer>, Nullable<Integer>, Nullable<Integer>,
        Nullable<Integer>,
    ),
    "WITH closed AS (
        UPDATE reservations AS r SET status = ($3)[array_position($2, r.id)], closed_at = $1
        WHERE r.ctid = ANY (ARRAY(
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
        WHERE (SELECT count(*) FROM closed) = cardinality($2)
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
                     AND txid_current() = $15 AND (SELECT count(*) FROM bought) = cardinality(array_positions($3, 'purchased'))
                THEN stock_version + 1 END,
            cancelled_at = CASE WHEN $14 THEN $1 ELSE cancelled_at END
        WHERE id = $4 RETURNING stock_version
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
     SELECT stock_version,
            (SELECT expires_at FROM reservations WHERE drop_id = $4 AND status = 'active' AND id <> ALL($2)
             ORDER BY expires_at, id LIMIT 1),
            size, total, available, held, sold
     FROM bumped LEFT JOIN moved ON true",
    {
        now: Timestamptz => Timestamp, closings: Array<SqlUuid> => Vec<Uuid>,
        statuses: Array<Text> => Vec<&'static str>, drop_id: SqlUuid => Uuid, amount: Integer => i32,
        currency: Text => String, hold_seconds: Integer => i32, ids: Array<SqlUuid> => Vec<Uuid>,
        sizes: Array<Text> => Vec<String>, pair_numbers: Array<Integer> => Vec<i32>,
        users: Array<SqlUuid> => Vec<Uuid>, keys: Array<Text> => Vec<String>,
        admissions: Array<Nullable<Text>> => Vec<Option<String>>, cancels: Bool => bool,
        transaction: BigInt => i64,
    }
);

/// Closes holds and books the purchases among them, makes holds that begin now, and moves the counters, the version and
/// the ledger.
///
/// # Errors
/// The database; also when it did less than was planned.
pub(in crate::stock) async fn change(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    transaction: i64,
    look: &Look,
    plan: &Plan,
    holds: &[NewHold<'_>],
) -> Result<Settled> {
    type Row = (i32, Option<Timestamp>, Option<String>, Option<i32>, Option<i32>, Option<i32>, Option<i32>);
    let change = Change {
        now: look.now,
        closings: plan.closings.iter().map(|closing| closing.hold_id.0).collect(),
        statuses: plan.closings.iter().map(|closing| closing.to.name()).collect(),
        drop_id: drop_id.0,
        amount: look.catalogue.price.amount,
        currency: look.catalogue.price.currency.clone(),
        hold_seconds: look.catalogue.hold_seconds,
        ids: holds.iter().map(|hold| hold.grant.hold_id.0).collect(),
        sizes: holds.iter().map(|hold| hold.grant.size.clone()).collect(),
        pair_numbers: holds.iter().map(|hold| hold.pair_number).collect(),
        users: holds.iter().map(|hold| hold.grant.user.0).collect(),
        keys: holds.iter().map(|hold| hold.grant.key.clone()).collect(),
        admissions: holds.iter().map(|hold| hold.grant.admission_id.clone()).collect(),
        cancels: plan.cancels_drop,
        transaction,
    };
    let rows: Vec<Row> = change.load(&mut connection).await?;
    let (version, next_deadline) = match rows.as_slice() {
        [(version, next_deadline, ..), ..] => (*version, *next_deadline),
        [] => return Err(DbError::Unexpected("the drop vanished under its lock".to_owned())),
    };
    let count = |(_, _, size, total, available, held, sold): Row| {
        Some((size?, StockCount { total: total?, available: available?, held: held?, sold: sold? }))
    };
    Ok(Settled { version, counts: rows.into_iter().filter_map(count).collect(), next_deadline })
}
