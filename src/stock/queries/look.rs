//! What a stock transaction reads: first the lock, then the look.

use std::collections::HashMap;

use diesel::{
    OptionalExtension as _,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use tokio::try_join;
use uuid::Uuid;

use super::{ReservationRow, ReservationTypes, Result, Version, VersionTypes};
use crate::{
    clock::Timestamp,
    db::statement,
    drops::{Catalogue, CatalogueRow, CatalogueTypes, SizeStock, StockCount, catalogue_columns},
    ids::{DropId, HoldId},
    stock::{
        decide::{Known, MOST_CLOSED},
        operation::Operation,
    },
};

statement!(
    LockDrop -> (VersionTypes, CatalogueTypes),
    concat!("SELECT stock_version, xmin::text, ", catalogue_columns!(), " FROM drops WHERE id = $1 FOR UPDATE"),
    { id: SqlUuid => Uuid }
);

/// Locks the drop's row and reads it.
pub(in crate::stock) async fn lock_drop(
    mut connection: &AsyncPgConnection,
    id: DropId,
) -> Result<Option<(Catalogue, Version)>> {
    let lock = LockDrop { id: id.0 };
    let row: Option<(Version, CatalogueRow)> = lock.get_result(&mut connection).await.optional()?;
    Ok(row.map(|(version, catalogue)| (catalogue.into(), version)))
}

statement!(
    LookAtSizes -> (Timestamptz, Integer, Text, Integer, Integer, Integer, Integer, Integer),
    "SELECT (SELECT clock_timestamp()), (SELECT stock_version FROM drops WHERE id = $1),
            size, total, available, held, sold, next_pair
     FROM drop_sizes WHERE drop_id = $1 ORDER BY position",
    { id: SqlUuid => Uuid }
);

statement!(
    /// Selects first the due holds or, with `all_active`, every active hold, up to a limit. The statement arrives
    /// after the lock is granted, so its timestamp is later and no due hold is missed; `decide` ignores holds that
    /// became due since. The order leads the planner to the index of due holds: before any ANALYZE another index
    /// costs the same by its figures, and that one has every live hold in it.
    ///
    /// Then the holds that the batch names, repeats, or counts against a buyer's limit. The inner order forces single
    /// lookups: before any ANALYZE the planner takes a drop for small, and would read all of its holds and compare
    /// each with each buyer.
    LookAtHolds -> (ReservationTypes, Text, Nullable<Text>, Bool),
    "(SELECT id, size, pair_number, user_id, status, price_amount, price_currency, created_at, expires_at, closed_at,
             idempotency_key, admission_id, true
      FROM reservations
      WHERE drop_id = $1 AND status = 'active'
        AND expires_at <= CASE WHEN $2 THEN 'infinity' ELSE statement_timestamp() END
      ORDER BY expires_at, id LIMIT $7)
     UNION ALL
     SELECT found.*, false FROM unnest($3) AS named (id) CROSS JOIN LATERAL (
        SELECT id, size, pair_number, user_id, status, price_amount, price_currency, created_at, expires_at, closed_at,
               idempotency_key, admission_id
        FROM reservations AS r WHERE r.drop_id = $1 AND r.id = named.id ORDER BY r.id
     ) AS found
     UNION ALL
     SELECT found.*, false FROM unnest($4) AS named (user_id) CROSS JOIN LATERAL (
        SELECT id, size, pair_number, user_id, status, price_amount, price_currency, created_at, expires_at, closed_at,
               idempotency_key, admission_id
        FROM reservations AS r
        WHERE r.drop_id = $1 AND r.user_id = named.user_id
          AND (r.status IN ('active', 'purchased') OR r.idempotency_key = ANY($5) OR r.admission_id = ANY($6))
        ORDER BY r.idempotency_key
     ) AS found",
    {
        id: SqlUuid => Uuid, all_active: Bool => bool, holds: Array<SqlUuid> => Vec<Uuid>,
        users: Array<SqlUuid> => Vec<Uuid>, keys: Array<Text> => Vec<String>,
        admissions: Array<Text> => Vec<String>, limit: BigInt => i64,
    }
);

/// What a look found under the lock.
pub(in crate::stock) struct Looked {
    /// Must be the number of the locked version: otherwise the look came before the lock.
    pub(in crate::stock) version: i32,
    pub(in crate::stock) now: Timestamp,
    pub(in crate::stock) sizes: Vec<SizeStock>,
    /// The lowest pair number never used, by size.
    pub(in crate::stock) next_pairs: HashMap<String, i32>,
    pub(in crate::stock) known: Vec<Known>,
    /// Whether the limit was reached, so that more holds may be due or, if the drop is to be cancelled, active.
    pub(in crate::stock) is_cut: bool,
}

/// Reads what the batch needs to know, in one round trip. `None` if the drop does not exist.
pub(in crate::stock) async fn look(
    connection: &AsyncPgConnection,
    id: DropId,
    operations: &[Operation],
) -> Result<Option<Looked>> {
    let all_active = operations.iter().any(|it| matches!(it, Operation::CancelDrop));
    let mut named = LookAtHolds {
        id: id.0,
        all_active,
        holds: Vec::new(),
        users: Vec::new(),
        keys: Vec::new(),
        admissions: Vec::new(),
        limit: MOST_CLOSED.try_into().unwrap_or(i64::MAX),
    };
    for operation in operations {
        match operation {
            Operation::Reserve { user, key, admission, .. } => {
                named.users.push(user.0);
                named.keys.push(key.clone());
                named.admissions.extend(admission.as_ref().map(|admission| admission.id.clone()));
            }
            Operation::Purchase { hold_id, .. } | Operation::Cancel { hold_id, .. } => {
                named.holds.push(hold_id.0)
            }
            Operation::CancelDrop => {}
        }
    }
    // Each buyer's holds once, however often they ask.
    named.users.sort_unstable();
    named.users.dedup();
    type SizeRow = (Timestamp, i32, String, i32, i32, i32, i32, i32);
    type KnownRow = (ReservationRow, String, Option<String>, bool);
    let (mut first, mut second) = (connection, connection);
    let (sizes, holds) = try_join!(
        biased;
        LookAtSizes { id: id.0 }.load::<SizeRow>(&mut first),
        named.load::<KnownRow>(&mut second),
    )?;
    let Some((now, version)) = sizes.as_slice().first().map(|row| (row.0, row.1)) else {
        return Ok(None);
    };
    let mut known: HashMap<HoldId, Known> = HashMap::new();
    let mut listed = 0;
    for (row, key, admission_id, is_listed) in holds {
        listed += usize::from(is_listed);
        let reservation = row.of_drop(id)?;
        known.insert(reservation.id.hold_id, Known { reservation, key, admission_id });
    }
    let next_pairs = sizes.iter().map(|row| (row.2.clone(), row.7)).collect();
    let size = |(_, _, size, total, available, held, sold, _): SizeRow| SizeStock {
        size,
        count: StockCount { total, available, held, sold },
    };
    Ok(Some(Looked {
        version,
        now,
        sizes: sizes.into_iter().map(size).collect(),
        next_pairs,
        known: known.into_values().collect(),
        is_cut: listed == MOST_CLOSED,
    }))
}
