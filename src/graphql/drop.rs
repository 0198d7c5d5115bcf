//! `Drop`, its sizes and its connection.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Object, SimpleObject};

use super::{
    date_time::DateTime,
    error::ApiError,
    money::Money,
    page::{LONG_TEXT_COST, PageInfo, connection, list_cost, page_size, place, sizes_cost},
    purchase::Purchase,
    request::request,
    reservation::ReservationConnection,
};
use crate::{
    clock::Timestamp,
    drops::{self, DropState, StockCount},
    ids::{self, DropId, NodeId},
    page::{Cursor, List, Page},
};

/// Where a drop is in its life cycle, computed from the database clock and the drop's flags, not set by a job. The
/// first that applies: CANCELLED, ENDED, SCHEDULED, SOLD_OUT, LIVE.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "drops::DropStatus")]
pub(super) enum DropStatus {
    /// Announced; `startsAt` is in the future.
    Scheduled,
    /// On sale now. `availableStock` may be 0 while every pair is held; holds expire and pairs return to stock.
    Live,
    /// Every pair is sold.
    SoldOut,
    /// `endsAt` has passed. Holds made before it can still be purchased until they expire.
    Ended,
    /// Cancelled by an administrator, together with its live holds. Purchases are unaffected.
    Cancelled,
}

/// The stock of one size of a drop.
pub(super) struct DropSize {
    drop_id: DropId,
    size: String,
    count: StockCount,
}

/// The stock of one size of a drop.
#[Object(serial)]
impl DropSize {
    /// A key for client caches; `node` does not accept it.
    async fn id(&self) -> ID {
        ids::drop_size_id(self.drop_id, &self.size).into()
    }

    /// The size as printed on the box, such as `US 9` or `EU 42.5`. A drop without sizes has the single size `ONE`.
    async fn size(&self) -> &str {
        &self.size
    }

    /// All pairs of this size: `availableStock + heldStock + soldStock`.
    async fn total_stock(&self) -> i32 {
        self.count.total
    }

    /// Pairs of this size that can be reserved now.
    async fn available_stock(&self) -> i32 {
        self.count.available
    }

    /// Pairs of this size held for buyers who may still purchase them.
    async fn held_stock(&self) -> i32 {
        self.count.held
    }

    /// Pairs of this size that were purchased.
    async fn sold_stock(&self) -> i32 {
        self.count.sold
    }
}

/// Returns the sizes of a drop, in the administrator's order.
pub(super) fn sizes(state: &DropState) -> Vec<DropSize> {
    let size = |stock: &drops::SizeStock| DropSize {
        drop_id: state.id,
        size: stock.size.clone(),
        count: stock.count,
    };
    state.sizes.iter().map(size).collect()
}

/// A drop at one version. The prelude already has a `Drop`.
#[derive(Clone)]
pub(super) struct SneakerDrop {
    state: Arc<DropState>,
    /// The instant for which the status is computed.
    at: Timestamp,
}

impl SneakerDrop {
    /// The drop with its status at the time of the read.
    pub(super) fn new(state: Arc<DropState>) -> Self {
        Self { at: state.read.at, state }
    }

    /// The drop with its current status, from a state that was read earlier.
    pub(super) fn now(state: Arc<DropState>) -> Self {
        Self { at: state.read.now(), state }
    }

    pub(super) fn state(&self) -> &DropState {
        &self.state
    }
}

/// A limited release of one sneaker model. Stock is kept per size.
#[Object(name = "Drop", serial)]
impl SneakerDrop {
    /// An opaque, stable id for `node`, `drop`, `reserve` and `stockUpdated`.
    pub(super) async fn id(&self) -> ID {
        NodeId::Drop(self.state.id).encode().into()
    }

    /// The name, such as the model and its colourway.
    async fn name(&self) -> &str {
        &self.state.catalogue.name
    }

    /// The description, which may have line breaks; null if there is none.
    #[graphql(complexity = "LONG_TEXT_COST")]
    async fn description(&self) -> Option<&str> {
        self.state.catalogue.description.as_deref()
    }

    /// URL of a picture, `http` or `https`; null if there is none.
    async fn image_url(&self) -> Option<&str> {
        self.state.catalogue.image_url.as_deref()
    }

    /// The current price of one pair. A reservation keeps the price at which it was made.
    async fn price(&self) -> Money {
        self.state.catalogue.price.clone().into()
    }

