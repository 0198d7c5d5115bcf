//! Executes each event once for all subscribers with the same document and variables.
//!
//! Ten thousand open pages send the same document with the same variables. An update of a drop is executed and
//! serialized once, for the first subscriber that needs it; the others get the bytes. Events are executed anonymously,
//! because nothing below a subscription is private.

mod subscriber;
mod updates;

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_graphql::{Request, Response, ServerError, Variables};
use futures_util::{Stream, StreamExt as _, stream, stream::BoxStream};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Admitted, ApiError, Credentials, READ_WITHIN, Schema,
    gate::Document,
    json,
    request::{Freshness, RequestContext},
    response::{self, Executed},
    rounds,
};
use crate::{app::App, feed::Shown, read_time::ReadTime};
use subscriber::Subscriber;
use updates::{Rendered, Updates};

/// Maximum number of subscriptions that are shared; subscribers with further ones get their own updates.
const MOST_SUBSCRIPTIONS: usize = 1_000;

/// A serialized GraphQL response.
pub type Payload = Arc<str>;

/// The shared subscriptions, and what it takes to execute their updates.
#[derive(Clone)]
pub struct FanOut(Arc<Inner>);

struct Inner {
    schema: Schema,
    app: App,
    /// The runtime that executes updates.
    readers: Handle,
    subscriptions: Mutex<HashMap<Key, Weak<SharedSubscription>>>,
    /// The number of the next new subscription.
    next_number: AtomicU64,
    updates: Updates,
}

/// What two subscriptions must have in common to be shared.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    document: String,
    operation_name: Option<String>,
    variables: String,
}

/// A subscription shared by all subscribers with its key.
struct SharedSubscription {
    fan_out: FanOut,
    /// Never used again, unlike an address.
    number: u64,
    key: Key,
    document: Arc<Document>,
    variables: Variables,
    /// Whether an update is being executed.
    is_busy: AtomicBool,
    /// Notifies those who wait for that update.
    done: Notify,
}

/// Held while an update is executed.
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

/// What the resolver of a subscription is asked for.
#[derive(Clone)]
pub(super) enum SubscriptionMode {
    /// The stream to watch, which it stores here.
    Watch(Arc<Mutex<Option<BoxStream<'static, Shown>>>>),
    /// An update that shows this state.
    Show(Shown),
}

impl FanOut {
    /// Creates a fan-out that executes subscriptions to `schema`, and their updates on `readers`.
    pub fn new(schema: Schema, app: App, readers: Handle) -> Self {
        Self(Arc::new(Inner {
            schema,
            app,
            readers,
            subscriptions: Mutex::default(),
            next_number: AtomicU64::new(0),
            updates: Updates::new(),
        }))
    }

    /// Executes a subscription. `payer` is charged for the updates that this subscriber is the first to need.
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

    /// Returns the subscription that others share, or a new one.
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
            number: self.0.next_number.fetch_add(1, Ordering::Relaxed),
            key: words.clone(),
            document,
            variables: request.variables,
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
    /// Returns the update for `shown`, or for a later state if `payer` has no time left. `None`: there is nothing to
    /// show.
    async fn render(self: &Arc<Self>, payer: &ReadTime, shown: Shown) -> Option<Rendered> {
        loop {
            // Before the lookup, or a notification between the two would be missed.
            let mut done = pin!(self.done.notified());
            done.as_mut().enable();
            if let Some(told) = self.find(&shown) {
                return Some(told);
            }
            // A client without time left gets this update, or a newer one, once another has executed it; or waits.
            let payment = match payer.pay_in_advance() {
                Ok(payment) => payment,
                Err(later) => {
                    let newer = self.fan_out.0.updates.find_newer(self.number, &shown);
                    if newer.is_some() {
                        return newer;
                    }
                    drop(timeout(later, done).await);
                    continue;
                }
            };
            let turn = Turn::take(self);
            // Whoever had the turn may have executed it since.
            if let Some(told) = self.find(&shown) {
                return Some(told);
            }
            let Some(turn) = turn else {
                drop(payment);
                done.await;
                continue;
            };
            // In its own task: the caller may be blocked by a client that does not read, and all others wait.
            let (version, status) = (shown.state.version, shown.status);
            let work = payment.pay_for(async move { turn.0.work_out(shown).await });
            let task = self.fan_out.0.readers.spawn(work);
            return task.await.unwrap_or_else(|_| {
                let broken = ApiError::internal("an update broke off").into_response();
                Some(Rendered::new(version, status, &broken, Instant::now()))
            });
        }
    }

    /// Returns the cached update for `shown`.
    fn find(&self, shown: &Shown) -> Option<Rendered> {
        self.fan_out.0.updates.find(self.number, shown)
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
        self.fan_out.0.updates.keep(self.number, id, told.clone());
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
}
