//! The statements of a stock transaction, in the order in which it runs them. Each has a fixed text whatever the
//! batch's size, so that it is prepared once per connection.

use std::collections::HashMap;

use diesel::{
    OptionalExtension as _, Queryable,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use tokio::try_join;
use uuid::Uuid;

use super::{
    Reservation, ReservationStatus,
    decide::{Closing, Grant, Known, Look},
    operation::Operation,
};
use crate::{
    clock::Timestamp,
    db::{DbError, statement},
    drops::{Catalogue, Money, SizeStock, StockCount},
    ids::{DropId, HoldId, ReservationId, UserId},
};

type Result<T> = std::result::Result<T, DbError>;

statement!(
    LockDrop -> (
        Integer, Text, Nullable<Text>, Nullable<Text>, Integer, Text, Timestamptz, Nullable<Timestamptz>, Integer,
        Integer, Nullable<Timestamptz>, Timestamptz,
    ),
    "SELECT stock_version, name, description, image_url, price_amount, price_currency, starts_at, ends_at,
            hold_seconds, purchase_limit, cancelled_at, created_at
     FROM drops WHERE id = $1 FOR UPDATE",
    { id: SqlUuid => Uuid }
);

#[derive(Queryable)]
struct DropRow {
    version: i32,
    name: String,
    description: Option<String>,
    image_url: Option<String>,
    price_amount: i32,
    price_currency: String,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    hold_seconds: i32,
    purchase_limit: i32,
    cancelled_at: Option<Timestamp>,
    created_at: Timestamp,
}

/// Takes the drop's lock, which is its row.
pub(super) async fn lock_drop(
    connection: &mut AsyncPgConnection,
    id: DropId,
) -> Result<Option<(Catalogue, i32)>> {
    let row: Option<DropRow> = LockDrop { id: id.0 }.get_result(connection).await.optional()?;
    Ok(row.map(|row| {
        let catalogue = Catalogue {
            name: row.name,
            description: row.description,
            image_url: row.image_url,
            price: Money { amount: row.price_amount, currency: row.price_currency },
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            hold_seconds: row.hold_seconds,
            purchase_limit: row.purchase_limit,
            cancelled_at: row.cancelled_at,
            created_at: row.created_at,
        };
        (catalogue, row.version)
    }))
}

statement!(
    LookAtSizes -> (Timestamptz, Text, Integer, Integer, Integer, Integer, Integer),
    "SELECT (SELECT clock_timestamp()), size, total, available, held, sold, next_pair
     FROM drop_sizes WHERE drop_id = $1 ORDER BY position",
    { id: SqlUuid => Uuid }
);

statement!(
    /// What is due or, with `all_active`, every active hold. A statement that arrives after the lock was had has a
    /// later timestamp than the lock, so nothing that is due is missed; what fell due since, `decide` leaves alone.
    LookAtDue -> (KnownTypes, Text),
    "SELECT id, size, pair_number, user_id, status, price_amount, price_currency, created_at, expires_at, closed_at,
            idempotency_key
     FROM reservations
     WHERE drop_id = $1 AND status = 'active'
       AND expires_at <= CASE WHEN $2 THEN 'infinity' ELSE statement_timestamp() END",
    { id: SqlUuid => Uuid, all_active: Bool => bool }
);

statement!(
    /// The holds that the batch names, repeats, or counts against a buyer's limit.
    LookAtNamed -> (KnownTypes, Text),
    "SELECT id, size, pair_number, user_id, status, price_amount, price_currency, created_at, expires_at, closed_at,
            idempotency_key
     FROM reservations
     WHERE drop_id = $1
       AND (id = ANY($2) OR (user_id = ANY($3) AND (status IN ('active', 'purchased') OR idempotency_key = ANY($4))))",
    {
        id: SqlUuid => Uuid, holds: Array<SqlUuid> => Vec<Uuid>, users: Array<SqlUuid> => Vec<Uuid>,
        keys: Array<Text> => Vec<String>,
    }
);

type KnownTypes =
    (SqlUuid, Text, Integer, SqlUuid, Text, Integer, Text, Timestamptz, Timestamptz, Nullable<Timestamptz>);

/// A reservation as it is stored, but for its drop.
#[derive(Debug, Queryable)]
pub(super) struct ReservationRow {
    id: HoldId,
    size: String,
    pair_number: i32,
    user_id: UserId,
    status: String,
    price_amount: i32,
    price_currency: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    closed_at: Option<Timestamp>,
}

impl ReservationRow {
    pub(super) fn of_drop(self, drop_id: DropId) -> Result<Reservation> {
        let status = ReservationStatus::from_name(&self.status)
            .ok_or_else(|| DbError::Unexpected(format!("unknown reservation status {:?}", self.status)))?;
        Ok(Reservation {
            id: ReservationId { drop_id, hold_id: self.id },
            size: self.size,
            pair_number: self.pair_number,
            user_id: self.user_id,
            status,
            price: Money { amount: self.price_amount, currency: self.price_currency },
            created_at: self.created_at,
            expires_at: self.expires_at,
            closed_at: self.closed_at,
        })
    }
}

/// What was seen under the lock.
pub(super) struct Looked {
    pub(super) now: Timestamp,
    pub(super) sizes: Vec<SizeStock>,
    /// By size, the lowest pair number never used.
    pub(super) next_pairs: HashMap<String, i32>,
    pub(super) known: Vec<Known>,
}

/// Looks at what the batch needs to know, in one round trip.
pub(super) async fn look(
    connection: &AsyncPgConnection,
    id: DropId,
    operations: &[Operation],
) -> Result<Looked> {
    let due =
        LookAtDue { id: id.0, all_active: operations.iter().any(|it| matches!(it, Operation::CancelDrop)) };
    let mut named = LookAtNamed { id: id.0, holds: Vec::new(), users: Vec::new(), keys: Vec::new() };
    for operation in operations {
        match operation {
            Operation::Reserve { user, key, .. } => {
                named.users.push(user.0);
                named.keys.push(key.clone());
            }
            Operation::Purchase { hold_id, .. } | Operation::Cancel { hold_id, .. } => {
                named.holds.push(hold_id.0)
            }
            Operation::CancelDrop => {}
        }
    }
    type SizeRow = (Timestamp, String, i32, i32, i32, i32, i32);
    type KnownRow = (ReservationRow, String);
    let (mut first, mut second, mut third) = (connection, connection, connection);
    let (sizes, due, named) = try_join!(
        LookAtSizes { id: id.0 }.load::<SizeRow>(&mut first),
        due.load::<KnownRow>(&mut second),
        named.load::<KnownRow>(&mut third),
    )?;
    let now = sizes.as_slice().first().map(|row| row.0);
    let now = now.ok_or_else(|| DbError::Unexpected("a drop without sizes".to_owned()))?;
    let mut known: HashMap<HoldId, Known> = HashMap::new();
    for (row, key) in due.into_iter().chain(named) {
        let reservation = row.of_drop(id)?;
        known.insert(reservation.id.hold_id, Known { reservation, key });
    }
    let next_pairs = sizes.iter().map(|row| (row.1.clone(), row.6)).collect();
    let size = |(_, size, total, available, held, sold, _): SizeRow| SizeStock {
        size,
        count: StockCount { total, available, held, sold },
    };
    Ok(Looked {
        now,
        sizes: sizes.into_iter().map(size).collect(),
        next_pairs,
        known: known.into_values().collect(),
    })
}

statement!(
    /// The guards repeat what `decide` has decided: no expiry before the deadline, no purchase from it on, and
    /// nothing twice.
    MarkClosed -> (SqlUuid, Text, Text),
    "UPDATE reservations AS r SET status = closing.status, closed_at = $1
     FROM unnest($2, $3) AS closing (id, status)
     WHERE r.drop_id = $4 AND r.id = closing.id AND r.status = 'active'
       AND CASE closing.status WHEN 'expired' THEN r.expires_at <= $1
                               WHEN 'purchased' THEN r.expires_at > $1 ELSE true END
     RETURNING r.id, r.size, r.status",
    {
        now: Timestamptz => Timestamp, holds: Array<SqlUuid> => Vec<Uuid>,
        statuses: Array<Text> => Vec<&'static str>, drop_id: SqlUuid => Uuid,
    }
);

/// Closes holds; returns those that were closed.
pub(super) async fn mark_closed(
    connection: &mut AsyncPgConnection,
    drop_id: DropId,
    now: Timestamp,
    closings: &[Closing],
) -> Result<Vec<(HoldId, String, ReservationStatus)>> {
    let holds = closings.iter().map(|closing| closing.hold_id.0).collect();
    let statuses = closings.iter().map(|closing| closing.to.name()).collect();
    let rows: Vec<(HoldId, String, String)> =
        MarkClosed { now, holds, statuses, drop_id: drop_id.0 }.load(connection).await?;
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
     SELECT drop_id, id, size, pair_number, user_id, price_amount, price_currency, closed_at
     FROM reservations WHERE drop_id = $1 AND id = ANY($2) AND status = 'purchased'
     RETURNING reservation_id",
    { drop_id: SqlUuid => Uuid, holds: Array<SqlUuid> => Vec<Uuid> }
);

/// Books the purchases among the closings; returns how many.
pub(super) async fn insert_purchases(
    connection: &mut AsyncPgConnection,
    drop_id: DropId,
    closings: &[Closing],
) -> Result<usize> {
    let bought = closings.iter().filter(|closing| closing.to == ReservationStatus::Purchased);
    let holds = bought.map(|closing| closing.hold_id.0).collect();
    let made: Vec<Uuid> = InsertPurchases { drop_id: drop_id.0, holds }.load(connection).await?;
    Ok(made.len())
}

statement!(
    ListFreedPairs -> Integer,
    "SELECT pair_number FROM pairs AS p
     WHERE drop_id = $1 AND size = $2 AND pair_number < $3
       AND NOT EXISTS (
           SELECT FROM reservations AS r
           WHERE r.drop_id = p.drop_id AND r.size = p.size AND r.pair_number = p.pair_number
             AND r.status IN ('active', 'purchased')
       )
     ORDER BY pair_number LIMIT $4",
    { drop_id: SqlUuid => Uuid, size: Text => String, below: Integer => i32, limit: BigInt => i64 }
);

/// Numbers that were used and are free again, the lowest first.
pub(super) async fn list_freed_pairs(
    connection: &mut AsyncPgConnection,
    drop_id: DropId,
    size: &str,
    below: i32,
    limit: i32,
) -> Result<Vec<i32>> {
    let list = ListFreedPairs { drop_id: drop_id.0, size: size.to_owned(), below, limit: limit.into() };
    Ok(list.load(connection).await?)
}

/// A hold to be made, with its pair.
pub(super) struct NewHold<'a> {
    pub(super) grant: &'a Grant,
    pub(super) pair_number: i32,
}

