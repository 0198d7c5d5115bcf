//! What a request provides to its resolvers, and what they report back: how long the answer is valid.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_graphql::Context;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;

use super::{
    error::ApiError, fan_out::SubscriptionMode, loaders::Loaders, rounds::Queue, stock_update::StockUpdate,
};
use crate::{
    accounts::{Caller, Person, Role},
    app::App,
    client::Client,
    feed::{Feed, Shown},
};

/// The credentials of a request.
#[derive(Clone, Copy, Debug)]
pub enum Credentials {
    /// No access token.
    Anonymous,
    /// A valid access token.
    SignedIn(Caller),
    /// A token that is forged, malformed, expired or of an ended session. Not the same as none: the client believes
    /// that it is signed in, and must learn that it is not.
    Rejected,
}

/// How long an answer is valid for any caller of the same request, while the board's content is unchanged. Starts as
/// `ForEver`; each part of the answer can shorten it.
#[derive(Clone, Default)]
pub(super) struct Freshness(Arc<Mutex<FreshFor>>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FreshFor {
    #[default]
    ForEver,
    Until(Instant),
    /// Valid only now, or only for this caller.
    OnlyNow,
}

impl Freshness {
    /// Records that the answer depends on something outside the board: the caller, a clock, or the database.
    pub(super) fn only_now(&self) {
        *self.lock() = FreshFor::OnlyNow;
    }

    /// Records that the clock changes the answer at `moment`.
    pub(super) fn until(&self, moment: Instant) {
        let mut good = self.lock();
        *good = match *good {
            FreshFor::ForEver => FreshFor::Until(moment),
            FreshFor::Until(earlier) => FreshFor::Until(earlier.min(moment)),
            FreshFor::OnlyNow => FreshFor::OnlyNow,
        };
    }

    pub(super) fn told(&self) -> FreshFor {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, FreshFor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The only value that resolvers take from their context.
pub(super) struct RequestContext {
    app: App,
    pub(super) loaders: Loaders,
    credentials: Credentials,
    /// `None` for an update of a subscription, which is executed for all subscribers.
    client: Option<Client>,
    freshness: Freshness,
    /// Set for subscriptions only.
    feeding: Option<SubscriptionMode>,
}

impl RequestContext {
    pub(super) fn new(app: &App, credentials: Credentials, loads: &Queue, freshness: &Freshness) -> Self {
        let loaders = Loaders::new(app, loads, freshness);
        Self {
            app: app.clone(),
            loaders,
            credentials,
            freshness: freshness.clone(),
            client: None,
            feeding: None,
        }
    }

    pub(super) fn sent_by(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// Returns the client that sent a mutation.
    pub(super) fn client(&self) -> Client {
        match self.client {
            Some(client) => client,
            None => unreachable!("somebody sent this mutation"),
        }
    }

    pub(super) fn fed_by(self, feeding: SubscriptionMode) -> Self {
        Self { feeding: Some(feeding), ..self }
    }

    /// Returns the update to show; or none, after storing the stream from `watch` for the subscriber.
    pub(super) async fn updates<S: Stream<Item = Shown> + Send + 'static>(
        &self,
        watch: impl AsyncFnOnce(&Feed) -> Result<S, ApiError>,
    ) -> Result<Updates, ApiError> {
        let shown = match &self.feeding {
            Some(SubscriptionMode::Show(shown)) => Some(StockUpdate(shown.clone())),
            Some(SubscriptionMode::Watch(left)) => {
                let updates = watch(&self.app.feed).await?.boxed();
                *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(updates);
                None
            }
            None => unreachable!("every road to a subscription goes through `FanOut`"),
        };
        Ok(stream::iter(shown))
    }

    /// Returns the services. Their data is valid only now; data that is valid for longer comes from the loaders.
    pub(super) fn app(&self) -> &App {
        self.freshness.only_now();
        &self.app
    }

    /// Returns the bearer of the access token, if there is a valid one.
    pub(super) fn caller(&self) -> Option<Caller> {
        self.freshness.only_now();
        match self.credentials {
            // A token may expire, or its session end, while an operation runs.
            Credentials::SignedIn(caller) => self.app.accounts.session_lives(&caller).then_some(caller),
            Credentials::Anonymous | Credentials::Rejected => None,
        }
    }

    /// Returns the caller, who must be signed in.
    pub(super) fn signed_in(&self) -> Result<Caller, ApiError> {
        self.caller().ok_or(ApiError::Unauthenticated)
    }

    /// Returns the caller's account, if signed in. A session that ended since the request was admitted is an error: its
    /// client believes that it is signed in.
    pub(super) async fn person(&self) -> Result<Option<Person>, ApiError> {
        let caller = match (self.caller(), self.credentials) {
            (Some(caller), _) => caller,
            (None, Credentials::SignedIn(_)) => return Err(ApiError::Unauthenticated),
            (None, Credentials::Anonymous | Credentials::Rejected) => return Ok(None),
        };
        let person = self.app.accounts.find_person(caller.user_id).await?;
        person.map(Some).ok_or(ApiError::Unauthenticated)
    }

    /// Returns the caller, who must be an administrator according to the database: a revoked role is gone at once.
    pub(super) async fn admin(&self) -> Result<Person, ApiError> {
        let person = self.person().await?.ok_or(ApiError::Unauthenticated)?;
        match person.role {
            Role::Admin => Ok(person),
            Role::Buyer => Err(ApiError::Forbidden),
        }
    }
}

/// What the resolver of a subscription returns to async-graphql: one update, or none.
pub(super) type Updates = stream::Iter<std::option::IntoIter<StockUpdate>>;

/// Returns the request of a resolver's context.
pub(super) fn request<'a>(ctx: &Context<'a>) -> &'a RequestContext {
    match ctx.data::<RequestContext>() {
        Ok(request) => request,
        Err(error) => unreachable!("every road to the schema goes through `execute` or `FanOut`: {error:?}"),
    }
}
