//! What a request brings to its resolvers, and what they leave behind: for how long the answer is good.

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

/// Who a request says it is from.
#[derive(Clone, Copy, Debug)]
pub enum Credentials {
    /// No access token.
    Anonymous,
    /// A good one.
    SignedIn(Caller),
    /// One that is forged, mangled, run out or of an ended session. Not the same as none: the client believes that
    /// it is signed in, and has to learn that it is not.
    Rejected,
}

/// For how long an answer is good for whoever asks the same, while the board has the same content. It starts out as for
/// ever, and whatever goes into the answer takes from it.
#[derive(Clone, Default)]
pub(super) struct Freshness(Arc<Mutex<FreshFor>>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FreshFor {
    #[default]
    ForEver,
    Until(Instant),
    /// Only now, or only for this caller.
    OnlyNow,
}

impl Freshness {
    /// Something went in that the board knows nothing of: who calls, a clock, what only the database knows.
    pub(super) fn only_now(&self) {
        *self.lock() = FreshFor::OnlyNow;
    }

    /// Something went in that the clock changes then.
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

/// The one thing that resolvers take out of their context.
pub(super) struct RequestContext {
    app: App,
    pub(super) loaders: Loaders,
    credentials: Credentials,
    /// `None` for an update of a subscription, which is executed for all who watch.
    client: Option<Client>,
    freshness: Freshness,
    /// For a subscription.
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

    /// Where a mutation came from.
    pub(super) fn client(&self) -> Client {
        match self.client {
            Some(client) => client,
            None => unreachable!("somebody sent this mutation"),
        }
    }

    pub(super) fn fed_by(self, feeding: SubscriptionMode) -> Self {
        Self { feeding: Some(feeding), ..self }
    }

    /// The one update to show, or what `watch` finds to be watched.
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

    /// The services. What they say is good only now; what is good for longer comes from the loaders.
    pub(super) fn app(&self) -> &App {
        self.freshness.only_now();
        &self.app
    }

    /// The caller's access token's bearer, if there is one.
    pub(super) fn caller(&self) -> Option<Caller> {
        self.freshness.only_now();
        match self.credentials {
            // A token may run out, or its session end, while an operation goes on.
            Credentials::SignedIn(caller) => self.app.accounts.session_lives(&caller).then_some(caller),
            Credentials::Anonymous | Credentials::Rejected => None,
        }
    }

    /// The caller, who must be signed in.
    pub(super) fn signed_in(&self) -> Result<Caller, ApiError> {
        self.caller().ok_or(ApiError::Unauthenticated)
    }

    /// The caller's account, if signed in.
    pub(super) async fn person(&self) -> Result<Option<Person>, ApiError> {
        let Some(caller) = self.caller() else { return Ok(None) };
        let person = self.app.accounts.find_person(caller.user_id).await?;
        person.map(Some).ok_or(ApiError::Unauthenticated)
    }

    /// The caller, who must be an administrator, now and by the database: a role that was taken is gone at once.
    pub(super) async fn admin(&self) -> Result<Person, ApiError> {
        let person = self.person().await?.ok_or(ApiError::Unauthenticated)?;
        match person.role {
            Role::Admin => Ok(person),
            Role::Buyer => Err(ApiError::Forbidden),
        }
    }
}

/// What the resolver of a subscription gives the library: one update, or none at all.
pub(super) type Updates = stream::Iter<std::option::IntoIter<StockUpdate>>;

/// The request behind a resolver's context.
pub(super) fn request<'a>(ctx: &Context<'a>) -> &'a RequestContext {
    match ctx.data::<RequestContext>() {
        Ok(request) => request,
        Err(error) => unreachable!("every road to the schema goes through `execute` or `FanOut`: {error:?}"),
    }
}
