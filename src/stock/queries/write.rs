//! What a stock transaction writes, after lock and look.

use diesel::sql_types::{Array, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{Result, Version, VersionTypes};
use crate::{
    clock::Timestamp,
    db::{committed, statement},
    ids::{DropId, UserId},
    stock::{
        decide::{Look, Plan},
        size_delta::SizeDelta,
    },
};

/// A batch that is ready to be written.
pub(in crate::stock) struct Planned<'a> {
    /// The look it was decided by.
    pub(in crate::stock) look: &'a Look,
    /// The version of the drop in `look`.
    pub(in crate::stock) version: &'a Version,
    /// Buyers assumed to have no reservation, who have to be looked up; `None` after a look.
    pub(in crate::stock) newcomers: Option<&'a [UserId]>,
    pub(in crate::stock) plan: &'a Plan,
    /// The size of each closing.
    pub(in crate::stock) closed_sizes: Vec<&'a str>,
    /// The pair of each grant.
    pub(in crate::stock) pairs: &'a [i32],
    /// The resulting changes.
    pub(in crate::stock) deltas: &'a [SizeDelta],
}

/// The drop after the batch.
pub(in crate::stock) struct Settled {
    /// The database clock.
    pub(in crate::stock) now: Timestamp,
    pub(in crate::stock) version: Version,
    /// The next deadline among the holds that were there before.
    pub(in crate::stock) next_deadline: Option<Timestamp>,
}

