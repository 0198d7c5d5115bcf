//! Reads reservations and purchases: by id, of a drop, of a person.
//!
//! Every statement here reads a hold past its deadline as expired, released or not.

mod queries;

use std::collections::HashMap;

use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use tokio::try_join;
use uuid::Uuid;

use super::{Purchase, Reservation, ReservationStatus, Stock, queries::ReservationRow};
use crate::{
    clock::Timestamp,
    db::{DbError, retried},
    ids::{DropId, ReservationId, UserId},
    page::{Cursor, Page},
};
use queries::{
    CountActive, CountOfPerson, ListActive, ListNewestPurchases, ListOfPerson, ListPurchasesByIds,
    ListPurchasesOfPerson, ListReservationsByIds, PurchaseRow,
};

/// Selects a page of a drop's list. One statement reads the pages of many drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageKey {
    /// The drop.
    pub drop_id: DropId,
    /// Maximum number of entries.
    pub first: usize,
    /// The position after which the page begins.
    pub after: Option<Cursor>,
}

/// Selects a person's reservations, newest first.
#[derive(Clone, Debug)]
pub struct ListReservations {
    /// The person.
    pub user: UserId,
    /// Maximum number of entries.
    pub first: usize,
    /// The position after which the page begins.
    pub after: Option<Cursor>,
    /// Only those of this drop.
    pub drop_id: Option<DropId>,
    /// Only those with one of these statuses.
    pub statuses: Option<Vec<ReservationStatus>>,
}

/// One page per key.
type Pages<T> = Result<HashMap<PageKey, Page<T>>, DbError>;

type KeyColumns = (Vec<Uuid>, Vec<i64>, Vec<Option<Timestamp>>, Vec<Option<Uuid>>);

/// Returns the keys of many pages as columns.
fn columns(keys: &[PageKey]) -> KeyColumns {
    (
        keys.iter().map(|key| key.drop_id.0).collect(),
        keys.iter().map(|key| limit(key.first)).collect(),
        keys.iter().map(|key| key.after.map(|cursor| cursor.at)).collect(),
        keys.iter().map(|key| key.after.map(|cursor| cursor.id)).collect(),
    )
}

/// Returns one more than `first`, to find out whether more follow.
fn limit(first: usize) -> i64 {
    i64::try_from(first).unwrap_or(i64::MAX).saturating_add(1)
}

/// Groups rows into pages by the position of their key; a key without rows gets an empty page.
fn pages<T>(keys: &[PageKey], rows: impl Iterator<Item = (i64, T)>) -> HashMap<PageKey, Page<T>> {
    let mut found: Vec<Vec<T>> = keys.iter().map(|_| Vec::new()).collect();
    for (place, row) in rows {
        if let Some(page) = usize::try_from(place - 1).ok().and_then(|place| found.get_mut(place)) {
            page.push(row);
        }
    }
    keys.iter().zip(found).map(|(key, rows)| (*key, Page::of(rows, key.first))).collect()
}

fn split(ids: &[ReservationId]) -> (Vec<Uuid>, Vec<Uuid>) {
    ids.iter().map(|id| (id.drop_id.0, id.hold_id.0)).unzip()
}

fn status_names(list: &ListReservations) -> Option<Vec<&'static str>> {
    list.statuses.as_ref().map(|statuses| statuses.iter().map(|status| status.name()).collect())
}

async fn list_active(mut connection: &AsyncPgConnection, keys: &[PageKey]) -> Pages<Reservation> {
    let (drops, firsts, after_at, after_id) = columns(keys);
    let list = ListActive { drops, firsts, after_at, after_id };
    let rows: Vec<(i64, DropId, ReservationRow)> = list.load(&mut connection).await?;
    let rows = rows.into_iter().map(|(place, drop_id, row)| Ok((place, row.of_drop(drop_id)?)));
    Ok(pages(keys, rows.collect::<Result<Vec<_>, DbError>>()?.into_iter()))
}

/// Lists purchases, newest first; ignores `after`.
async fn list_newest_purchases(mut connection: &AsyncPgConnection, keys: &[PageKey]) -> Pages<Purchase> {
    let (drops, firsts, ..) = columns(keys);
    let list = ListNewestPurchases { drops, firsts };
    let rows: Vec<(i64, PurchaseRow)> = list.load(&mut connection).await?;
    Ok(pages(keys, rows.into_iter().map(|(place, row)| (place, row.into()))))
}

