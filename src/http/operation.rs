//! One operation on a transport with many results: a query or mutation gives one, a subscription many.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_graphql::ServerError;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream, stream::BoxStream};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::graphql::{ApiError, Payload};

/// What an operation has to say.
pub(super) enum Event {
    /// A result.
    Next(Payload),
    /// It could not be executed.
    Error(Vec<ServerError>),
    /// It is done.
    Complete,
}

impl Event {
    /// The task that executed it panicked.
    pub(super) fn broken() -> Self {
        Self::Error(ApiError::internal("an operation broke off").into_response().errors)
    }
}

/// An operation under way: what it says, in order. What it takes to execute it, connections to PostgreSQL and turns at what
/// others wait for too, is held by a [task of its own](by_itself): nobody else may have to wait until this client reads.
pub(super) struct Started {
    events: BoxStream<'static, Event>,
    /// Whether it ends by itself, and soon: everything but a subscription. A server that stops waits for it.
    pub(super) ends: bool,
}

impl Started {
    /// One that was refused.
    pub(super) fn refused(error: ApiError) -> Self {
        let events = stream::iter([Event::Error(error.into_response().errors)]);
        Self { events: events.boxed(), ends: true }
    }

    /// One that says one thing, `None` where its task panicked. It begins when it has a place among `answers`, which it has
    /// until all is told.
    pub(super) fn once(
        answers: &Arc<Semaphore>,
        event: impl Future<Output = Option<Event>> + Send + 'static,
    ) -> Self {
        let answers = answers.clone();
        let events = async move {
            let permit = answers.acquire_owned().await;
            let Ok(permit) = permit else { unreachable!("nobody closes it") };
            let event = event.await.unwrap_or_else(Event::broken);
            holding(permit, stream::iter([event, Event::Complete]))
        };
        Self { events: events.flatten_stream().boxed(), ends: true }
    }

    /// A subscription.
    pub(super) fn lasting(events: impl Stream<Item = Event> + Send + 'static) -> Self {
        Self { events: events.boxed(), ends: false }
    }
}

impl Stream for Started {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_next_unpin(context)
    }
}

/// The same stream, which keeps `permit` until it is dropped.
fn holding<S: Stream>(permit: OwnedSemaphorePermit, stream: S) -> impl Stream<Item = S::Item> {
    stream.inspect(move |_| {
        let _ = &permit;
    })
}

/// Starts a task on `runtime`, which ends with whoever waits for it. `None`: it panicked. The work itself is in the task
/// alone: what waits may be kept for as long as a subscription lasts.
pub(super) fn by_itself<W>(runtime: &Handle, work: W) -> impl Future<Output = Option<W::Output>> + use<W>
where
    W: Future<Output: Send> + Send + 'static,
{
    let mut task = JoinSet::new();
    task.spawn_on(work, runtime);
    async move { task.join_next().await?.ok() }
}
