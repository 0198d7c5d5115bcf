//! The root of queries.

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

/// The most ids that `nodes` takes.
const MOST_IDS: usize = 50;

/// What can be read.
pub struct Query;

/// What can be read. Only `viewer` needs a sign-in; but who sends an access token that has run out, or is not good
/// otherwise, is told so (UNAUTHENTICATED), whatever is asked.
#[Object(serial)]
impl Query {
    /// Drops, users, purchases and live reservations for everyone; closed reservations for their owner and
    /// administrators. Null for anything else.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "An `id` that this API gave.")] id: ID,
    ) -> Result<Option<Node>, ApiError> {
        node::find(ctx, &id).await
    }

    /// As `node`, for up to 50 ids: one entry for each, in their order.
    #[graphql(complexity = "entries_cost(ids.len().min(MOST_IDS), child_complexity)")]
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Ids that this API gave.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Node>>, ApiError> {
        if ids.len() > MOST_IDS {
            return Err(ApiError::BadUserInput(format!("ids: {} are more than {MOST_IDS}.", ids.len())));
        }
        try_join_all(ids.iter().map(|id| node::find(ctx, id))).await
    }

    /// The signed-in person; null when the request carries no access token.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Option<Viewer>, ApiError> {
        Ok(request(ctx).person().await?.map(Viewer::new))
    }

    /// Active drops by default, the one that started last at the front; `reverse` turns the order, which is what a
    /// list of upcoming drops wants. A null argument means its default. Null only beside an error.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn drops(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many at most, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: the entries that follow it.")] after: Option<String>,
        #[graphql(
            desc = "In one of these states; null means LIVE and SOLD_OUT.",
            default_with = "Some(vec![DropStatus::Live, DropStatus::SoldOut])"
        )]
        statuses: Option<Vec<DropStatus>>,
        #[graphql(
            desc = "The one that started first at the front; null means false.",
            default_with = "Some(false)"
        )]
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

    /// The drop with this id; null when there is none.
    async fn drop(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A drop's `id`.")] id: ID,
    ) -> Result<Option<SneakerDrop>, ApiError> {
        let Some(id) = DropId::decode(&id) else { return Ok(None) };
        request(ctx).loaders.drop(id).await
    }

    /// The database clock, for countdowns that do not trust the device's clock. Never served from a cache.
    async fn server_time(&self, ctx: &Context<'_>) -> Result<DateTime, ApiError> {
        Ok(DateTime(request(ctx).app().drops.now().await?))
    }
}
