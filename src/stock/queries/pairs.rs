//! Finds pairs that were given out before and are free, by size. Runs under the drop's lock.

use diesel::sql_types::{Array, BigInt, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::Result;
use crate::{db::statement, ids::DropId};

statement!(
    /// All at once: in single lookups each number might be compared with every hold of the drop.
    ListFreedPairs -> Integer,
    "SELECT pair_number FROM pairs WHERE drop_id = $1 AND size = $2 AND pair_number < $3
     EXCEPT
     SELECT pair_number FROM reservations
     WHERE drop_id = $1 AND size = $2 AND status IN ('active', 'purchased')
     ORDER BY pair_number LIMIT $4",
    { drop_id: SqlUuid => Uuid, size: Text => String, below: Integer => i32, limit: BigInt => i64 }
);

/// Returns free numbers below `below`, lowest first.
pub(in crate::stock) async fn list_freed_pairs(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    size: &str,
    below: i32,
    limit: usize,
) -> Result<Vec<i32>> {
    let limit = limit.try_into().unwrap_or(i64::MAX);
    let list = ListFreedPairs { drop_id: drop_id.0, size: size.to_owned(), below, limit };
    Ok(list.load(&mut connection).await?)
}

statement!(
    /// The live hold of a number, if any, is the first from that number on, in an order that only one index has.
    KeepFreePairs -> Integer,
    "SELECT given.pair_number FROM unnest($3) WITH ORDINALITY AS given (pair_number, place) LEFT JOIN LATERAL (
        SELECT r.pair_number FROM reservations AS r
        WHERE r.drop_id = $1 AND r.size = $2 AND r.status IN ('active', 'purchased')
          AND r.pair_number >= given.pair_number
        ORDER BY r.pair_number LIMIT 1
     ) AS next ON true
     WHERE next.pair_number IS DISTINCT FROM given.pair_number
     LIMIT $4",
    { drop_id: SqlUuid => Uuid, size: Text => String, numbers: Array<Integer> => Vec<i32>, limit: BigInt => i64 }
);

/// Returns the first of these numbers that are free, in their order.
pub(in crate::stock) async fn keep_free_pairs(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    size: &str,
    numbers: Vec<i32>,
    limit: usize,
) -> Result<Vec<i32>> {
    let limit = limit.try_into().unwrap_or(i64::MAX);
    let keep = KeepFreePairs { drop_id: drop_id.0, size: size.to_owned(), numbers, limit };
    Ok(keep.load(&mut connection).await?)
}
