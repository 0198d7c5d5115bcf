//! Runs the loads of a request in rounds: the execution runs as far as it can without them, then everything that it
//! asked for is loaded, then it continues.
//!
//! So one level of an answer takes one statement per kind of object, however slow the machine. A loader that waits a
//! fixed time for keys would split its batches when the resolvers take longer.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, poll_fn as poll_stream},
};

type Load = BoxFuture<'static, ()>;

/// The pending loads of a request.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Mutex<Vec<Load>>>);

impl Queue {
    pub(super) fn push(&self, load: Load) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(load);
    }

    fn take(&self) -> Vec<Load> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Drives an execution to completion. Also returns whether it had to wait for anything.
pub(super) async fn finish<T>(queue: Queue, mut execution: BoxFuture<'_, T>) -> (T, bool) {
    let mut rounds = Rounds::new(queue);
    let done = poll_fn(|cx| rounds.poll(cx, |cx| execution.poll_unpin(cx))).await;
    (done, rounds.has_waited)
}

/// Drives an execution that yields several results.
pub(super) fn follow<T: 'static>(
    queue: Queue,
    mut execution: BoxStream<'static, T>,
) -> impl Stream<Item = T> + use<T> {
    let mut rounds = Rounds::new(queue);
    poll_stream(move |cx| rounds.poll(cx, |cx| execution.poll_next_unpin(cx)))
}

struct Rounds {
    queue: Queue,
    running: FuturesUnordered<Load>,
    has_waited: bool,
}

impl Rounds {
    fn new(queue: Queue) -> Self {
        Self { queue, running: FuturesUnordered::new(), has_waited: false }
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut execution: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        loop {
            // Poll the execution even while loads run: a resolver whose own statement is done must release its
            // connection, or the loads would wait for it.
            if let Poll::Ready(done) = execution(cx) {
                return Poll::Ready(done);
            }
            self.has_waited = true;
            // Loads requested during a round wait for it to end.
            if self.running.is_empty() {
                self.running.extend(self.queue.take());
            }
            if self.running.is_empty() {
                return Poll::Pending;
            }
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
            if !self.running.is_empty() {
                return Poll::Pending;
            }
        }
    }
}
