//! The statements of the catalogue.

use std::collections::HashMap;

use diesel::{
    OptionalExtension as _, Queryable,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use uuid::Uuid;

use super::{
    Catalogue, DropState, DropStatus, ListDrops, Money, SizeStock, StockCount, VersionAt, Versions,
    rules::{CheckedDrop, Intent},
};
use crate::{
    clock::{ClockReading, Timestamp},
    db::{Connection, DbError, LONG_STATEMENT, statement},
    ids::DropId,
};

type Result<T> = std::result::Result<T, DbError>;

/// The columns of [`CatalogueRow`], from `drops`.
macro_rules! catalogue_columns {
    () => {
        "name, description, image_url, price_amount, price_currency, starts_at, ends_at, hold_seconds, purchase_limit, \
         admission_required, cancelled_at, created_at"
    };
}

pub(crate) use catalogue_columns;

pub(crate) type CatalogueTypes = (
    Text,
    Nullable<Text>,
    Nullable<Text>,
    Integer,
    Text,
    Timestamptz,
    Nullable<Timestamptz>,
    Integer,
    Integer,
    Bool,
    Nullable<Timestamptz>,
    Timestamptz,
);

/// A drop without its stock.
#[derive(Debug, Queryable)]
pub(crate) struct CatalogueRow {
    name: String,
    description: Option<String>,
    image_url: Option<String>,
    price_amount: i32,
    price_currency: String,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    hold_seconds: i32,
    purchase_limit: i32,
    admission_required: bool,
    cancelled_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<CatalogueRow> for Catalogue {
    fn from(row: CatalogueRow) -> Self {
        Self {
            name: row.name,
            description: row.description,
            image_url: row.image_url,
            price: Money { amount: row.price_amount, currency: row.price_currency },
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            hold_seconds: row.hold_seconds,
            purchase_limit: row.purchase_limit,
            admission_required: row.admission_required,
            cancelled_at: row.cancelled_at,
            created_at: row.created_at,
        }
    }
}

/// The columns of [`StateRow`], from `drops AS d` and `drop_sizes AS s`.
macro_rules! state_columns {
    () => {
        concat!(
            "d.id, ",
            catalogue_columns!(),
            ", d.stock_version, s.size, s.total, s.available, s.held, s.sold, statement_timestamp() "
        )
    };
}

type StateTypes = (SqlUuid, CatalogueTypes, Integer, Text, Integer, Integer, Integer, Integer, Timestamptz);

/// One size of a drop, with the drop.
#[derive(Debug, Queryable)]
struct StateRow {
    id: DropId,
    catalogue: CatalogueRow,
    version: i32,
    size: String,
    total: i32,
    available: i32,
    held: i32,
    sold: i32,
    now: Timestamp,
}

/// Assembles drops from the rows of their sizes, which come in order, those of one drop in a row.
fn assemble(rows: Vec<StateRow>) -> Vec<DropState> {
    let mut states: Vec<DropState> = Vec::new();
    let mut places: HashMap<DropId, usize> = HashMap::new();
    for row in rows {
        let count = StockCount { total: row.total, available: row.available, held: row.held, sold: row.sold };
        let size = SizeStock { size: row.size, count };
        if let Some(state) = places.get(&row.id).and_then(|place| states.get_mut(*place)) {
            state.sizes.push(size);
            continue;
        }
        places.insert(row.id, states.len());
        states.push(DropState {
            id: row.id,
            catalogue: row.catalogue.into(),
            sizes: vec![size],
            version: row.version,
            read: ClockReading::arrived_now(row.now),
        });
    }
    states
}

statement!(
    ListByIds -> StateTypes,
    concat!(
        "SELECT ", state_columns!(),
        "FROM drops AS d JOIN drop_sizes AS s ON s.drop_id = d.id WHERE d.id = ANY($1) ORDER BY d.id, s.position"
    ),
    { ids: Array<SqlUuid> => Vec<Uuid> }
);

pub(super) async fn list_by_ids(connection: &mut Connection, ids: &[DropId]) -> Result<Vec<DropState>> {
    let rows = ListByIds { ids: ids.iter().map(|id| id.0).collect() }.load(connection).await?;
    Ok(assemble(rows))
}

/// Selects and reads the page in one statement, so that its drops are of one snapshot.
macro_rules! list_page {
    ($compare:literal, $order:literal) => {
        concat!(
            "WITH page AS (
                SELECT d.id FROM drops AS d
                WHERE CASE WHEN d.cancelled_at IS NOT NULL THEN 'cancelled'
                           WHEN d.ends_at <= statement_timestamp() THEN 'ended'
                           WHEN d.starts_at > statement_timestamp() THEN 'scheduled'
                           WHEN EXISTS (SELECT FROM drop_sizes AS s WHERE s.drop_id = d.id AND s.sold < s.total)
                           THEN 'live' ELSE 'sold_out' END = ANY($1)
                  AND ($2 IS NULL OR (d.starts_at, d.id) ",
            $compare,
            " ($2, $3))
                ORDER BY d.starts_at ",
            $order,
            ", d.id ",
            $order,
            " LIMIT $4
             ) SELECT ",
            state_columns!(),
            "FROM page JOIN drops AS d ON d.id = page.id JOIN drop_sizes AS s ON s.drop_id = d.id
             ORDER BY d.starts_at ",
            $order,
            ", d.id ",
            $order,
            ", s.position"
        )
    };
}

statement!(
    ListNewestFirst -> StateTypes,
    list_page!("<", "DESC"),
    {
        statuses: Array<Text> => Vec<&'static str>, after_at: Nullable<Timestamptz> => Option<Timestamp>,
        after_id: Nullable<SqlUuid> => Option<Uuid>, limit: BigInt => i64,
    }
);

statement!(
    ListOldestFirst -> StateTypes,
    list_page!(">", "ASC"),
    {
        statuses: Array<Text> => Vec<&'static str>, after_at: Nullable<Timestamptz> => Option<Timestamp>,
        after_id: Nullable<SqlUuid> => Option<Uuid>, limit: BigInt => i64,
    }
);

/// Returns up to one more than `first`, to find out whether more follow.
pub(super) async fn list(connection: &mut Connection, list: &ListDrops) -> Result<Vec<DropState>> {
    let statuses = list.statuses.iter().map(|status| status_name(*status)).collect();
    let (after_at, after_id) = (list.after.map(|cursor| cursor.at), list.after.map(|cursor| cursor.id));
    let limit = i64::try_from(list.first).unwrap_or(i64::MAX).saturating_add(1);
    let rows = match list.reverse {
        false => ListNewestFirst { statuses, after_at, after_id, limit }.load(connection).await?,
        true => ListOldestFirst { statuses, after_at, after_id, limit }.load(connection).await?,
    };
    Ok(assemble(rows))
}

fn status_name(status: DropStatus) -> &'static str {
    match status {
        DropStatus::Cancelled => "cancelled",
        DropStatus::Ended => "ended",
        DropStatus::Scheduled => "scheduled",
        DropStatus::SoldOut => "sold_out",
        DropStatus::Live => "live",
    }
}

statement!(
    ListVersions -> (SqlUuid, Integer, Bool, Timestamptz),
    "SELECT id, stock_version, is_open, statement_timestamp()
     FROM drops, LATERAL (
        SELECT cancelled_at IS NULL AND (ends_at IS NULL OR ends_at > statement_timestamp())
     ) AS open (is_open)
     WHERE is_open OR id = ANY($1)",
    { ids: Array<SqlUuid> => Vec<Uuid> }
);

pub(super) async fn list_versions(connection: &mut Connection, ids: &[DropId]) -> Result<Versions> {
    let list = ListVersions { ids: ids.iter().map(|id| id.0).collect() };
    let rows: Vec<(DropId, i32, bool, Timestamp)> = list.load(connection).await?;
    Ok(Versions {
        clock: rows.as_slice().first().map(|(.., now)| ClockReading::arrived_now(*now)),
        drops: rows.into_iter().map(|(id, version, is_open, _)| VersionAt { id, version, is_open }).collect(),
    })
}

statement!(FindNow -> Timestamptz, "SELECT statement_timestamp()", {});

pub(super) async fn find_now(connection: &mut Connection) -> Result<Timestamp> {
    Ok(FindNow {}.get_result(connection).await?)
}

statement!(
    InsertDrop -> SqlUuid,
    "WITH times AS (
        SELECT coalesce($7, statement_timestamp()) AS starts_at
        WHERE $8 IS NULL OR $8 > greatest(coalesce($7, statement_timestamp()), statement_timestamp())
     ), claimed AS (
        INSERT INTO drop_keys (created_by, idempotency_key, drop_id)
        SELECT $14, $15, $1 FROM times WHERE $15 IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING drop_id
     ), new_drop AS (
        INSERT INTO drops (id, name, description, image_url, price_amount, price_currency, starts_at, ends_at,
                           hold_seconds, purchase_limit, admission_required, stock_version, created_at)
        SELECT $1, $2, $3, $4, $5, $6, starts_at, $8, $9, $10, $13, 1, statement_timestamp()
        FROM times WHERE $15 IS NULL OR EXISTS (SELECT FROM claimed)
        RETURNING id, created_at
     ), opening AS (
        SELECT id, created_at, size, stock, position::integer
        FROM new_drop, unnest($11, $12) WITH ORDINALITY AS given (size, stock, position)
     ), new_sizes AS (
        INSERT INTO drop_sizes (drop_id, size, position, total, available, held, sold, next_pair)
        SELECT id, size, position, stock, stock, 0, 0, 1 FROM opening
     ), new_pairs AS (
        INSERT INTO pairs (drop_id, size, pair_number)
        SELECT id, size, generate_series(1, stock) FROM opening
     ), event AS (
        INSERT INTO stock_events (drop_id, version, kind, at, sizes, restocked, reserved, purchased, released,
                                  expired, total, available, held, sold)
        SELECT id, 1, 'created', created_at, array_agg(size), array_agg(stock), array_agg(0), array_agg(0),
               array_agg(0), array_agg(0), array_agg(stock), array_agg(stock), array_agg(0), array_agg(0)
        FROM opening GROUP BY id, created_at
     )
     SELECT id FROM new_drop",
    {
        id: SqlUuid => Uuid, name: Text => String, description: Nullable<Text> => Option<String>,
        image_url: Nullable<Text> => Option<String>, amount: Integer => i32, currency: Text => String,
        starts_at: Nullable<Timestamptz> => Option<Timestamp>,
        ends_at: Nullable<Timestamptz> => Option<Timestamp>, hold_seconds: Integer => i32,
        purchase_limit: Integer => i32, sizes: Array<Text> => Vec<String>, stocks: Array<Integer> => Vec<i32>,
        admission_required: Bool => bool, created_by: Nullable<SqlUuid> => Option<Uuid>,
        key: Nullable<Text> => Option<String>,
    }
);