/// Counts the active holds of these drops; unknown drops are left out.
pub(super) async fn count_active(
    mut connection: &AsyncPgConnection,
    drops: &[DropId],
) -> Result<HashMap<DropId, i64>, DbError> {
    if drops.is_empty() {
        return Ok(HashMap::new());
    }
    let count = CountActive { drops: drops.iter().map(|id| id.0).collect() };
    let rows: Vec<(DropId, i64)> = count.load(&mut connection).await?;
    Ok(rows.into_iter().collect())
}

/// Reads active holds and purchases of drops, in one round trip.
pub(super) async fn list_first(
    connection: &AsyncPgConnection,
    keys: &[PageKey],
) -> Result<(HashMap<PageKey, Page<Reservation>>, HashMap<PageKey, Page<Purchase>>), DbError> {
    try_join!(list_active(connection, keys), list_newest_purchases(connection, keys))
}

impl Stock {
    /// Returns active holds of drops, earliest deadline first, one page per key.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_active(&self, keys: &[PageKey]) -> Pages<Reservation> {
        retried(|| self.db.run(async |connection| list_active(connection, keys).await)).await
    }

    /// Returns these reservations, in no particular order; unknown ids are left out.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_reservations(&self, ids: &[ReservationId]) -> Result<Vec<Reservation>, DbError> {
        let (drops, holds) = split(ids);
        let list = ListReservationsByIds { drops, holds };
        let rows: Vec<(DropId, ReservationRow)> =
            retried(|| self.db.run(async |connection| Ok((&list).load(connection).await?))).await?;
        rows.into_iter().map(|(drop_id, row)| row.of_drop(drop_id)).collect()
    }

    /// Returns these purchases, in no particular order; unknown ids are left out.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_purchases(&self, ids: &[ReservationId]) -> Result<Vec<Purchase>, DbError> {
        let (drops, holds) = split(ids);
        let list = ListPurchasesByIds { drops, holds };
        let rows: Vec<PurchaseRow> =
            retried(|| self.db.run(async |connection| Ok((&list).load(connection).await?))).await?;
        Ok(rows.into_iter().map(Purchase::from).collect())
    }

    /// Returns a page of a person's reservations.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_own_reservations(&self, list: &ListReservations) -> Result<Page<Reservation>, DbError> {
        let statement = ListOfPerson {
            user: list.user.0,
            drop_id: list.drop_id.map(|id| id.0),
            statuses: status_names(list),
            after_at: list.after.map(|cursor| cursor.at),
            after_id: list.after.map(|cursor| cursor.id),
            limit: limit(list.first),
        };
        let rows: Vec<(DropId, ReservationRow)> =
            retried(|| self.db.run(async |connection| Ok((&statement).load(connection).await?))).await?;
        let found = rows.into_iter().map(|(drop_id, row)| row.of_drop(drop_id)).collect::<Result<_, _>>()?;
        Ok(Page::of(found, list.first))
    }

    /// Counts the reservations of the whole list.
    ///
    /// # Errors
    /// A database error.
    pub async fn count_own_reservations(&self, list: &ListReservations) -> Result<i64, DbError> {
        let count = CountOfPerson {
            user: list.user.0,
            drop_id: list.drop_id.map(|id| id.0),
            statuses: status_names(list),
        };
        retried(|| self.db.run(async |connection| Ok((&count).get_result(connection).await?))).await
    }

    /// Returns a page of a person's purchases, newest first.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_own_purchases(
        &self,
        user: UserId,
        drop_id: Option<DropId>,
        first: usize,
        after: Option<Cursor>,
    ) -> Result<Page<Purchase>, DbError> {
        let list = ListPurchasesOfPerson {
            user: user.0,
            drop_id: drop_id.map(|id| id.0),
            after_at: after.map(|cursor| cursor.at),
            after_id: after.map(|cursor| cursor.id),
            limit: limit(first),
        };
        let rows: Vec<PurchaseRow> =
            retried(|| self.db.run(async |connection| Ok((&list).load(connection).await?))).await?;
        Ok(Page::of(rows.into_iter().map(Purchase::from).collect(), first))
    }
}
