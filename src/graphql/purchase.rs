//! `Purchase` and its connection.

use async_graphql::{Context, ID, Object, SimpleObject};

use super::{
    date_time::DateTime,
    drop::SneakerDrop,
    error::ApiError,
    money::Money,
    page::{PageInfo, connection},
    request::request,
    reservation::{Reservation, drop_of},
    user::User,
};
use crate::{
    ids::NodeId,
    page::{Cursor, Page},
    stock,
};

/// A purchase, and its drop as already shown in the answer.
#[derive(Clone)]
pub(super) struct Purchase {
    purchase: stock::Purchase,
    drop: Option<SneakerDrop>,
}

impl Purchase {
    pub(super) fn new(purchase: stock::Purchase, drop: Option<SneakerDrop>) -> Self {
        Self { purchase, drop }
    }
}

/// A purchased pair.
#[Object(serial)]
impl Purchase {
    /// An opaque, stable id for `node`.
    pub(super) async fn id(&self) -> ID {
        NodeId::Purchase(self.purchase.reservation_id).encode().into()
    }

    /// The reservation that was purchased.
    async fn reservation(&self, ctx: &Context<'_>) -> Result<Reservation, ApiError> {
        let id = self.purchase.reservation_id;
        let found = request(ctx).loaders.reservation(id).await?;
        let reservation =
            found.ok_or_else(|| ApiError::internal(format_args!("purchase {id:?} has no reservation")))?;
        Ok(Reservation::new(reservation, self.drop.clone()))
    }

    /// The drop that the pair belongs to.
    async fn drop(&self, ctx: &Context<'_>) -> Result<SneakerDrop, ApiError> {
        drop_of(ctx, self.purchase.reservation_id.drop_id, self.drop.as_ref()).await
    }

    /// The size as printed on the box.
    async fn size(&self) -> &str {
        &self.purchase.size
    }

    /// The buyer.
    async fn user(&self, ctx: &Context<'_>) -> Result<User, ApiError> {
        User::load(ctx, self.purchase.user_id).await
    }

    /// Number of the pair within its size, from 1, as in a numbered edition.
    async fn pair_number(&self) -> i32 {
        self.purchase.pair_number
    }

    /// The price paid.
    async fn price(&self) -> Money {
        self.purchase.price.clone().into()
    }

    /// When the pair was purchased.
    async fn purchased_at(&self) -> DateTime {
        DateTime(self.purchase.purchased_at)
    }
}

/// A purchase and its cursor in a list.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct PurchaseEdge {
    /// The entry's cursor, for `after`.
    cursor: String,
    /// The purchase.
    node: Purchase,
}

/// A page of purchases.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct PurchaseConnection {
    /// The purchases with their cursors.
    edges: Vec<PurchaseEdge>,
    /// The purchases.
    nodes: Vec<Purchase>,
    /// The page's position in the list.
    page_info: PageInfo,
}

impl PurchaseConnection {
    pub(super) fn new(page: Page<stock::Purchase>, after: Option<Cursor>) -> Self {
        let node = |purchase| Purchase::new(purchase, None);
        let edge = |cursor, node| PurchaseEdge { cursor, node };
        let (edges, nodes, page_info) = connection(page, after, stock::Purchase::cursor, node, edge);
        Self { edges, nodes, page_info }
    }
}
