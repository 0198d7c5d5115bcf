//! Write third: what a stock transaction changes.

use std::collections::HashMap;

use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{ReservationRow, ReservationTypes, Result};
use crate::{
    clock::Timestamp,
    db::{DbError, statement},
    drops::StockCount,
    ids::{DropId, HoldId},
    stock::{
        Reservation, ReservationStatus,
        decide::{Closing, Grant, Look},
    },
};

statement!(
    /// The guards repeat what `decide` has decided: no expiry before the deadline, no purchase from it on, and
    /// nothing twice. The rows are found one by one, as in the looks, and then named by their place. Naming
    /// the status would let the planner take an index that has every live hold in it.
    MarkClosed -> (SqlUuid, Text, Text),
    "UPDATE reservations AS r SET status = ($3)[array_position($2, r.id)], closed_at = $1
     WHERE r.ctid = ANY (ARRAY(
        SELECT found.place FROM unnest($2, $3) AS closing (id, status) CROSS JOIN LATERAL (
            SELECT f.ctid AS place FROM reservations AS f
            WHERE f.drop_id = $4 AND f.id = closing.id AND f.closed_at IS NULL
              AND CASE closing.status WHEN 'expired' THEN f.expires_at <= $1
                                      WHEN 'purchased' THEN f.expires_at > $1 ELSE true END
            ORDER BY f.id
        ) AS found
     ))
     RETURNING r.id, r.size, r.status",
    {
        now: Timestamptz => Timestamp, holds: Array<SqlUuid> => Vec<Uuid>,
        statuses: Array<Text> => Vec<&'static str>, drop_id: SqlUuid => Uuid,
    }
);

/// Closes holds; returns those that were closed, with their size.
pub(in crate::stock) async fn mark_closed(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    now: Timestamp,
    closings: &[Closing],
) -> Result<Vec<(HoldId, String, ReservationStatus)>> {
    if closings.is_empty() {
        return Ok(Vec::new());
    }
    let holds = closings.iter().map(|closing| closing.hold_id.0).collect();
    let statuses = closings.iter().map(|closing| closing.to.name()).collect();
    let rows: Vec<(HoldId, String, String)> =
        MarkClosed { now, holds, statuses, drop_id: drop_id.0 }.load(&mut connection).await?;
    let closed = |(id, size, status): (HoldId, String, String)| {
        let status = ReservationStatus::from_name(&status)
            .ok_or_else(|| DbError::Unexpected(format!("unknown reservation status {status:?}")))?;
        Ok((id, size, status))
    };
    rows.into_iter().map(closed).collect()
}

statement!(
    InsertPurchases -> SqlUuid,
    "INSERT INTO purchases (drop_id, reservation_id, size, pair_number, user_id, price_amount, price_currency,
                            purchased_at)
     SELECT bought.* FROM unnest($2) AS closing (id) CROSS JOIN LATERAL (
        SELECT r.drop_id, r.id, r.size, r.pair_number, r.user_id, r.price_amount, r.price_currency, r.closed_at
        FROM reservations AS r WHERE r.drop_id = $1 AND r.id = closing.id AND CASE r.status WHEN 'purchased' THEN true END
        ORDER BY r.id
     ) AS bought
     RETURNING reservation_id",
    { drop_id: SqlUuid => Uuid, holds: Array<SqlUuid> => Vec<Uuid> }
);

/// Books the purchases among the closings, once they are closed; returns how many.
pub(in crate::stock) async fn insert_purchases(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    closings: &[Closing],
) -> Result<usize> {
    let bought = closings.iter().filter(|closing| closing.to == ReservationStatus::Purchased);
    let holds: Vec<Uuid> = bought.map(|closing| closing.hold_id.0).collect();
    if holds.is_empty() {
        return Ok(0);
    }
    let made: Vec<Uuid> = InsertPurchases { drop_id: drop_id.0, holds }.load(&mut connection).await?;
    Ok(made.len())
}

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

/// Numbers below `below` that were used and are free again, the lowest first.
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

statement!(
    InsertHolds -> ReservationTypes,
    "INSERT INTO reservations (drop_id, id, size, pair_number, user_id, status, price_amount, price_currency,
                               idempotency_key, admission_id, created_at, expires_at)
     SELECT $1, id, size, pair_number, user_id, 'active', $2, $3, key, admission_id, $4,
            $4 + make_interval(secs => $5)
     FROM unnest($6, $7, $8, $9, $10, $11) AS given (id, size, pair_number, user_id, key, admission_id)
     RETURNING id, size, pair_number, user_id, status, price_amount, price_currency, created_at, expires_at, closed_at",
    {
        drop_id: SqlUuid => Uuid, amount: Integer => i32, currency: Text => String, now: Timestamptz => Timestamp,
        hold_seconds: Integer => i32, ids: Array<SqlUuid> => Vec<Uuid>, sizes: Array<Text> => Vec<String>,
        pair_numbers: Array<Integer> => Vec<i32>, users: Array<SqlUuid> => Vec<Uuid>,
        keys: Array<Text> => Vec<String>, admissions: Array<Nullable<Text>> => Vec<Option<String>>,
    }
);

