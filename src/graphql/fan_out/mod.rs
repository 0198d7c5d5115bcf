//! One execution of an event for everyone who watches with the same words.
//!
//! Ten thousand open pages send the same document with the same variables. How an update of a drop looks is worked out
//! once, for whoever is told first, and written down once: for the others it is bytes.
//! Events are executed as nobody, for nothing below a subscription is somebody's own.

mod subscriber;

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_graphql::{Request, Response, ServerError, Variables};
use futures_util::{Stream, StreamExt as _, stream, stream::BoxStream};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Admitted, ApiError, Credentials, READ_WITHIN, Schema, error,
    gate::Document,
    json,
    request::{Freshness, RequestContext},
    response::{self, Executed},
    rounds,
};
use crate::{app::App, drops::DropStatus, feed::Shown, ids::DropId, read_time::ReadTime};
use subscriber::Subscriber;

/// Ways of asking that are kept track of; who asks in yet another way has updates of their own.
const MOST_SUBSCRIPTIONS: usize = 1_000;

/// Drops of which a subscription keeps the newest update. Nobody watches so many; without a bound those that are long over
/// would stay for as long as somebody watches the board.
const MOST_DROPS: usize = 1_000;

/// Who comes later gets an update anew: the names in it are those of so long ago, and where the drop changed while its
/// lists were read, those are not quite of its version.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Updates of one drop that are kept: while the newest is told, some still ask for the one before.
const MOST_UPDATES: usize = 3;
/// What went wrong for one may go right for the next, but not for ten thousand one after another.
const FAILURE_GOOD_FOR: Duration = Duration::from_millis(100);

/// A GraphQL response, written down.
pub type Payload = Arc<str>;

/// Who watches with which words, and what it takes to work out updates for them.
#[derive(Clone)]
pub struct FanOut(Arc<Inner>);

struct Inner {
    schema: Schema,
    app: App,
    /// Where updates are worked out.
    readers: Handle,
    subscriptions: Mutex<HashMap<Key, Weak<SharedSubscription>>>,
}

/// What makes two subscriptions the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    document: String,
    operation_name: Option<String>,
    variables: String,
}

/// A subscription that some watch with.
struct SharedSubscription {
    fan_out: FanOut,
    key: Key,
    document: Arc<Document>,
    variables: Variables,
    /// The newest updates of each drop.
    rendered: Mutex<HashMap<DropId, Vec<Rendered>>>,
    /// Whether somebody works out an update.
    is_busy: AtomicBool,
    /// Heard by those who wait for it.
    done: Notify,
}

/// Held by the one who works out an update.
struct Turn(Arc<SharedSubscription>);

impl Turn {
    fn take(subscription: &Arc<SharedSubscription>) -> Option<Self> {
        let was_busy = subscription.is_busy.swap(true, Ordering::AcqRel);
        (!was_busy).then(|| Self(subscription.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Release);
        self.0.done.notify_waiters();
    }
}

/// An update that was worked out.
#[derive(Clone)]
struct Rendered {
    version: i32,
    status: DropStatus,
    payload: Payload,
    until: Instant,
    /// Whether something is missing in it that may be there at another try.
    may_heal: bool,
}

impl Rendered {
    fn new(version: i32, status: DropStatus, response: &Response, began: Instant) -> Self {
        let until = match response.is_ok() {
            true => began + GOOD_FOR,
            false => Instant::now() + FAILURE_GOOD_FOR,
        };
        let may_heal = response.errors.iter().any(error::may_heal);
        Self { version, status, payload: json(response).into(), until, may_heal }
    }
}

/// How the resolver of a subscription is asked.
#[derive(Clone)]
pub(super) enum SubscriptionMode {
    /// For what it watches, which it leaves here.
    Watch(Arc<Mutex<Option<BoxStream<'static, Shown>>>>),
    /// To show this.
    Show(Shown),
}

impl FanOut {
    /// Executes subscriptions to `schema` in full; their updates are worked out by `readers`.
    pub fn new(schema: Schema, app: App, readers: Handle) -> Self {
        Self(Arc::new(Inner { schema, app, readers, subscriptions: Mutex::default() }))
    }

    /// Executes a subscription. Its updates are worked out in the time of `payer` where it is the first to want one.
    ///
    /// # Errors
    /// Why there is nothing to watch.
    pub async fn subscribe(
        &self,
        admitted: Admitted,
        credentials: Credentials,
        payer: ReadTime,
    ) -> Result<impl Stream<Item = Payload> + use<>, Vec<ServerError>> {
        let subscription = self.subscription(admitted);
        let left = Arc::default();
        let refused = subscription.execute(credentials, SubscriptionMode::Watch(Arc::clone(&left))).await;
        let updates = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (updates, refused) {
            (None, Some(response)) => Err(response.errors),
            // A directive skipped the field.
            (None, None) => Ok(stream::empty().boxed()),
            (Some(updates), _) => Ok(Subscriber::new(subscription, payer, updates).payloads().boxed()),
        }
    }