statement!(
    InsertHolds -> KnownTypes,
    "INSERT INTO reservations (drop_id, id, size, pair_number, user_id, status, price_amount, price_currency,
                               idempotency_key, created_at, expires_at)
     SELECT $1, id, size, pair_number, user_id, 'active', $2, $3, key, $4, $4 + make_interval(secs => $5)
     FROM unnest($6, $7, $8, $9, $10) AS given (id, size, pair_number, user_id, key)
     RETURNING id, size, pair_number, user_id, status, price_amount, price_currency, created_at, expires_at, closed_at",
    {
        drop_id: SqlUuid => Uuid, amount: Integer => i32, currency: Text => String, now: Timestamptz => Timestamp,
        hold_seconds: Integer => i32, ids: Array<SqlUuid> => Vec<Uuid>, sizes: Array<Text> => Vec<String>,
        pair_numbers: Array<Integer> => Vec<i32>, users: Array<SqlUuid> => Vec<Uuid>,
        keys: Array<Text> => Vec<String>,
    }
);

/// Makes holds that begin now.
pub(super) async fn insert_holds(
    connection: &mut AsyncPgConnection,
    drop_id: DropId,
    look: &Look,
    holds: &[NewHold<'_>],
) -> Result<Vec<Reservation>> {
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
    };
    let rows: Vec<ReservationRow> = insert.load(connection).await?;
    rows.into_iter().map(|row| row.of_drop(drop_id)).collect()
}