    /// Where the drop is in its life cycle.
    async fn status(&self) -> DropStatus {
        self.state.status(self.at).into()
    }

    /// Start of the sale, from which pairs can be reserved.
    async fn starts_at(&self) -> DateTime {
        DateTime(self.state.catalogue.starts_at)
    }

    /// End of the sale, until which pairs can be reserved; null if the drop has no end.
    async fn ends_at(&self) -> Option<DateTime> {
        self.state.catalogue.ends_at.map(DateTime)
    }

    /// How long a reservation holds a pair, in seconds. 60 unless set otherwise for the drop.
    async fn hold_seconds(&self) -> i32 {
        self.state.catalogue.hold_seconds
    }

    /// Maximum number of pairs per buyer, counting live reservations and purchases.
    async fn purchase_limit(&self) -> i32 {
        self.state.catalogue.purchase_limit
    }

    /// Whether `reserve` requires an `admissionToken`, issued by the gatekeeper in front of this drop.
    async fn admission_required(&self) -> bool {
        self.state.catalogue.admission_required
    }

    /// All pairs. `totalStock = availableStock + heldStock + soldStock` always holds, for the drop and for each size.
    async fn total_stock(&self) -> i32 {
        self.state.count().total
    }

    /// Pairs that can be reserved now.
    async fn available_stock(&self) -> i32 {
        self.state.count().available
    }

    /// Pairs held for buyers who may still purchase them.
    async fn held_stock(&self) -> i32 {
        self.state.count().held
    }

    /// Pairs that were purchased.
    async fn sold_stock(&self) -> i32 {
        self.state.count().sold
    }

    /// Increases by one with each change to the drop, its stock or its catalogue data; never repeats or skips. Discard
    /// a response or event with a lower version than one already seen: it is stale. The figures of one `Drop` in one
    /// response, including its sizes, belong to this version; its lists may be slightly newer.
    async fn stock_version(&self) -> i32 {
        self.state.version
    }

    /// The sizes, in the order in which the administrator listed them.
    #[graphql(complexity = "sizes_cost(child_complexity)")]
    async fn sizes(&self) -> Vec<DropSize> {
        sizes(&self.state)
    }

    /// Live holds, the first to expire at the front. Null only together with an error, which leaves the rest of the
    /// response intact.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn active_reservations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum number of entries, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list; the page starts after its entry.")] after: Option<String>,
    ) -> Result<Option<ReservationConnection>, ApiError> {
        let (first, after) = (page_size(first, 20)?, place(List::LiveHolds, after.as_deref())?);
        let page = request(ctx).loaders.active(&self.state, first, after).await?;
        Ok(Some(ReservationConnection::of_drop(page, after, self)))
    }

    /// Latest purchases, newest first. Here and in every list, a `first` above 50 fails with BAD_USER_INPUT. Null only
    /// together with an error.
    #[graphql(complexity = "list_cost(first, 3, child_complexity)")]
    async fn recent_buyers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum number of entries, 0 to 50; null means 3.", default_with = "Some(3)")]
        first: Option<i32>,
    ) -> Result<Option<Vec<Purchase>>, ApiError> {
        let page = request(ctx).loaders.buyers(&self.state, page_size(first, 3)?).await?;
        let purchase = |purchase| Purchase::new(purchase, Some(self.clone()));
        Ok(Some(page.items.into_iter().map(purchase).collect()))
    }

    /// When the drop was announced.
    async fn created_at(&self) -> DateTime {
        DateTime(self.state.catalogue.created_at)
    }
}

/// A drop and its cursor in a list.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct DropEdge {
    /// The entry's cursor, for `after`.
    cursor: String,
    /// The drop.
    node: SneakerDrop,
}

/// A page of drops.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct DropConnection {
    /// The drops with their cursors.
    edges: Vec<DropEdge>,
    /// The drops.
    nodes: Vec<SneakerDrop>,
    /// The page's position in the list.
    page_info: PageInfo,
}

impl DropConnection {
    pub(super) fn new(page: Page<Arc<DropState>>, after: Option<Cursor>) -> Self {
        let edge = |cursor, node| DropEdge { cursor, node };
        let (edges, nodes, page_info) =
            connection(page, after, |state| state.cursor(), SneakerDrop::now, edge);
        Self { edges, nodes, page_info }
    }
}