/// Makes holds that begin now.
pub(in crate::stock) async fn insert_holds(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    look: &Look,
    holds: &[NewHold<'_>],
) -> Result<Vec<Reservation>> {
    if holds.is_empty() {
        return Ok(Vec::new());
    }
    let insert = InsertHolds {
        drop_id: drop_id.0,
        amount: look.catalogue.price.amount,
        currency: look.catalogue.price.currency.clone(),
        now: look.now,
        hold_seconds: look.catalogue.hold_seconds,
        ids: holds.iter().map(|hold| hold.grant.hold_id.0).collect(),
        sizes: holds.iter().map(|hold| hold.grant.size.clone()).collect(),
        pair_numbers: holds.iter().map(|hold| hold.pair_number).collect(),
        users: holds.iter().map(|hold| hold.grant.user.0).collect(),
        keys: holds.iter().map(|hold| hold.grant.key.clone()).collect(),
        admissions: holds.iter().map(|hold| hold.grant.admission_id.clone()).collect(),
    };
    let rows: Vec<ReservationRow> = insert.load(&mut connection).await?;
    rows.into_iter().map(|row| row.of_drop(drop_id)).collect()
}

/// How many pairs of a size go where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::stock) struct Moved {
    pub(in crate::stock) reserved: i32,
    pub(in crate::stock) purchased: i32,
    pub(in crate::stock) released: i32,
    pub(in crate::stock) expired: i32,
}

impl Moved {
    /// Counts a hold that is closed.
    pub(in crate::stock) fn closed(&mut self, to: ReservationStatus) {
        match to {
            ReservationStatus::Purchased => self.purchased += 1,
            ReservationStatus::Expired => self.expired += 1,
            ReservationStatus::Cancelled => self.released += 1,
            // Counts as nothing, which no plan is.
            ReservationStatus::Active => {}
        }
    }
}

/// The drop after the batch.
pub(in crate::stock) struct Settled {
    pub(in crate::stock) version: i32,
    pub(in crate::stock) counts: HashMap<String, StockCount>,
    pub(in crate::stock) next_deadline: Option<Timestamp>,
}

statement!(
    /// Counters, version and ledger move in one statement.
    Settle -> (
        Integer, Nullable<Timestamptz>, Nullable<Text>, Nullable<Integer>, Nullable<Integer>, Nullable<Integer>,
        Nullable<Integer>,
    ),
    "WITH moved AS (
        UPDATE drop_sizes AS s
        SET available = available - m.reserved + m.released + m.expired,
            held = held + m.reserved - m.purchased - m.released - m.expired,
            sold = sold + m.purchased,
            next_pair = next_pair + m.fresh
        FROM unnest($1, $2, $3, $4, $5, $6) AS m (size, reserved, purchased, released, expired, fresh)
        WHERE s.drop_id = $7 AND s.size = m.size
        RETURNING s.size, s.total, s.available, s.held, s.sold, m.reserved, m.purchased, m.released, m.expired
     ), bumped AS (
        UPDATE drops
        SET stock_version = stock_version + 1, cancelled_at = CASE WHEN $8 THEN $9 ELSE cancelled_at END
        WHERE id = $7 RETURNING stock_version
     ), event AS (
        INSERT INTO stock_events (drop_id, version, kind, at, sizes, restocked, reserved, purchased, released,
                                  expired, total, available, held, sold)
        SELECT $7, stock_version, CASE WHEN $8 THEN 'cancelled' ELSE 'traded' END, $9, sizes, restocked, reserved,
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
            (SELECT expires_at FROM reservations WHERE drop_id = $7 AND status = 'active'
             ORDER BY expires_at, id LIMIT 1),
            size, total, available, held, sold
     FROM bumped LEFT JOIN moved ON true",
    {
        sizes: Array<Text> => Vec<String>, reserved: Array<Integer> => Vec<i32>,
        purchased: Array<Integer> => Vec<i32>, released: Array<Integer> => Vec<i32>,
        expired: Array<Integer> => Vec<i32>, fresh: Array<Integer> => Vec<i32>, drop_id: SqlUuid => Uuid,
        cancels: Bool => bool, now: Timestamptz => Timestamp,
    }
);

/// Moves the counters, the version and the ledger. `fresh`: how many pair numbers of a size are used for the first time.
pub(in crate::stock) async fn settle(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    now: Timestamp,
    cancels: bool,
    moved: &HashMap<String, Moved>,
    fresh: &HashMap<String, i32>,
) -> Result<Settled> {
    type Row = (i32, Option<Timestamp>, Option<String>, Option<i32>, Option<i32>, Option<i32>, Option<i32>);
    let column = |of: fn(&Moved) -> i32| moved.values().map(of).collect();
    let settle = Settle {
        sizes: moved.keys().cloned().collect(),
        reserved: column(|moved| moved.reserved),
        purchased: column(|moved| moved.purchased),
        released: column(|moved| moved.released),
        expired: column(|moved| moved.expired),
        fresh: moved.keys().map(|size| fresh.get(size).copied().unwrap_or_default()).collect(),
        drop_id: drop_id.0,
        cancels,
        now,
    };
    let rows: Vec<Row> = settle.load(&mut connection).await?;
    let (version, next_deadline) = match rows.as_slice() {
        [(version, next_deadline, ..), ..] => (*version, *next_deadline),
        [] => return Err(DbError::Unexpected("the drop vanished under its lock".to_owned())),
    };
    let counts: HashMap<String, StockCount> = rows
        .into_iter()
        .filter_map(|(_, _, size, total, available, held, sold)| {
            Some((size?, StockCount { total: total?, available: available?, held: held?, sold: sold? }))
        })
        .collect();
    match counts.len() == moved.len() {
        true => Ok(Settled { version, counts, next_deadline }),
        false => Err(DbError::Unexpected("a size vanished under the drop's lock".to_owned())),
    }
}