/// How many pairs of a size went where, as the statements before returned it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) reserved: i32,
    pub(super) purchased: i32,
    pub(super) released: i32,
    pub(super) expired: i32,
    /// Of the reserved ones, those whose number was never used before.
    pub(super) fresh: i32,
}

/// The drop after the batch.
pub(super) struct Settled {
    pub(super) version: i32,
    pub(super) counts: HashMap<String, StockCount>,
    pub(super) next_deadline: Option<Timestamp>,
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
            (SELECT min(expires_at) FROM reservations WHERE drop_id = $7 AND status = 'active'),
            size, total, available, held, sold
     FROM bumped LEFT JOIN moved ON true",
    {
        sizes: Array<Text> => Vec<String>, reserved: Array<Integer> => Vec<i32>,
        purchased: Array<Integer> => Vec<i32>, released: Array<Integer> => Vec<i32>,
        expired: Array<Integer> => Vec<i32>, fresh: Array<Integer> => Vec<i32>, drop_id: SqlUuid => Uuid,
        cancels: Bool => bool, now: Timestamptz => Timestamp,
    }
);

/// Moves the counters, the version and the ledger.
pub(super) async fn settle(
    connection: &mut AsyncPgConnection,
    drop_id: DropId,
    now: Timestamp,
    cancels: bool,
    moved: HashMap<String, Moved>,
) -> Result<Settled> {
    type Row = (i32, Option<Timestamp>, Option<String>, Option<i32>, Option<i32>, Option<i32>, Option<i32>);
    let (sizes, moved): (Vec<String>, Vec<Moved>) = moved.into_iter().unzip();
    let column = |of: fn(&Moved) -> i32| moved.iter().map(of).collect();
    let count = sizes.len();
    let settle = Settle {
        sizes,
        reserved: column(|moved| moved.reserved),
        purchased: column(|moved| moved.purchased),
        released: column(|moved| moved.released),
        expired: column(|moved| moved.expired),
        fresh: column(|moved| moved.fresh),
        drop_id: drop_id.0,
        cancels,
        now,
    };
    let rows: Vec<Row> = settle.load(connection).await?;
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
    match counts.len() == count {
        true => Ok(Settled { version, counts, next_deadline }),
        false => Err(DbError::Unexpected("a size vanished under the drop's lock".to_owned())),
    }
}

