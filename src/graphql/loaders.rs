//! Loaders: what many objects of one answer need is read by one statement.
//!
//! Made for each request and without a cache: a loader that outlives a request shows people each other's data, and
//! one that outlives an event of a subscription shows yesterday's stock.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use async_graphql::dataloader::{DataLoader, Loader};

use super::{error::ApiError, rounds::Queue};
use crate::{
    accounts::PublicPerson,
    app::App,
    db::DbError,
    drops::DropState,
    ids::{DropId, Page, ReservationId, UserId},
    stock::{PageKey, Purchase, Reservation},
};

type Loaded<K, V> = Result<HashMap<K, V>, ApiError>;

/// All loaders of one request.
pub(super) struct Loaders {
    app: DataLoader<Source>,
}

struct Source(App);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ActivePage(PageKey);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ActiveCount(DropId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BuyersPage(PageKey);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PurchaseOf(ReservationId);

impl Loaders {
    /// Loads are put into `loads`, whose rounds decide when they run.
    pub(super) fn new(app: &App, loads: &Queue) -> Self {
        let loads = loads.clone();
        let loader = DataLoader::new(Source(app.clone()), move |load| loads.push(load));
        Self { app: loader.delay(Duration::ZERO) }
    }

    pub(super) async fn drop(&self, id: DropId) -> Result<Option<Arc<DropState>>, ApiError> {
        self.app.load_one(id).await
    }

    pub(super) async fn user(&self, id: UserId) -> Result<Option<PublicPerson>, ApiError> {
        self.app.load_one(id).await
    }

    pub(super) async fn reservation(&self, id: ReservationId) -> Result<Option<Reservation>, ApiError> {
        self.app.load_one(id).await
    }

    pub(super) async fn purchase(&self, id: ReservationId) -> Result<Option<Purchase>, ApiError> {
        self.app.load_one(PurchaseOf(id)).await
    }

    /// Live holds of a drop.
    pub(super) async fn active(&self, key: PageKey) -> Result<Page<Reservation>, ApiError> {
        Ok(self.app.load_one(ActivePage(key)).await?.unwrap_or_else(|| Page::of(Vec::new(), key.first)))
    }

    /// How many live holds a drop has.
    pub(super) async fn active_count(&self, id: DropId) -> Result<i64, ApiError> {
        Ok(self.app.load_one(ActiveCount(id)).await?.unwrap_or_default())
    }

    /// The newest purchases of a drop.
    pub(super) async fn buyers(&self, key: PageKey) -> Result<Page<Purchase>, ApiError> {
        Ok(self.app.load_one(BuyersPage(key)).await?.unwrap_or_else(|| Page::of(Vec::new(), key.first)))
    }
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

impl Loader<ActiveCount> for Source {
    type Value = i64;
    type Error = ApiError;

    async fn load(&self, keys: &[ActiveCount]) -> Loaded<ActiveCount, Self::Value> {
        let ids: Vec<DropId> = keys.iter().map(|key| key.0).collect();
        Ok(self
            .0
            .stock
            .count_active(&ids)
            .await?
            .into_iter()
            .map(|(id, count)| (ActiveCount(id), count))
            .collect())
    }
}

impl Loader<BuyersPage> for Source {
    type Value = Page<Purchase>;
    type Error = ApiError;

    async fn load(&self, keys: &[BuyersPage]) -> Loaded<BuyersPage, Self::Value> {
        let keys: Vec<PageKey> = keys.iter().map(|key| key.0).collect();
        let pages = self.0.stock.list_newest_purchases(&keys).await?;
        Ok(pages.into_iter().map(|(key, page)| (BuyersPage(key), page)).collect())
    }
}
