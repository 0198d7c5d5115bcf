//! `StockUpdate`.

use async_graphql::{ID, Object};

use super::{
    date_time::DateTime,
    drop::{DropSize, DropStatus, SneakerDrop, sizes},
    page::sizes_cost,
};
use crate::{feed::Shown, ids::NodeId};

/// A drop state from the feed.
pub(super) struct StockUpdate(pub(super) Shown);

/// The full stock of a drop after a change: a missed update needs no recovery, since the next one is complete.
/// Select `drop { .. }` to update a normalised cache; the other fields are copies for clients without one.
#[Object(serial)]
impl StockUpdate {
    /// The drop's `id`.
    async fn drop_id(&self) -> ID {
        NodeId::Drop(self.0.state.id).encode().into()
    }

    /// The drop at this version.
    async fn drop(&self) -> SneakerDrop {
        SneakerDrop::new(self.0.state.clone())
    }

    /// Where the drop is in its life cycle.
    async fn status(&self) -> DropStatus {
        self.0.status.into()
    }

    /// All pairs: `availableStock + heldStock + soldStock`.
    async fn total_stock(&self) -> i32 {
        self.0.state.count().total
    }

    /// Pairs that can be reserved now.
    async fn available_stock(&self) -> i32 {
        self.0.state.count().available
    }

    /// Pairs held for buyers who may still purchase them.
    async fn held_stock(&self) -> i32 {
        self.0.state.count().held
    }

    /// Pairs that were purchased.
    async fn sold_stock(&self) -> i32 {
        self.0.state.count().sold
    }

    /// The stock of each size, in the administrator's order.
    #[graphql(complexity = "sizes_cost(child_complexity)")]
    async fn sizes(&self) -> Vec<DropSize> {
        sizes(&self.0.state)
    }

    /// `Drop.stockVersion`. Never decreases for a drop; repeats only if the clock alone changed `status`.
    async fn version(&self) -> i32 {
        self.0.state.version
    }

    /// When the drop was in this state, by the database clock.
    async fn at(&self) -> DateTime {
        DateTime(self.0.at())
    }
}
