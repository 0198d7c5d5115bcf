//! One queue per drop: one transaction executes everything that waits in it.
//!
//! No operation waits for a batch to fill: a lone one runs at once, and a batch is what arrived while the previous
//! one committed. The queue's task is also the drop's timer: it releases expired holds at the next deadline. A client
//! that hangs up drops its half of a channel, never a transaction.

mod job;
mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use super::{
    memory::{self, Memory},
    operation::{Answer, Operation, Refusal, StockError},
};
use crate::{db::Database, drops::Drops, feed::Feed, ids::DropId, telemetry::Metrics};
use task::Queue;

/// Operations that may wait for one drop; more are refused. As many again may wait with a partial batch.
const LONGEST_QUEUE: usize = 8_192;
/// Longest wait for an answer, whatever happens below.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// How long a queue without work or a deadline stays open.
const IDLE: Duration = Duration::from_secs(60);

type Reply = oneshot::Sender<Result<Answer<Refusal>, StockError>>;

enum Message {
    Do { operation: Operation, reply: Reply, arrived: Instant },
    Deadline(Instant),
}

/// A handle to a drop's queue, and what its task remembers.
#[derive(Clone)]
struct Open {
    messages: mpsc::Sender<Message>,
    memory: Arc<Memory>,
}

/// All queues of this process.
pub(super) struct Queues {
    open: Mutex<HashMap<DropId, Open>>,
    /// Held while checking whether an unknown drop exists, so that a burst of requests checks once. Sharded by id.
    looking: [AsyncMutex<()>; 64],
    db: Database,
    drops: Drops,
    feed: Feed,
    metrics: Metrics,
    /// Maximum of operations in one transaction.
    largest_batch: usize,
    /// How long a queue stays open without work.
    idle: Duration,
    /// Transactions in flight.
    under_way: watch::Sender<usize>,
    /// The runtime of all queues, whichever thread opens them.
    runtime: Handle,
}

impl Queues {
    pub(super) fn new(
        db: Database,
        drops: Drops,
        feed: Feed,
        metrics: Metrics,
        largest_batch: usize,
    ) -> Self {
        let under_way = watch::Sender::new(0);
        let runtime = Handle::current();
        Self {
            open: Mutex::default(),
            looking: std::array::from_fn(|_| AsyncMutex::default()),
            db,
            drops,
            feed,
            metrics,
            largest_batch,
            idle: IDLE,
            under_way,
            runtime,
        }
    }

    /// Runs the operation in the drop's next batch and returns its answer.
    pub(super) async fn run(
        self: &Arc<Self>,
        drop_id: DropId,
        operation: Operation,
    ) -> Result<Answer<Refusal>, StockError> {
        let newest = self.feed.find(drop_id);
        if let Some(answer) =
            newest.as_deref().and_then(|newest| memory::refuse_unadmitted(newest, &operation))
        {
            return Ok(answer);
        }
        let open = self.lock().get(&drop_id).cloned();
        if let Some((newest, open)) = newest.as_ref().zip(open.as_ref())
            && let Some(answer) = open.memory.refuse(newest, &operation)
        {
            return Ok(answer);
        }
        // Unknown ids start no queue. In a burst of requests for a drop that is not known yet, the first one checks.
        let turn = match newest.is_none() && open.is_none() {
            true => Some(self.turn_to_look(drop_id).await),
            false => None,
        };
        if turn.is_some() && !self.is_open(drop_id) && self.drops.find(drop_id).await?.is_none() {
            return Err(StockError::DropNotFound);
        }
        let (reply, answer) = oneshot::channel();
        let message = Message::Do { operation, reply, arrived: Instant::now() };
        if !self.send(drop_id, message) {
            return Err(StockError::OVERLOADED);
        }
        drop(turn);
        match timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            // The task failed, or takes too long.
            Ok(Err(_)) | Err(_) => Err(StockError::Unavailable),
        }
    }

    /// Notifies the drop's queue of a deadline that it may not know.
    pub(super) fn expect_deadline(self: &Arc<Self>, drop_id: DropId, deadline: Instant) {
        // A full queue need not know: each of its batches releases expired holds.
        self.send(drop_id, Message::Deadline(deadline));
    }

    /// Waits until no transaction is in flight.
    pub(super) async fn drain(&self) {
        let mut under_way = self.under_way.subscribe();
        // An error means that the sender is gone; it lives in `self`.
        drop(under_way.wait_for(|count| *count == 0).await);
    }

    /// Sends a message to the drop's queue, which is opened if there is none. Returns `false` if it is full. All
    /// under one lock, so that no queue closes with a message in it.
    fn send(self: &Arc<Self>, drop_id: DropId, message: Message) -> bool {
        let mut open = self.lock();
        // A closed channel belonged to a task that failed.
        let there = open.get(&drop_id).filter(|there| !there.messages.is_closed());
        let queue = there.map(|there| there.messages.clone()).unwrap_or_else(|| {
            let (messages, receiver) = mpsc::channel(LONGEST_QUEUE);
            let memory = Arc::new(Memory::default());
            self.runtime.spawn(Queue::new(self.clone(), drop_id, receiver, memory.clone()).work());
            open.insert(drop_id, Open { messages: messages.clone(), memory });
            self.count(&open);
            messages
        });
        queue.try_send(message).is_ok()
    }

    fn is_open(&self, drop_id: DropId) -> bool {
        self.lock().contains_key(&drop_id)
    }

    async fn turn_to_look(&self, drop_id: DropId) -> AsyncMutexGuard<'_, ()> {
        // The last byte of an id is random.
        let [.., last] = drop_id.0.into_bytes();
        match self.looking.get(usize::from(last) % self.looking.len()) {
            Some(turn) => turn.lock().await,
            None => unreachable!("a remainder is smaller than its divisor"),
        }
    }

    fn count(&self, open: &HashMap<DropId, Open>) {
        self.metrics.stock_queues.set(open.len().try_into().unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DropId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