/// Closes holds, and records the purchases among them. The guards repeat what `decide` decided: no expiry before the
/// deadline, no purchase from it on, and nothing twice. The rows are found one by one, as in the looks, and then
/// addressed by `ctid`. A condition on the status would let the planner take an index that has every live hold in it.
macro_rules! closing {
    () => {
        "closed AS (
            UPDATE reservations AS r SET status = ($3)[array_position($2, r.id)], closed_at = $1
            WHERE (SELECT is_so FROM expected) AND r.ctid = ANY (ARRAY(
                SELECT found.place FROM unnest($2, $3, $18) AS closing (id, status, size) CROSS JOIN LATERAL (
                    SELECT f.ctid AS place FROM reservations AS f
                    WHERE f.drop_id = $4 AND f.id = closing.id AND f.size = closing.size AND f.closed_at IS NULL
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
         )"
    };
}

macro_rules! all_closed {
    () => {
        "(SELECT count(*) FROM closed) = cardinality($2)"
    };
}

macro_rules! all_bought {
    () => {
        "(SELECT count(*) FROM bought) = cardinality(array_positions($3, 'purchased'))"
    };
}

/// Makes holds, under these additional conditions.
macro_rules! making {
    ($($and:expr),*) => {
        concat!("made AS (
            INSERT INTO reservations (drop_id, id, size, pair_number, user_id, status, price_amount, price_currency,
                                      idempotency_key, admission_id, created_at, expires_at)
            SELECT $4, id, size, pair_number, user_id, 'active', $5, $6, key, admission_id, $1,
                   $1 + make_interval(secs => $7)
            FROM unnest($8, $9, $10, $11, $12, $13) AS given (id, size, pair_number, user_id, key, admission_id)
            WHERE (SELECT is_so FROM expected)", $(" AND ", $and,)* "
            RETURNING id
         )")
    };
}

macro_rules! all_made {
    () => {
        "(SELECT count(*) FROM made) = cardinality($8)"
    };
}

/// Writes everything that a batch changes, or nothing, and then returns no row.
///
/// It writes nothing if the drop has another version than the one the batch was planned on, or was changed by hand
/// without a new version. It takes the drop's lock, again if the transaction has it already. A batch that looked
/// under the lock finds the same version; for one that did not, the version proves that nothing changed since. Then
/// the snapshot is right as well, though it is older than the lock: every change of a drop raises its version in the
/// same transaction.
///
/// `expected`: with `$17` the batch did not look. Its clock may lag by a tenth of a second at most. The buyers it
/// takes for new ones are looked up one by one, as in the looks.
///
/// `moved`: the counters must come to the given values. `bumped`: if less was done than planned, the next version is
/// NULL, which the table refuses. Then nothing is done, even with the COMMIT already on its way.
///
/// `$part` closes and makes holds; `$done` are the conditions on the result.
macro_rules! change {
    ([$($part:expr),*], [$($done:expr),*]) => {
        concat!(
            "WITH locked AS (
                SELECT FROM drops WHERE id = $4 AND stock_version = $15 AND xmin::text = $29 FOR UPDATE
             ), next AS (
                SELECT expires_at FROM reservations WHERE drop_id = $4 AND status = 'active' AND id <> ALL($2)
                ORDER BY expires_at, id LIMIT 1
             ), expected AS MATERIALIZED (
                SELECT CASE WHEN NOT EXISTS (SELECT FROM locked) THEN false
                            WHEN NOT $17 THEN true
                            ELSE clock_timestamp() BETWEEN $1 AND $1 + interval '100 ms'
                                 AND NOT EXISTS (
                                    SELECT FROM unnest($16) AS newcomer (id) CROSS JOIN LATERAL (
                                        SELECT FROM reservations AS r WHERE r.user_id = newcomer.id AND r.drop_id = $4
                                        ORDER BY r.idempotency_key LIMIT 1
                                    ) AS found
                                 )
                       END AS is_so
             ), ", $($part, ", ",)* "moved AS (
                UPDATE drop_sizes AS s SET available = m.available, held = m.held, sold = m.sold, next_pair = m.next_pair
                FROM unnest($19, $20, $21, $22, $23, $25, $26, $27, $28)
                     AS m (size, reserved, purchased, released, expired, available, held, sold, next_pair)
                WHERE s.drop_id = $4 AND s.size = m.size AND (SELECT is_so FROM expected)
                  AND m.available = s.available - m.reserved + m.released + m.expired
                  AND m.held = s.held + m.reserved - m.purchased - m.released - m.expired
                  AND m.sold = s.sold + m.purchased
                RETURNING s.size
             ), bumped AS (
                UPDATE drops
                SET stock_version = CASE
                        WHEN ", $($done, " AND ",)* "(SELECT count(*) FROM moved) = cardinality($19)
                        THEN stock_version + 1 END,
                    cancelled_at = CASE WHEN $14 THEN $1 ELSE cancelled_at END
                WHERE id = $4 AND (SELECT is_so FROM expected) RETURNING stock_version, xmin::text AS writer
             ), event AS (
                INSERT INTO stock_events (drop_id, version, kind, at, sizes, restocked, reserved, purchased, released,
                                          expired, total, available, held, sold)
                SELECT $4, stock_version, CASE WHEN $14 THEN 'cancelled' ELSE 'traded' END, $1, $19,
                       array_fill(0, ARRAY[cardinality($19)]), $20, $21, $22, $23, $24, $25, $26, $27
                FROM bumped
             )
             SELECT stock_version, writer, clock_timestamp(), (SELECT expires_at FROM next) FROM bumped"
        )
    };
}

type SettledTypes = (VersionTypes, Timestamptz, Nullable<Timestamptz>);

statement!(
    /// Inserts run after all closings, because they depend on their count: a released pair can be held again.
    Change -> SettledTypes,
    change!([closing!(), making!(all_closed!())], [all_closed!(), all_bought!(), all_made!()]),
    {
        now: Timestamptz => Timestamp, closings: Array<SqlUuid> => Vec<Uuid>,
        statuses: Array<Text> => Vec<&'static str>, drop_id: SqlUuid => Uuid, amount: Integer => i32,
        currency: Text => String, hold_seconds: Integer => i32, ids: Array<SqlUuid> => Vec<Uuid>,
        sizes: Array<Text> => Vec<String>, pair_numbers: Array<Integer> => Vec<i32>,
        users: Array<SqlUuid> => Vec<Uuid>, keys: Array<Text> => Vec<String>,
        admissions: Array<Nullable<Text>> => Vec<Option<String>>, cancels: Bool => bool,
        version: Integer => i32, newcomers: Array<SqlUuid> => Vec<Uuid>, is_expected: Bool => bool,
        closed_sizes: Array<Text> => Vec<String>, moved_sizes: Array<Text> => Vec<String>,
        reserved: Array<Integer> => Vec<i32>, purchased: Array<Integer> => Vec<i32>,
        released: Array<Integer> => Vec<i32>, expired: Array<Integer> => Vec<i32>,
        total: Array<Integer> => Vec<i32>, available: Array<Integer> => Vec<i32>,
        held: Array<Integer> => Vec<i32>, sold: Array<Integer> => Vec<i32>,
        next_pairs: Array<Integer> => Vec<i32>, writer: Text => String,
    }
);

statement!(
    /// PostgreSQL initialises the part that closes holds for each execution, even if there are none to close: a
    /// quarter of the cost of a lone reserve.
    Reserve(Change) -> SettledTypes, change!([making!()], [all_made!()])
);

statement!(
    Close(Change) -> SettledTypes, change!([closing!()], [all_closed!(), all_bought!()])
);

/// Closes holds and records the purchases among them, makes holds that begin now, of these pairs, and updates the
/// counters, the version and the ledger. `None`: the drop is not as the batch expects, and nothing was done.
///
/// # Errors
/// A database error; also if less was done than planned.
pub(in crate::stock) async fn change(
    mut connection: &AsyncPgConnection,
    drop_id: DropId,
    planned: Planned<'_>,
) -> Result<Option<Settled>> {
    let Planned { look, version, newcomers, plan, closed_sizes, pairs, deltas } = planned;
    let grants = &plan.grants;
    let each = |figure: fn(&SizeDelta) -> i32| deltas.iter().map(figure).collect();
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
        version: version.number,
        writer: version.writer.clone(),
        newcomers: newcomers.unwrap_or_default().iter().map(|user| user.0).collect(),
        is_expected: newcomers.is_some(),
        closed_sizes: closed_sizes.into_iter().map(str::to_owned).collect(),
        moved_sizes: deltas.iter().map(|one| one.size.clone()).collect(),
        reserved: each(|one| one.reserved),
        purchased: each(|one| one.purchased),
        released: each(|one| one.released),
        expired: each(|one| one.expired),
        total: each(|one| one.count.total),
        available: each(|one| one.count.available),
        held: each(|one| one.count.held),
        sold: each(|one| one.count.sold),
        next_pairs: each(|one| one.next_pair),
    };
    let connection = &mut connection;
    type Row = (Version, Timestamp, Option<Timestamp>);
    let row: Option<Row> = match (plan.closings.is_empty(), grants.is_empty()) {
        (true, false) => committed(Reserve(change).load(connection).await?),
        (false, true) => committed(Close(change).load(connection).await?),
        _ => committed(change.load(connection).await?),
    };
    Ok(row.map(|(version, now, next_deadline)| Settled { now, version, next_deadline }))
}