statement!(
    FindDeadline -> Nullable<Timestamptz>,
    "SELECT min(expires_at) FROM reservations WHERE drop_id = $1 AND status = 'active'",
    { drop_id: SqlUuid => Uuid }
);

/// When the next hold of the drop lapses.
pub(super) async fn find_deadline(
    connection: &mut AsyncPgConnection,
    id: DropId,
) -> Result<Option<Timestamp>> {
    Ok(FindDeadline { drop_id: id.0 }.get_result(connection).await?)
}

statement!(
    ListDeadlines -> (Timestamptz, Nullable<SqlUuid>, Nullable<Timestamptz>),
    "SELECT statement_timestamp(), next.drop_id, next.expires_at
     FROM (SELECT) AS once
     LEFT JOIN (
        SELECT drop_id, min(expires_at) AS expires_at FROM reservations WHERE status = 'active' GROUP BY drop_id
     ) AS next ON true",
    {}
);

/// The database clock, and when the next hold of each drop lapses.
pub(super) async fn list_deadlines(
    connection: &mut AsyncPgConnection,
) -> Result<(Timestamp, Vec<(DropId, Timestamp)>)> {
    let rows: Vec<(Timestamp, Option<DropId>, Option<Timestamp>)> = ListDeadlines {}.load(connection).await?;
    let now = rows.as_slice().first().map(|row| row.0);
    let now = now.ok_or_else(|| DbError::Unexpected("no clock".to_owned()))?;
    Ok((now, rows.into_iter().filter_map(|(_, drop_id, at)| Some((drop_id?, at?))).collect()))
}
