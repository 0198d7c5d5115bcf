//! The root query type.

use async_graphql::{Context, ID, Object};
use futures_util::future::try_join_all;

use super::{
    date_time::DateTime,
    drop::{DropConnection, DropStatus, SneakerDrop},
    error::ApiError,
    node::{self, Node},
    page::{entries_cost, list_cost, page_size, place},
    request::request,
    viewer::Viewer,
};
use crate::{drops::ListDrops, ids::DropId, page::List};

/// Maximum number of ids in one call of `nodes`.
const MOST_IDS: usize = 50;

/// The root of all queries.
pub struct Query;

/// The root of all queries. Only `viewer` needs an access token, but a request with an invalid or expired one is
/// refused with UNAUTHENTICATED, whatever it queries.
#[Object(serial)]
impl Query {
    /// Looks up an object by id: drops, users, purchases, live and purchased reservations for everyone; other
    /// reservations for their owner and administrators. Null for anything else.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "An `id` from this API.")] id: ID,
    ) -> Result<Option<Node>, ApiError> {
        node::find(ctx, &id).await
    }

    /// Like `node`, for up to 50 ids. Returns one entry per id, in the same order.
    #[graphql(complexity = "entries_cost(ids.len().min(MOST_IDS), child_complexity)")]
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Ids from this API.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Node>>, ApiError> {
        if ids.len() > MOST_IDS {
            return Err(ApiError::BadUserInput(format!("ids: {} are more than {MOST_IDS}.", ids.len())));
        }
        try_join_all(ids.iter().map(|id| node::find(ctx, id))).await
    }

    /// The signed-in user; null if the request has no access token.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Option<Viewer>, ApiError> {
        Ok(request(ctx).person().await?.map(Viewer::new))
    }

    /// Drops, latest start first; by default the active ones. `reverse` reverses the order, as suits a list of upcoming
    /// drops. A null argument means its default. Null only together with an error.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn drops(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum number of entries, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list; the page starts after its entry.")] after: Option<String>,
        #[graphql(
            desc = "Only drops with one of these statuses; null means LIVE and SOLD_OUT.",
            default_with = "Some(vec![DropStatus::Live, DropStatus::SoldOut])"
        )]
        statuses: Option<Vec<DropStatus>>,
        #[graphql(desc = "Earliest start first; null means false.", default_with = "Some(false)")]
        reverse: Option<bool>,
    ) -> Result<Option<DropConnection>, ApiError> {
        let statuses = statuses.unwrap_or_else(|| vec![DropStatus::Live, DropStatus::SoldOut]);
        let list = ListDrops {
            first: page_size(first, 20)?,
            after: place(List::Drops, after.as_deref())?,
            statuses: statuses.into_iter().map(Into::into).collect(),
            reverse: reverse.unwrap_or(false),
        };
        let page = request(ctx).loaders.drops(&list).await?;
        Ok(Some(DropConnection::new(page, list.after)))
    }

    /// The drop with this id; null if there is none.
    async fn drop(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A drop's `id`.")] id: ID,
    ) -> Result<Option<SneakerDrop>, ApiError> {
        let Some(id) = DropId::decode(&id) else { return Ok(None) };
        request(ctx).loaders.drop(id).await
    }

    /// The time of the database clock, for countdowns independent of the device's clock. Never served from a cache.
    async fn server_time(&self, ctx: &Context<'_>) -> Result<DateTime, ApiError> {
        Ok(DateTime(request(ctx).app().drops.now().await?))
    }
}
