//! The statements of a stock transaction, in order of execution. Each has a fixed text whatever the batch size, so
//! that it is prepared once per connection.

mod look;
mod pairs;
mod write;

use diesel::{
    Queryable,
    sql_types::{Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

pub(super) use look::{lock_drop, look};
pub(super) use pairs::{keep_free_pairs, list_freed_pairs};
pub(super) use write::{Planned, Settled, change};

use super::{Reservation, ReservationStatus};
use crate::{
    clock::Timestamp,
    db::{DbError, statement},
    drops::Money,
    ids::{DropId, HoldId, ReservationId, UserId},
};

type Result<T> = std::result::Result<T, DbError>;

/// The SQL types of [`Version`].
type VersionTypes = (Integer, Text);

/// A version of a drop's row.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub(super) struct Version {
    /// Raised by each change of the stock.
    pub(super) number: i32,
    /// The transaction that wrote the row (`xmin`), which reveals changes by hand too.
    pub(super) writer: String,
}

/// The SQL types of [`ReservationRow`].
pub(super) type ReservationTypes =
    (SqlUuid, Text, Integer, SqlUuid, Text, Integer, Text, Timestamptz, Timestamptz, Nullable<Timestamptz>);

/// A stored reservation, without its drop.
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

statement!(
    FindDeadline -> Nullable<Timestamptz>,
    "SELECT (SELECT expires_at FROM reservations WHERE drop_id = $1 AND status = 'active'
             ORDER BY expires_at, id LIMIT 1)",
    { drop_id: SqlUuid => Uuid }
);

/// Returns when the next hold of the drop expires.
pub(super) async fn find_deadline(
    mut connection: &AsyncPgConnection,
    id: DropId,
) -> Result<Option<Timestamp>> {
    Ok(FindDeadline { drop_id: id.0 }.get_result(&mut connection).await?)
}

statement!(
    /// Steps from drop to drop along the index of due holds: it reads one hold of each, however many there are.
    ListDeadlines -> (Timestamptz, Nullable<SqlUuid>, Nullable<Timestamptz>),
    "WITH RECURSIVE next AS (
        (SELECT drop_id, expires_at FROM reservations WHERE status = 'active'
         ORDER BY drop_id, expires_at, id LIMIT 1)
        UNION ALL
        SELECT later.drop_id, later.expires_at FROM next CROSS JOIN LATERAL (
            SELECT drop_id, expires_at FROM reservations WHERE status = 'active' AND drop_id > next.drop_id
            ORDER BY drop_id, expires_at, id LIMIT 1
        ) AS later
     )
     SELECT statement_timestamp(), next.drop_id, next.expires_at
     FROM (SELECT) AS once LEFT JOIN next ON true",
    {}
);

/// Returns the database clock, and when the next hold of each drop expires.
pub(super) async fn list_deadlines(
    connection: &mut AsyncPgConnection,
) -> Result<(Timestamp, Vec<(DropId, Timestamp)>)> {
    let rows: Vec<(Timestamp, Option<DropId>, Option<Timestamp>)> = ListDeadlines {}.load(connection).await?;
    let now = rows.as_slice().first().map(|row| row.0);
    let now = now.ok_or_else(|| DbError::Unexpected("no clock".to_owned()))?;
    Ok((now, rows.into_iter().filter_map(|(_, drop_id, at)| Some((drop_id?, at?))).collect()))
}
