//! Checks the stock law and the ledger on a live database.
//!
//! Each check is one statement that returns the offending rows; all of them see the same snapshot.

mod watch;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use serde::Serialize;
use uuid::Uuid;

pub use watch::{OpenTransaction, Seen, Watch};

use crate::{db::DbError, ids::DropId};

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct Finding {
    /// The rule.
    #[diesel(sql_type = Text)]
    pub rule: String,
    /// The drop.
    #[diesel(sql_type = SqlUuid)]
    pub drop_id: Uuid,
    /// The size, if the rule is about one.
    #[diesel(sql_type = Nullable<Text>)]
    pub size: Option<String>,
    /// The figures that do not agree.
    #[diesel(sql_type = Text)]
    pub detail: String,
}

/// Each rule with the statement that finds its violations.
const RULES: &[(&str, &str)] = &[
    (
        "total = available + held + sold, none below zero",
        "SELECT drop_id, size,
                format('total %s, available %s, held %s, sold %s', total, available, held, sold) AS detail
         FROM drop_sizes
         WHERE total <> available + held + sold OR least(total, available, held, sold) < 0",
    ),
    (
        "counters = rows",
        "SELECT s.drop_id, s.size, format('held %s, active reservations %s; sold %s, purchased reservations %s, \
                purchases %s; total %s, pairs %s', held, active, sold, purchased, bought, total, pairs) AS detail
         FROM drop_sizes AS s,
         LATERAL (SELECT count(*) FILTER (WHERE status = 'active') AS active,
                         count(*) FILTER (WHERE status = 'purchased') AS purchased
                  FROM reservations AS r WHERE r.drop_id = s.drop_id AND r.size = s.size) AS r,
         LATERAL (SELECT count(*) AS bought FROM purchases AS p WHERE p.drop_id = s.drop_id AND p.size = s.size) AS p,
         LATERAL (SELECT count(*) AS pairs FROM pairs AS n WHERE n.drop_id = s.drop_id AND n.size = s.size) AS n
         WHERE held <> active OR sold <> purchased OR sold <> bought OR total <> pairs",
    ),
    (
        "a live reservation owns a pair of its own",
        "SELECT drop_id, size, format('pair %s has %s owners', pair_number, count(*)) AS detail
         FROM reservations WHERE status IN ('active', 'purchased')
         GROUP BY drop_id, size, pair_number HAVING count(*) > 1",
    ),
    (
        "a purchase is what its reservation was",
        "SELECT p.drop_id, p.size, format('purchase %s', p.reservation_id) AS detail
         FROM purchases AS p JOIN reservations AS r ON r.drop_id = p.drop_id AND r.id = p.reservation_id
         WHERE (p.size, p.pair_number, p.user_id, p.price_amount, p.price_currency, p.purchased_at)
               IS DISTINCT FROM (r.size, r.pair_number, r.user_id, r.price_amount, r.price_currency, r.closed_at)
            OR r.status <> 'purchased'",
    ),
    (
        "no purchase from the deadline on, no expiry before it",
        "SELECT drop_id, size, format('reservation %s: %s at %s, deadline %s', id, status, closed_at, expires_at)
                AS detail
         FROM reservations
         WHERE (status = 'purchased' AND closed_at >= expires_at) OR (status = 'expired' AND closed_at < expires_at)",
    ),
    (
        "nobody has more pairs than one may",
        "SELECT r.drop_id, NULL AS size, format('buyer %s has %s of %s', user_id, count(*), purchase_limit) AS detail
         FROM reservations AS r JOIN drops AS d ON d.id = r.drop_id WHERE status IN ('active', 'purchased')
         GROUP BY r.drop_id, user_id, purchase_limit HAVING count(*) > purchase_limit",
    ),
    (
        "a cancelled drop has no active holds",
        "SELECT drop_id, size, format('reservation %s', r.id) AS detail
         FROM reservations AS r JOIN drops AS d ON d.id = r.drop_id
         WHERE cancelled_at IS NOT NULL AND status = 'active'",
    ),
    (
        "the ledger has every version once",
        "SELECT d.id AS drop_id, NULL AS size,
                format('version %s, %s events up to %s', stock_version, count(e.version), max(e.version)) AS detail
         FROM drops AS d LEFT JOIN stock_events AS e ON e.drop_id = d.id
         GROUP BY d.id, d.stock_version HAVING count(e.version) <> stock_version OR max(e.version) IS DISTINCT FROM stock_version",
    ),
    (
        "the ledger adds up to the counters",
        "WITH line AS (
            SELECT e.drop_id, l.* FROM stock_events AS e,
            LATERAL unnest(e.sizes, e.restocked, e.reserved, e.purchased, e.released, e.expired)
                    AS l (size, restocked, reserved, purchased, released, expired)
         ), sum AS (
            SELECT drop_id, size, sum(restocked) AS total,
                   sum(restocked - reserved + released + expired) AS available,
                   sum(reserved - purchased - released - expired) AS held, sum(purchased) AS sold
            FROM line GROUP BY drop_id, size
         )
         SELECT coalesce(s.drop_id, sum.drop_id) AS drop_id, coalesce(s.size, sum.size) AS size,
                format('counters %s/%s/%s/%s, ledger %s/%s/%s/%s', s.total, s.available, s.held, s.sold, sum.total,
                       sum.available, sum.held, sum.sold) AS detail
         FROM drop_sizes AS s FULL JOIN sum ON sum.drop_id = s.drop_id AND sum.size = s.size
         WHERE (s.total, s.available, s.held, s.sold)
               IS DISTINCT FROM (sum.total, sum.available, sum.held, sum.sold)",
    ),
    (
        "each event's counters follow from the one before",
        "WITH line AS (
            SELECT e.drop_id, e.version, l.*,
                   sum(l.restocked) OVER w AS t,
                   sum(l.restocked - l.reserved + l.released + l.expired) OVER w AS a,
                   sum(l.reserved - l.purchased - l.released - l.expired) OVER w AS h, sum(l.purchased) OVER w AS s
            FROM stock_events AS e,
            LATERAL unnest(e.sizes, e.restocked, e.reserved, e.purchased, e.released, e.expired, e.total, e.available,
                           e.held, e.sold)
                    AS l (size, restocked, reserved, purchased, released, expired, total, available, held, sold)
            WINDOW w AS (PARTITION BY e.drop_id, l.size ORDER BY e.version)
         )
         SELECT drop_id, size, format('version %s says %s/%s/%s/%s, its changes give %s/%s/%s/%s', version, total,
                                      available, held, sold, t, a, h, s) AS detail
         FROM line WHERE (total, available, held, sold) IS DISTINCT FROM (t, a, h, s)",
    ),
];

