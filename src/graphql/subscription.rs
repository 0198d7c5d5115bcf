//! The root subscription type.

use async_graphql::{Context, ID, Result, Subscription as GraphqlSubscription};

use super::{
    error::ApiError,
    request::{Updates, request},
};
use crate::{feed::Feed, ids::DropId};

/// The root of all subscriptions.
pub struct Subscription;

/// The root of all subscriptions, served on the same path as queries: over graphql-transport-ws, server-sent events or
/// multipart.
#[GraphqlSubscription]
impl Subscription {
    /// The stock of one drop: the current state at once, then each change, including the start and end of the sale.
    /// Bursts may be merged into one update; the last state always arrives. An unknown drop fails with NOT_FOUND. Needs
    /// no sign-in.
    async fn stock_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The drop's `id`.")] drop_id: ID,
    ) -> Result<Updates> {
        let not_found = || ApiError::NotFound("There is no such drop.");
        let id = DropId::decode(&drop_id).ok_or_else(not_found)?;
        let watch = async |feed: &Feed| feed.watch_drop(id).await?.ok_or_else(not_found);
        Ok(request(ctx).updates(watch).await?)
    }

    /// The stock of every active drop: the current states at once, then each change, each drop that becomes active, and
    /// the last state of a drop that ends or is cancelled. After a reconnect, query `drops` again to see which drops
    /// ended meanwhile. Needs no sign-in.
    async fn active_stock_updated(&self, ctx: &Context<'_>) -> Result<Updates> {
        Ok(request(ctx).updates(async |feed: &Feed| Ok(feed.watch_board().await?)).await?)
    }
}
