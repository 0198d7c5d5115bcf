//! One operation on a transport with many results: a query or mutation has one, a subscription many.

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

/// An event of an operation.
pub(super) enum Event {
    /// A result.
    Next(Payload),
    /// The operation could not be executed.
    Error(Vec<ServerError>),
    /// The operation is complete.
    Complete,
}

impl Event {
    /// The event of an operation whose task panicked.
    pub(super) fn broken() -> Self {
        Self::Error(ApiError::internal("an operation broke off").into_response().errors)
    }
}

/// An operation in progress, as the stream of its events. Resources of the execution, such as PostgreSQL connections
/// and turns in queues, are held by a [task of its own](by_itself), so no one has to wait until this client reads.
pub(super) struct Started {
    events: BoxStream<'static, Event>,
    /// Whether it ends soon by itself: true unless it is a subscription. A stopping server waits for it.
    pub(super) ends: bool,
}

impl Started {
    /// Returns an operation that was refused.
    pub(super) fn refused(error: ApiError) -> Self {
        let events = stream::iter([Event::Error(error.into_response().errors)]);
        Self { events: events.boxed(), ends: true }
    }

    /// Returns an operation with one event; `None` means that its task panicked. It starts once it has a permit of
    /// `answers`, which it keeps until all its events are read.
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

    /// Returns a subscription.
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

/// Returns the same stream, which keeps `permit` until it is dropped.
fn holding<S: Stream>(permit: OwnedSemaphorePermit, stream: S) -> impl Stream<Item = S::Item> {
    stream.inspect(move |_| {
        let _ = &permit;
    })
}

/// Spawns `work` on `runtime`, aborted when the returned future is dropped. `None`: it panicked. Only the task holds
/// the work itself, because the future may be kept for as long as a subscription lasts.
pub(super) fn by_itself<W>(runtime: &Handle, work: W) -> impl Future<Output = Option<W::Output>> + use<W>
where
    W: Future<Output: Send> + Send + 'static,
{
    let mut task = JoinSet::new();
    task.spawn_on(work, runtime);
    async move { task.join_next().await?.ok() }
}
