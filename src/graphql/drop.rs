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

/// Where a drop stands in its life, derived from the database clock and its flags; no job flips it. The first that
/// applies: CANCELLED, ENDED, SCHEDULED, SOLD_OUT, LIVE.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "drops::DropStatus")]
pub(super) enum DropStatus {
    /// Announced; `startsAt` lies ahead.
    Scheduled,
    /// On sale now. `availableStock` may be 0 for a while when every pair is held: holds lapse and pairs come back.
    Live,
    /// Every pair is sold.
    SoldOut,
    /// `endsAt` has passed. Holds made before it may still be purchased until they lapse.
    Ended,
    /// Withdrawn by an administrator. Its live holds were cancelled with it; what was purchased stays purchased.
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
    /// For client caches; not a `Node`.
    async fn id(&self) -> ID {
        ids::drop_size_id(self.drop_id, &self.size).into()
    }

    /// As printed on the box: `US 9`, `EU 42.5`. A drop without sizes has the one size `ONE`.
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

/// The sizes of a state, in the administrator's order.
pub(super) fn sizes(state: &DropState) -> Vec<DropSize> {
    let size = |stock: &drops::SizeStock| DropSize {
        drop_id: state.id,
        size: stock.size.clone(),
        count: stock.count,
    };
    state.sizes.iter().map(size).collect()
}

/// A drop at one version. Named so because `Drop` is the prelude's.
#[derive(Clone)]
pub(super) struct SneakerDrop {
    state: Arc<DropState>,
    /// The instant for which the status is told.
    at: Timestamp,
}

impl SneakerDrop {
    /// As it stood when it was read.
    pub(super) fn new(state: Arc<DropState>) -> Self {
        Self { at: state.read.at, state }
    }

    /// As the clock has it now, of a state that was read a while ago.
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
    /// Opaque and stable: for `node`, `drop`, `reserve` and `stockUpdated`.
    pub(super) async fn id(&self) -> ID {
        NodeId::Drop(self.state.id).encode().into()
    }

    /// What the drop is called, such as the model and its colourway.
    async fn name(&self) -> &str {
        &self.state.catalogue.name
    }

    /// A text about it, with line breaks; null when there is none.
    #[graphql(complexity = "LONG_TEXT_COST")]
    async fn description(&self) -> Option<&str> {
        self.state.catalogue.description.as_deref()
    }

    /// A picture, `http` or `https`; null when there is none.
    async fn image_url(&self) -> Option<&str> {
        self.state.catalogue.image_url.as_deref()
    }

    /// What one pair costs now. A reservation keeps the price at which it was made.
    async fn price(&self) -> Money {
        self.state.catalogue.price.clone().into()
    }

    /// Where the drop stands in its life.
    async fn status(&self) -> DropStatus {
        self.state.status(self.at).into()
    }

    /// From when pairs can be reserved.
    async fn starts_at(&self) -> DateTime {
        DateTime(self.state.catalogue.starts_at)
    }

    /// Until when pairs can be reserved; null when the drop has no end.
    async fn ends_at(&self) -> Option<DateTime> {
        self.state.catalogue.ends_at.map(DateTime)
    }

    /// How long a reservation holds a pair, in seconds. 60 unless the drop says otherwise.
    async fn hold_seconds(&self) -> i32 {
        self.state.catalogue.hold_seconds
    }

    /// Pairs one buyer may have of this drop, live reservations and purchases together.
    async fn purchase_limit(&self) -> i32 {
        self.state.catalogue.purchase_limit
    }

    /// Whether `reserve` wants an `admissionToken`, which whoever keeps the door to this drop hands out.
    async fn admission_required(&self) -> bool {
        self.state.catalogue.admission_required
    }

    /// All pairs. totalStock = availableStock + heldStock + soldStock, always, for the drop and for each size.
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

    /// Rises by one with each change to this drop, its stock or its catalogue data; never repeats, never skips.
    /// An answer or event with a lower version than one already seen is stale: drop it. The figures of one
    /// `Drop` in one answer, those of its sizes too, belong to this version; its lists may be a moment newer.
    async fn stock_version(&self) -> i32 {
        self.state.version
    }

    /// In the order in which the administrator listed them.
    #[graphql(complexity = "sizes_cost(child_complexity)")]
    async fn sizes(&self) -> Vec<DropSize> {
        sizes(&self.state)
    }

    /// Live holds, the one that lapses first at the front. Null only beside an error, which leaves the rest of the answer as
    /// it is.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn active_reservations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many at most, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: the entries that follow it.")] after: Option<String>,
    ) -> Result<Option<ReservationConnection>, ApiError> {
        let (first, after) = (page_size(first, 20)?, place(List::LiveHolds, after.as_deref())?);
        let page = request(ctx).loaders.active(&self.state, first, after).await?;
        Ok(Some(ReservationConnection::of_drop(page, after, self)))
    }

    /// Latest purchases, newest first. `first` is at most 50; more is BAD_USER_INPUT, here and in every list. Null only
    /// beside an error.
    #[graphql(complexity = "list_cost(first, 3, child_complexity)")]
    async fn recent_buyers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many at most, 0 to 50; null means 3.", default_with = "Some(3)")] first: Option<
            i32,
        >,
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

/// A drop with its place in a list.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct DropEdge {
    /// The entry's place, for `after`.
    cursor: String,
    /// The entry.
    node: SneakerDrop,
}

/// A page of drops.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct DropConnection {
    /// The drops with their places.
    edges: Vec<DropEdge>,
    /// The drops.
    nodes: Vec<SneakerDrop>,
    /// Where this page lies in the list.
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