/// Inserts the drop, its sizes, its pairs and version 1 of its ledger. Returns `false` if it would end too early, or
/// if its key already belongs to a drop.
pub(super) async fn insert_drop(connection: &mut Connection, id: DropId, drop: &CheckedDrop) -> Result<bool> {
    let CheckedDrop { new, sizes } = drop;
    let new = new.clone();
    let (sizes, stocks) = sizes.iter().map(|size| (size.size.clone(), size.stock)).unzip();
    let insert = InsertDrop {
        id: id.0,
        name: new.name,
        description: new.description,
        image_url: new.image_url,
        amount: new.price.amount,
        currency: new.price.currency,
        starts_at: new.starts_at,
        ends_at: new.ends_at,
        hold_seconds: new.hold_seconds,
        purchase_limit: new.purchase_limit,
        sizes,
        stocks,
        admission_required: new.admission_required,
        created_by: new.intent.as_ref().map(|intent| intent.user.0),
        key: new.intent.map(|intent| intent.key),
    };
    // A hundred thousand pairs take seconds.
    connection
        .transaction(async |connection| {
            connection.batch_execute(LONG_STATEMENT).await?;
            let made: Vec<Uuid> = insert.load(connection).await?;
            Ok(!made.is_empty())
        })
        .await
}

statement!(
    FindByKey -> SqlUuid,
    "SELECT drop_id FROM drop_keys WHERE created_by = $1 AND idempotency_key = $2",
    { created_by: SqlUuid => Uuid, key: Text => String }
);

/// Returns the drop that this person created with this key.
pub(super) async fn find_by_key(connection: &mut Connection, intent: &Intent) -> Result<Option<DropId>> {
    let find = FindByKey { created_by: intent.user.0, key: intent.key.clone() };
    Ok(find.get_result(connection).await.optional()?)
}