/// Number of rules.
pub const RULE_COUNT: usize = RULES.len();

/// Stock totals over all active drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct Totals {
    /// Active drops.
    #[diesel(sql_type = BigInt)]
    pub drops: i64,
    /// Free pairs.
    #[diesel(sql_type = BigInt)]
    pub available: i64,
    /// Held pairs.
    #[diesel(sql_type = BigInt)]
    pub held: i64,
    /// Sold pairs.
    #[diesel(sql_type = BigInt)]
    pub sold: i64,
}

/// Returns the stock totals.
///
/// # Errors
/// A database error.
pub async fn totals(connection: &mut AsyncPgConnection) -> Result<Totals, DbError> {
    let select = "SELECT count(DISTINCT d.id) AS drops, coalesce(sum(available), 0)::bigint AS available,
                         coalesce(sum(held), 0)::bigint AS held, coalesce(sum(sold), 0)::bigint AS sold
                  FROM drops AS d JOIN drop_sizes AS s ON s.drop_id = d.id
                  WHERE cancelled_at IS NULL AND starts_at <= clock_timestamp()
                    AND (ends_at IS NULL OR ends_at > clock_timestamp())";
    Ok(diesel::sql_query(select).get_result(connection).await?)
}

/// Checks every rule on one snapshot. Returns nothing if all is well.
///
/// # Errors
/// A database error.
pub async fn audit(connection: &mut AsyncPgConnection) -> Result<Vec<Finding>, DbError> {
    let mut transaction = connection.build_transaction().repeatable_read().read_only();
    transaction.run(async |connection| find(connection, None).await).await
}

/// Checks every rule in the connection's transaction; only for these drops, if they are given.
///
/// # Errors
/// A database error.
pub async fn find(
    connection: &mut AsyncPgConnection,
    drops: Option<&[DropId]>,
) -> Result<Vec<Finding>, DbError> {
    let narrowed = match drops {
        None => String::new(),
        Some([]) => return Ok(Vec::new()),
        Some(drops) => narrowed(drops),
    };
    let mut findings = Vec::new();
    for (rule, find) in RULES {
        let rule = rule.replace('\'', "''");
        let find = format!("{narrowed}SELECT '{rule}' AS rule, found.* FROM ({find}) AS found LIMIT 100");
        findings.extend(diesel::sql_query(find).load::<Finding>(connection).await?);
    }
    Ok(findings)
}

/// Returns a `WITH` clause that restricts the tables of the following statement to these drops. It is inlined, so
/// that the indexes serve.
fn narrowed(drops: &[DropId]) -> String {
    let ids: Vec<String> = drops.iter().map(|id| format!("'{}'", id.0)).collect();
    let ids = ids.join(", ");
    let tables = [
        ("drops", "id"),
        ("drop_sizes", "drop_id"),
        ("pairs", "drop_id"),
        ("reservations", "drop_id"),
        ("purchases", "drop_id"),
        ("stock_events", "drop_id"),
    ];
    let tables = tables.map(|(table, column)| {
        format!("{table} AS NOT MATERIALIZED (SELECT * FROM {table} WHERE {column} IN ({ids}))")
    });
    format!("WITH {} ", tables.join(", "))
}
