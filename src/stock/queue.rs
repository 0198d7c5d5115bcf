//! One queue per drop: what waits in it is done together, by one transaction.
//!
//! Nobody waits for a batch to fill: a lone operation goes at once, and a batch is what came in while the one before
//! committed. The queue's task is also the drop's timer: it takes lapsed holds back when the next deadline comes. A
//! client that hangs up drops its half of a channel, never a transaction.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use super::{
    batch::{self, Done},
    memory::{self, Memory},
    operation::{Answer, Operation, Refusal, StockError},
};
use crate::{
    db::{Database, DbError},
    drops::Drops,
    feed::Feed,
    ids::DropId,
    telemetry::Metrics,
};

/// Operations that may wait for one drop; more are told to come back.
const LONGEST_QUEUE: usize = 8_192;
/// An operation that has waited this long is told to come back instead of being begun.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// For this long after its arrival an operation whose outcome is unknown is tried again.
const RETRY_FOR: Duration = Duration::from_secs(3);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
/// A transaction that PostgreSQL's own limits did not end by then has a hung or vanished server under it.
const WATCHDOG: Duration = Duration::from_millis(3_500);
/// Nobody waits for an answer longer than this, whatever happens below.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// A queue with nothing to do and no deadline to wait for goes away.
const IDLE: Duration = Duration::from_secs(60);

type Reply = oneshot::Sender<Result<Answer<Refusal>, StockError>>;

enum Message {
    Do { operation: Operation, reply: Reply, arrived: Instant },
    Deadline(Instant),
}

/// An operation taken out of the queue.
struct Job {
    operation: Operation,
    reply: Reply,
    arrived: Instant,
}

/// The way to a drop's queue, and what its task remembers.
#[derive(Clone)]
struct Open {
    messages: mpsc::Sender<Message>,
    memory: Arc<Memory>,
}

