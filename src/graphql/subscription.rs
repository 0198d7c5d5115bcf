//! The root of subscriptions.

use async_graphql::{Context, ID, Result, Subscription as GraphqlSubscription};
use futures_util::{Stream, StreamExt as _};

use super::{error::ApiError, request::request, stock_update::StockUpdate};
use crate::ids::DropId;

/// What the server tells by itself.
pub struct Subscription;

/// What the server tells by itself, over graphql-transport-ws on the same path as queries.
#[GraphqlSubscription]
impl Subscription {
    /// The stock of one drop: the current state at once, then each change, its going live and its end included.
    /// Bursts may be folded into one update; the last state always arrives. An unknown drop is the error NOT_FOUND.
    /// Needs no sign-in.
    async fn stock_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which drop.")] drop_id: ID,
    ) -> Result<impl Stream<Item = StockUpdate> + use<>> {
        let not_found = || ApiError::NotFound("There is no such drop.");
        let id = DropId::decode(&drop_id).ok_or_else(not_found)?;
        let updates = request(ctx).app().feed.watch_drop(id).await.map_err(ApiError::from)?;
        Ok(updates.ok_or_else(not_found)?.map(StockUpdate))
    }

    /// The same for every active drop: the current states at once, then each change, a drop's becoming active, and
    /// its last state when it ends or is cancelled. After a reconnect query `drops` again for what ended meanwhile.
    /// Needs no sign-in.
    async fn active_stock_updated(
        &self,
        ctx: &Context<'_>,
    ) -> Result<impl Stream<Item = StockUpdate> + use<>> {
        let updates = request(ctx).app().feed.watch_board().await.map_err(ApiError::from)?;
        Ok(updates.map(StockUpdate))
    }
}