    /// The one that others have, if there is one.
    fn subscription(&self, admitted: Admitted) -> Arc<SharedSubscription> {
        let Admitted { mut request, document, .. } = admitted;
        let words = Key {
            document: std::mem::take(&mut request.query),
            operation_name: request.operation_name.take(),
            variables: json(&request.variables),
        };
        let mut all = self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get(&words).and_then(Weak::upgrade) {
            return there;
        }
        let subscription = Arc::new(SharedSubscription {
            fan_out: self.clone(),
            key: words.clone(),
            document,
            variables: request.variables,
            rendered: Mutex::default(),
            is_busy: AtomicBool::new(false),
            done: Notify::new(),
        });
        if all.len() >= MOST_SUBSCRIPTIONS {
            all.retain(|_, subscription| subscription.strong_count() > 0);
        }
        if all.len() < MOST_SUBSCRIPTIONS {
            all.insert(words, Arc::downgrade(&subscription));
        }
        subscription
    }
}

impl SharedSubscription {
    /// How `shown` looks in these words, or a later state, where there is no time for this one. `None`: there is nothing of it
    /// to show.
    async fn render(self: &Arc<Self>, payer: &ReadTime, shown: Shown) -> Option<Rendered> {
        loop {
            // Before the look, or what is done between the two would not be heard.
            let mut done = pin!(self.done.notified());
            done.as_mut().enable();
            // Who has used up their time hears of it, or of a newer one, when somebody else has worked it out; or later.
            if let Err(later) = payer.is_left() {
                if let Some(told) = self.find(&shown).or_else(|| self.find_newer(&shown)) {
                    return Some(told);
                }
                drop(timeout(later, done).await);
                continue;
            }
            let turn = Turn::take(self);
            if let Some(told) = self.find(&shown) {
                return Some(told);
            }
            let Some(turn) = turn else {
                done.await;
                continue;
            };
            // In a task of its own: whoever asked may be held up by a client that does not read, and all others wait.
            let (version, status) = (shown.state.version, shown.status);
            let work = payer.pay_later().pay_for(async move { turn.0.work_out(shown).await });
            let task = self.fan_out.0.readers.spawn(work);
            return task.await.unwrap_or_else(|_| {
                let broken = ApiError::internal("an update broke off").into_response();
                Some(Rendered::new(version, status, &broken, Instant::now()))
            });
        }
    }

    /// What was worked out before.
    fn find(&self, shown: &Shown) -> Option<Rendered> {
        let told = self.rendered();
        let is_it = |told: &&Rendered| (told.version, told.status) == (shown.state.version, shown.status);
        let told = told.get(&shown.state.id)?.iter().find(is_it)?;
        (Instant::now() < told.until).then(|| told.clone())
    }

    /// What was worked out of a later version.
    fn find_newer(&self, shown: &Shown) -> Option<Rendered> {
        let told = self.rendered();
        let newest = told.get(&shown.state.id)?.iter().max_by_key(|told| told.version)?;
        (newest.version > shown.state.version && Instant::now() < newest.until).then(|| newest.clone())
    }

    async fn work_out(&self, shown: Shown) -> Option<Rendered> {
        self.fan_out.0.app.metrics.updates_executed.inc();
        let began = Instant::now();
        let (id, version, status) = (shown.state.id, shown.state.version, shown.status);
        let executed = self.execute(Credentials::Anonymous, SubscriptionMode::Show(shown));
        let response = timeout(READ_WITHIN, executed)
            .await
            .unwrap_or_else(|_| Some(ApiError::Unavailable.into_response()))?;
        let told = Rendered::new(version, status, &response, began);
        let mut all = self.rendered();
        if all.len() >= MOST_DROPS {
            all.clear();
        }
        let kept = all.entry(id).or_default();
        kept.retain(|told| (told.version, told.status) != (version, status));
        kept.push(told.clone());
        if kept.len() > MOST_UPDATES {
            let oldest = kept.iter().map(|told| told.version).min();
            let oldest = kept.iter().position(|told| Some(told.version) == oldest);
            oldest.into_iter().for_each(|oldest| drop(kept.swap_remove(oldest)));
        }
        Some(told)
    }

    async fn execute(&self, credentials: Credentials, feeding: SubscriptionMode) -> Option<Response> {
        let Inner { schema, app, .. } = &*self.fan_out.0;
        let (loads, freshness) = (rounds::Queue::default(), Freshness::default());
        let context = RequestContext::new(app, credentials, &loads, &freshness).fed_by(feeding);
        let mut request = Request::new(&*self.key.document).variables(self.variables.clone()).data(context);
        request.operation_name.clone_from(&self.key.operation_name);
        request.set_parsed_query(self.document.parsed.clone());
        let mut results = rounds::follow(loads, schema.whole.execute_stream(request).boxed()).boxed();
        let response = results.next().await?;
        let executed = Executed {
            document: &self.document,
            operation_name: self.key.operation_name.as_deref(),
            most_cost: schema.most_cost,
            may_be_disordered: false,
        };
        Some(response::finish(response, executed))
    }

    fn rendered(&self) -> MutexGuard<'_, HashMap<DropId, Vec<Rendered>>> {
        self.rendered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
