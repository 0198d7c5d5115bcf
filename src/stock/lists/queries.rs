//! The statements of lists, and their rows.

use diesel::{
    Queryable,
    sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    db::statement,
    drops::Money,
    ids::{DropId, HoldId, ReservationId, UserId},
    stock::{Purchase, queries::ReservationTypes},
};

macro_rules! reservation_columns {
    () => {
        "r.id, r.size, r.pair_number, r.user_id,
         CASE WHEN r.status = 'active' AND r.expires_at <= statement_timestamp() THEN 'expired' ELSE r.status END,
         r.price_amount, r.price_currency, r.created_at, r.expires_at, r.closed_at "
    };
}

macro_rules! purchase_columns {
    () => {
        "p.drop_id, p.reservation_id, p.size, p.pair_number, p.user_id, p.price_amount, p.price_currency, p.purchased_at "
    };
}

/// The common part of the list of a person's reservations and its count.
macro_rules! of_person {
    () => {
        "FROM reservations AS r
         WHERE r.user_id = $1 AND ($2 IS NULL OR r.drop_id = $2)
           AND ($3 IS NULL OR CASE WHEN r.status = 'active' AND r.expires_at <= statement_timestamp()
                                   THEN 'expired' ELSE r.status END = ANY($3)) "
    };
}

type PurchaseTypes = (SqlUuid, SqlUuid, Text, Integer, SqlUuid, Integer, Text, Timestamptz);

#[derive(Queryable)]
pub(super) struct PurchaseRow {
    drop_id: DropId,
    reservation_id: HoldId,
    size: String,
    pair_number: i32,
    user_id: UserId,
    price_amount: i32,
    price_currency: String,
    purchased_at: Timestamp,
}

impl From<PurchaseRow> for Purchase {
    fn from(row: PurchaseRow) -> Self {
        Self {
            reservation_id: ReservationId { drop_id: row.drop_id, hold_id: row.reservation_id },
            size: row.size,
            pair_number: row.pair_number,
            user_id: row.user_id,
            price: Money { amount: row.price_amount, currency: row.price_currency },
            purchased_at: row.purchased_at,
        }
    }
}

statement!(
    ListActive -> (BigInt, SqlUuid, ReservationTypes),
    concat!(
        "SELECT k.place, k.drop_id, r.*
         FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS k (drop_id, first, after_at, after_id, place),
         LATERAL (
            SELECT ", reservation_columns!(), "FROM reservations AS r
            WHERE r.drop_id = k.drop_id AND r.status = 'active' AND r.expires_at > statement_timestamp()
              AND (k.after_at IS NULL OR (r.expires_at, r.id) > (k.after_at, k.after_id))
            ORDER BY r.expires_at, r.id LIMIT k.first
         ) AS r ORDER BY k.place, r.expires_at, r.id"
    ),
    {
        drops: Array<SqlUuid> => Vec<Uuid>, firsts: Array<BigInt> => Vec<i64>,
        after_at: Array<Nullable<Timestamptz>> => Vec<Option<Timestamp>>,
        after_id: Array<Nullable<SqlUuid>> => Vec<Option<Uuid>>,
    }
);

statement!(
    /// Counts by the counters, which include every hold that is not closed, less those of them that have expired. A
    /// drop may have a hundred thousand holds, and few of them are expired unless many expire together. Without the
    /// order the planner takes an index that has all of them.
    CountActive -> (SqlUuid, BigInt),
    "SELECT s.drop_id, sum(s.held) - (
        SELECT count(*) FROM (
            SELECT FROM reservations AS r
            WHERE r.drop_id = s.drop_id AND r.status = 'active' AND r.expires_at <= statement_timestamp()
            ORDER BY r.expires_at, r.id
        ) AS lapsed
     )
     FROM drop_sizes AS s WHERE s.drop_id = ANY($1) GROUP BY s.drop_id",
    { drops: Array<SqlUuid> => Vec<Uuid> }
);

statement!(
    ListNewestPurchases -> (BigInt, PurchaseTypes),
    concat!(
        "SELECT k.place, p.*
         FROM unnest($1, $2) WITH ORDINALITY AS k (drop_id, first, place),
         LATERAL (
            SELECT ", purchase_columns!(), "FROM purchases AS p WHERE p.drop_id = k.drop_id
            ORDER BY p.purchased_at DESC, p.reservation_id DESC LIMIT k.first
         ) AS p ORDER BY k.place, p.purchased_at DESC, p.reservation_id DESC"
    ),
    { drops: Array<SqlUuid> => Vec<Uuid>, firsts: Array<BigInt> => Vec<i64> }
);

statement!(
    ListReservationsByIds -> (SqlUuid, ReservationTypes),
    concat!(
        "SELECT r.drop_id, ", reservation_columns!(), "FROM unnest($1, $2) AS k (drop_id, id)
         JOIN reservations AS r ON r.drop_id = k.drop_id AND r.id = k.id"
    ),
    { drops: Array<SqlUuid> => Vec<Uuid>, holds: Array<SqlUuid> => Vec<Uuid> }
);

statement!(
    ListPurchasesByIds -> PurchaseTypes,
    concat!(
        "SELECT ", purchase_columns!(), "FROM unnest($1, $2) AS k (drop_id, id)
         JOIN purchases AS p ON p.drop_id = k.drop_id AND p.reservation_id = k.id"
    ),
    { drops: Array<SqlUuid> => Vec<Uuid>, holds: Array<SqlUuid> => Vec<Uuid> }
);

statement!(
    ListOfPerson -> (SqlUuid, ReservationTypes),
    concat!(
        "SELECT r.drop_id, ", reservation_columns!(), of_person!(),
        "AND ($4 IS NULL OR (r.created_at, r.id) < ($4, $5)) ORDER BY r.created_at DESC, r.id DESC LIMIT $6"
    ),
    {
        user: SqlUuid => Uuid, drop_id: Nullable<SqlUuid> => Option<Uuid>,
        statuses: Nullable<Array<Text>> => Option<Vec<&'static str>>,
        after_at: Nullable<Timestamptz> => Option<Timestamp>, after_id: Nullable<SqlUuid> => Option<Uuid>,
        limit: BigInt => i64,
    }
);

statement!(
    CountOfPerson -> BigInt,
    concat!("SELECT count(*) ", of_person!()),
    {
        user: SqlUuid => Uuid, drop_id: Nullable<SqlUuid> => Option<Uuid>,
        statuses: Nullable<Array<Text>> => Option<Vec<&'static str>>,
    }
);

statement!(
    ListPurchasesOfPerson -> PurchaseTypes,
    concat!(
        "SELECT ", purchase_columns!(), "FROM purchases AS p
         WHERE p.user_id = $1 AND ($2 IS NULL OR p.drop_id = $2)
           AND ($3 IS NULL OR (p.purchased_at, p.reservation_id) < ($3, $4))
         ORDER BY p.purchased_at DESC, p.reservation_id DESC LIMIT $5"
    ),
    {
        user: SqlUuid => Uuid, drop_id: Nullable<SqlUuid> => Option<Uuid>,
        after_at: Nullable<Timestamptz> => Option<Timestamp>, after_id: Nullable<SqlUuid> => Option<Uuid>,
        limit: BigInt => i64,
    }
);
