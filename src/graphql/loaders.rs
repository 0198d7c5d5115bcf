//! Loaders: one statement reads what many objects of one answer need.
//!
//! They are created per request and have no cache: a loader that outlives a request shows users each other's data. The
//! public data of open drops is in memory, valid by version, and needs no load.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use async_graphql::dataloader::{DataLoader, Loader};

use super::{drop::SneakerDrop, error::ApiError, request::Freshness, rounds::Queue};
use crate::{
    accounts::PublicPerson,
    app::App,
    db::DbError,
    drops::{DropState, ListDrops},
    ids::{DropId, ReservationId, UserId},
    page::{Cursor, Page},
    stock::{FirstPages, PageKey, Purchase, Reservation},
};

type Loaded<K, V> = Result<HashMap<K, V>, ApiError>;

/// All loaders of one request.
pub(super) struct Loaders {
    app: App,
    source: DataLoader<Source>,
    freshness: Freshness,
}

struct Source(App);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ActivePage(PageKey);
/// The first pages of a drop that was seen at this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FirstPagesAt(DropId, i32);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PurchaseOf(ReservationId);

impl Loaders {
    /// Puts loads into `loads`, whose rounds decide when they run.
    pub(super) fn new(app: &App, loads: &Queue, freshness: &Freshness) -> Self {
        let loads = loads.clone();
        let source = DataLoader::new(Source(app.clone()), move |load| loads.push(load)).delay(Duration::ZERO);
        Self { app: app.clone(), source, freshness: freshness.clone() }
    }

    pub(super) async fn drops(&self, list: &ListDrops) -> Result<Page<Arc<DropState>>, ApiError> {
        if let Some(page) = self.app.feed.list(list) {
            return Ok(page);
        }
        self.freshness.only_now();
        let Page { items, has_next } = self.app.drops.list(list).await?;
        Ok(Page { items: items.into_iter().map(Arc::new).collect(), has_next })
    }

    pub(super) async fn drop(&self, id: DropId) -> Result<Option<SneakerDrop>, ApiError> {
        if let Some(state) = self.app.feed.find(id) {
            return Ok(Some(SneakerDrop::now(state)));
        }
        self.freshness.only_now();
        Ok(self.source.load_one(id).await?.map(SneakerDrop::new))
    }

    pub(super) async fn user(&self, id: UserId) -> Result<Option<PublicPerson>, ApiError> {
        if let Some((person, until)) = self.app.accounts.kept_public(id) {
            self.freshness.until(until);
            return Ok(Some(person));
        }
        let person = self.source.load_one(id).await?;
        match self.app.accounts.kept_public(id) {
            Some((_, until)) => self.freshness.until(until),
            None => self.freshness.only_now(),
        }
        Ok(person)
    }

    pub(super) async fn reservation(&self, id: ReservationId) -> Result<Option<Reservation>, ApiError> {
        self.freshness.only_now();
        self.source.load_one(id).await
    }

    pub(super) async fn purchase(&self, id: ReservationId) -> Result<Option<Purchase>, ApiError> {
        self.freshness.only_now();
        self.source.load_one(PurchaseOf(id)).await
    }

    /// Returns live holds of a drop.
    pub(super) async fn active(
        &self,
        state: &DropState,
        first: usize,
        after: Option<Cursor>,
    ) -> Result<Page<Reservation>, ApiError> {
        if after.is_none() {
            return Ok(self
                .first_pages(state)
                .await?
                .map_or_else(|| nothing(first), |pages| pages.active(first)));
        }
        self.freshness.only_now();
        let key = PageKey { drop_id: state.id, first, after };
        Ok(self.source.load_one(ActivePage(key)).await?.unwrap_or_else(|| nothing(first)))
    }

    /// Returns the number of live holds of a drop.
    pub(super) async fn active_count(&self, state: &DropState) -> Result<i64, ApiError> {
        Ok(self.first_pages(state).await?.map_or(0, |pages| pages.active_count()))
    }

    /// Returns the newest purchases of a drop.
    pub(super) async fn buyers(&self, state: &DropState, first: usize) -> Result<Page<Purchase>, ApiError> {
        Ok(self.first_pages(state).await?.map_or_else(|| nothing(first), |pages| pages.buyers(first)))
    }

    async fn first_pages(&self, state: &DropState) -> Result<Option<Arc<FirstPages>>, ApiError> {
        let pages = match self.app.stock.kept_first_pages(state) {
            Some(pages) => Some(pages),
            None => self.source.load_one(FirstPagesAt(state.id, state.version)).await?,
        };
        match &pages {
            Some(pages) if pages.are_of(state) => {
                pages.lapse().into_iter().for_each(|lapse| self.freshness.until(state.read.moment_of(lapse)));
            }
            _ => self.freshness.only_now(),
        }
        Ok(pages)
    }
}

fn nothing<T>(first: usize) -> Page<T> {
    Page::of(Vec::new(), first)
}

fn by_key<K: Eq + Hash, V>(found: Result<Vec<V>, DbError>, key: impl Fn(&V) -> K) -> Loaded<K, V> {
    Ok(found?.into_iter().map(|value| (key(&value), value)).collect())
}

impl Loader<DropId> for Source {
    type Value = Arc<DropState>;
    type Error = ApiError;

    async fn load(&self, keys: &[DropId]) -> Loaded<DropId, Self::Value> {
        let found = self.0.drops.list_by_ids(keys).await;
        by_key(found.map(|states| states.into_iter().map(Arc::new).collect()), |state: &Arc<DropState>| {
            state.id
        })
    }
}

impl Loader<UserId> for Source {
    type Value = PublicPerson;
    type Error = ApiError;

    async fn load(&self, keys: &[UserId]) -> Loaded<UserId, Self::Value> {
        by_key(self.0.accounts.list_public(keys).await, |person| person.id)
    }
}

impl Loader<ReservationId> for Source {
    type Value = Reservation;
    type Error = ApiError;

    async fn load(&self, keys: &[ReservationId]) -> Loaded<ReservationId, Self::Value> {
        by_key(self.0.stock.list_reservations(keys).await, |reservation| reservation.id)
    }
}

impl Loader<PurchaseOf> for Source {
    type Value = Purchase;
    type Error = ApiError;

    async fn load(&self, keys: &[PurchaseOf]) -> Loaded<PurchaseOf, Self::Value> {
        let ids: Vec<ReservationId> = keys.iter().map(|key| key.0).collect();
        by_key(self.0.stock.list_purchases(&ids).await, |purchase| PurchaseOf(purchase.reservation_id))
    }
}

impl Loader<ActivePage> for Source {
    type Value = Page<Reservation>;
    type Error = ApiError;

    async fn load(&self, keys: &[ActivePage]) -> Loaded<ActivePage, Self::Value> {
        let keys: Vec<PageKey> = keys.iter().map(|key| key.0).collect();
        Ok(self
            .0
            .stock
            .list_active(&keys)
            .await?
            .into_iter()
            .map(|(key, page)| (ActivePage(key), page))
            .collect())
    }
}

impl Loader<FirstPagesAt> for Source {
    type Value = Arc<FirstPages>;
    type Error = ApiError;

    async fn load(&self, keys: &[FirstPagesAt]) -> Loaded<FirstPagesAt, Self::Value> {
        let drops: Vec<(DropId, i32)> =
            keys.iter().map(|FirstPagesAt(id, version)| (*id, *version)).collect();
        let pages = self.0.stock.load_first_pages(&drops).await?;
        let of = |key: &FirstPagesAt| Some((*key, pages.get(&key.0)?.clone()));
        Ok(keys.iter().filter_map(of).collect())
    }
}