/// All queues of this process.
pub(super) struct Queues {
    open: Mutex<HashMap<DropId, Open>>,
    db: Database,
    drops: Drops,
    feed: Feed,
    metrics: Metrics,
    /// Operations in one transaction at most.
    largest_batch: usize,
    /// Transactions under way.
    under_way: watch::Sender<usize>,
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
        Self { open: Mutex::default(), db, drops, feed, metrics, largest_batch, under_way }
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
        // Ids that lead nowhere start nothing.
        if newest.is_none() && open.is_none() && self.drops.find(drop_id).await?.is_none() {
            return Err(StockError::DropNotFound);
        }
        let (reply, answer) = oneshot::channel();
        let message = Message::Do { operation, reply, arrived: Instant::now() };
        if !self.send(drop_id, message) {
            return Err(StockError::OVERLOADED);
        }
        match timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StockError::Unexpected("the drop's queue went away".to_owned())),
            Err(_) => Err(StockError::Unavailable),
        }
    }

    /// Tells the drop's queue of a deadline that it may not know.
    pub(super) fn expect_deadline(self: &Arc<Self>, drop_id: DropId, deadline: Instant) {
        // A full queue needs no telling: each of its batches takes back what has lapsed.
        self.send(drop_id, Message::Deadline(deadline));
    }

    /// Waits until no transaction is under way.
    pub(super) async fn drain(&self) {
        let mut under_way = self.under_way.subscribe();
        // An error means that the sender is gone; it lives in `self`.
        drop(under_way.wait_for(|count| *count == 0).await);
    }

    /// Puts a message into the drop's queue, which is opened if there is none. `false`: it is full. All under one
    /// lock, so that no queue goes away with a message in it.
    fn send(self: &Arc<Self>, drop_id: DropId, message: Message) -> bool {
        let mut open = self.lock();
        // A closed one belonged to a task that failed.
        let there = open.get(&drop_id).filter(|there| !there.messages.is_closed());
        let queue = there.map(|there| there.messages.clone()).unwrap_or_else(|| {
            let (messages, receiver) = mpsc::channel(LONGEST_QUEUE);
            let memory = Arc::new(Memory::default());
            tokio::spawn(Queue::new(self.clone(), drop_id, receiver, memory.clone()).work());
            open.insert(drop_id, Open { messages: messages.clone(), memory });
            messages
        });
        queue.try_send(message).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DropId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue of one drop, in its task.
struct Queue {
    all: Arc<Queues>,
    drop_id: DropId,
    messages: mpsc::Receiver<Message>,
    memory: Arc<Memory>,
    /// When the next hold lapses, as far as is known.
    deadline: Option<Instant>,
}

impl Queue {
    fn new(
        all: Arc<Queues>,
        drop_id: DropId,
        messages: mpsc::Receiver<Message>,
        memory: Arc<Memory>,
    ) -> Self {
        Self { all, drop_id, messages, memory, deadline: None }
    }

    async fn work(mut self) {
        loop {
            let wake = self.deadline.unwrap_or_else(|| Instant::now() + IDLE);
            let first = tokio::select! {
                message = self.messages.recv() => message,
                () = tokio::time::sleep_until(wake) => None,
            };
            let mut jobs = Vec::new();
            first.into_iter().for_each(|message| self.take(message, &mut jobs));
            while jobs.len() < self.all.largest_batch
                && let Ok(message) = self.messages.try_recv()
            {
                self.take(message, &mut jobs);
            }
            let due = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !jobs.is_empty() || due {
                self.do_together(jobs).await;
            } else if self.deadline.is_none() && self.close_if_empty() {
                return;
            }
        }
    }

    fn take(&mut self, message: Message, jobs: &mut Vec<Job>) {
        match message {
            Message::Deadline(known) => {
                self.deadline = Some(self.deadline.map_or(known, |deadline| deadline.min(known)));
            }
            // Who hung up before the batch is not in it.
            Message::Do { reply, .. } if reply.is_closed() => {}
            Message::Do { reply, arrived, .. } if arrived.elapsed() > LONGEST_WAIT => {
                drop(reply.send(Err(StockError::OVERLOADED)));
            }
            Message::Do { operation, reply, arrived } => jobs.push(Job { operation, reply, arrived }),
        }
    }

    /// Under the lock that a sender needs: a message is either seen here or finds no queue.
    fn close_if_empty(&self) -> bool {
        let mut open = self.all.lock();
        let empty = self.messages.is_empty();
        if empty {
            open.remove(&self.drop_id);
        }
        empty
    }

    async fn do_together(&mut self, jobs: Vec<Job>) {
        let operations: Vec<Operation> = jobs.iter().map(|job| job.operation.clone()).collect();
        let arrived = jobs.iter().map(|job| job.arrived).min().unwrap_or_else(Instant::now);
        let settled = loop {
            match self.settle(&operations, arrived).await {
                Ok(Some(done)) if done.is_partial => self.tell(done, Vec::new()),
                settled => break settled,
            }
        };
        match settled {
            Ok(Some(done)) => {
                self.tell(done, jobs);
                // Before the next batch, and after its answers: nobody waits for it.
                if let Err(error) = self.memory.learn(&self.all.db, self.drop_id).await {
                    tracing::debug!(%error, drop_id = %self.drop_id, "who holds pairs is not known");
                }
            }
            Ok(None) => {
                self.deadline = None;
                answer_all(jobs, &StockError::DropNotFound);
            }
            // One operation may have broken the batch: alone, the others succeed.
            Err(error @ (DbError::Unexpected(_) | DbError::Constraint(_))) if jobs.len() > 1 => {
                tracing::error!(%error, drop_id = %self.drop_id, "a batch failed; its operations are run one by one");
                for job in jobs {
                    Box::pin(self.do_together(vec![job])).await;
                }
            }
            Err(error) => {
                // Without a known deadline the poll tells of one again; with it in the past this would spin.
                self.deadline = None;
                self.memory.forget();
                match &error {
                    DbError::Unexpected(_) | DbError::Constraint(_) => {
                        tracing::error!(%error, drop_id = %self.drop_id, "a stock transaction failed");
                    }
                    _ => tracing::warn!(%error, drop_id = %self.drop_id, "a stock transaction was given up"),
                }
                answer_all(jobs, &error.into());
            }
        }
    }

    fn tell(&mut self, done: Done, jobs: Vec<Job>) {
        self.deadline = done.next_deadline.map(|deadline| {
            // A clock that runs ahead must not make the task spin.
            done.state.read.moment_of(deadline).max(Instant::now() + Duration::from_millis(1))
        });
        let metrics = &self.all.metrics;
        metrics.holds_released.inc_by(done.released);
        metrics.holds_expired.inc_by(done.expiry_delays.len().try_into().unwrap_or_default());
        done.expiry_delays.iter().for_each(|delay| metrics.expiry_delay.observe(*delay));
        let granted = jobs.iter().zip(&done.answers).filter_map(|(job, answer)| match job.operation {
            Operation::Reserve { user, .. } if answer.refusal.is_none() => Some(user),
            _ => None,
        });
        self.memory.remember(&done.state, self.deadline, granted);
        // Also when this run changed nothing: the one before it may have, and died before it could tell.
        self.all.feed.announce(done.state);
        for (job, answer) in jobs.into_iter().zip(done.answers) {
            // The client may have gone; the hold stands, and its retry finds it.
            drop(job.reply.send(Ok(answer)));
        }
    }

    /// Runs the batch until its outcome is known, or for as long as its oldest operation can wait. A lost answer to
    /// COMMIT means unknown, not failed: the same batch again waits for the old backend's lock and then finds by
    /// key and id what was done.
    async fn settle(&self, operations: &[Operation], arrived: Instant) -> Result<Option<Done>, DbError> {
        let mut unknown = false;
        loop {
            let error = match self.try_once(operations).await {
                Ok(done) => return Ok(done),
                // Nothing was done, and nothing before it may have been.
                Err(error) if !unknown && !matches!(error, DbError::Unavailable(_)) => return Err(error),
                Err(error) => error,
            };
            unknown = true;
            if arrived.elapsed() > RETRY_FOR {
                return Err(DbError::Unavailable(format!("the outcome is unknown: {error}")));
            }
            self.all.metrics.stock_retries.inc();
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    async fn try_once(&self, operations: &[Operation]) -> Result<Option<Done>, DbError> {
        let _under_way = UnderWay::new(&self.all.under_way);
        let began = Instant::now();
        let connection = self.all.db.connection().await?;
        // Given up, a transaction takes its connection with it.
        let outcome = timeout(WATCHDOG, batch::run(connection, self.drop_id, operations)).await;
        self.all.metrics.stock_transaction.observe(began.elapsed().as_secs_f64());
        outcome
            .unwrap_or_else(|_| Err(DbError::Unavailable("no answer within the watchdog's time".to_owned())))
    }
}

fn answer_all(jobs: Vec<Job>, error: &StockError) {
    for job in jobs {
        drop(job.reply.send(Err(error.clone())));
    }
}

/// Counts a transaction while it lives.
struct UnderWay<'a>(&'a watch::Sender<usize>);

impl<'a> UnderWay<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
