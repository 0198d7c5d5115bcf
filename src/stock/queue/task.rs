//! The task that executes what waits in the queue of one drop.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{LONGEST_QUEUE, Message, Queues, job::Job};
use crate::{
    db::DbError,
    ids::DropId,
    stock::{
        batch::{self, Done},
        expected::Expected,
        freed::Freed,
        memory::Memory,
        operation::{Operation, StockError},
    },
};

/// How long an operation with an unknown outcome is retried, from its arrival or the last part of its batch.
const RETRY_FOR: Duration = Duration::from_secs(3);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// The queue of one drop, owned by its task.
pub(super) struct Queue {
    all: Arc<Queues>,
    drop_id: DropId,
    messages: mpsc::Receiver<Message>,
    memory: Arc<Memory>,
    /// When the next hold expires, if known.
    deadline: Option<Instant>,
    /// The state in which the last batch left the drop, if known.
    expected: Option<Expected>,
    freed: Freed,
}

impl Queue {
    pub(super) fn new(
        all: Arc<Queues>,
        drop_id: DropId,
        messages: mpsc::Receiver<Message>,
        memory: Arc<Memory>,
    ) -> Self {
        Self { all, drop_id, messages, memory, deadline: None, expected: None, freed: Freed::default() }
    }

    pub(super) async fn work(mut self) {
        // What a partial batch has left to do, and what arrived meanwhile.
        let mut jobs: Vec<Job> = Vec::new();
        let mut is_in_parts = false;
        loop {
            if jobs.is_empty() {
                let wake = self.deadline.unwrap_or_else(|| Instant::now() + self.all.idle);
                let first = tokio::select! {
                    message = self.messages.recv() => message,
                    () = tokio::time::sleep_until(wake) => None,
                };
                first.into_iter().for_each(|message| self.take(message, &mut jobs));
            }
            // A partial batch grants nothing, so purchases must not wait behind reserves.
            let room = if is_in_parts { LONGEST_QUEUE } else { self.all.largest_batch };
            while jobs.len() < room
                && let Ok(message) = self.messages.try_recv()
            {
                self.take(message, &mut jobs);
            }
            if is_in_parts {
                jobs.sort_by_key(Job::reserves);
            }
            let later = jobs.split_off(jobs.len().min(self.all.largest_batch));
            let due = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !jobs.is_empty() || due {
                let left = self.do_together(jobs).await;
                is_in_parts = left.is_some();
                let left = left.into_iter().flatten();
                jobs = left.chain(later).filter_map(Job::if_in_time).collect();
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
            // Callers that hung up before the batch are not in it.
            Message::Do { operation, reply, arrived } => {
                let job = Job { operation, reply, waits_since: arrived, is_begun: false };
                jobs.extend(job.if_in_time());
            }
        }
    }

    /// Closes the queue if it is empty. It takes the senders' lock: a message is either seen here or finds no queue.
    fn close_if_empty(&self) -> bool {
        let mut open = self.all.lock();
        let empty = self.messages.is_empty();
        if empty {
            open.remove(&self.drop_id);
            self.all.count(&open);
        }
        empty
    }

    /// Runs one transaction. Returns the jobs if it was only a part of the batch.
    async fn do_together(&mut self, mut jobs: Vec<Job>) -> Option<Vec<Job>> {
        match self.settle(&mut jobs).await {
            Ok(Some(done)) if done.is_partial => {
                self.tell(done, Vec::new());
                for job in &mut jobs {
                    job.is_begun |= !job.reserves();
                    if job.is_begun {
                        job.waits_since = Instant::now();
                    }
                }
                return Some(jobs);
            }
            Ok(Some(done)) => {
                self.tell(done, jobs);
                // Before the next batch, and after its answers: no caller waits for it.
                if let Err(error) = self.memory.learn(&self.all.db, self.drop_id).await {
                    tracing::debug!(%error, drop_id = %self.drop_id, "cannot read the buyers of a drop");
                }
            }
            Ok(None) => {
                self.deadline = None;
                answer_all(jobs, &StockError::DropNotFound);
            }
            // One operation may have broken the batch: run alone, the others succeed.
            Err(error @ (DbError::Unexpected(_) | DbError::Constraint(_))) if jobs.len() > 1 => {
                tracing::error!(%error, drop_id = %self.drop_id, "a batch failed; its operations are run one by one");
                for job in jobs {
                    // The jobs before it may have taken long.
                    let mut left = job.if_in_time().map(|job| vec![job]);
                    while let Some(jobs) = left {
                        left = Box::pin(self.do_together(jobs)).await;
                    }
                }
            }
            Err(error) => {
                // Without a known deadline the poll sends one again; a deadline in the past would make this spin.
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
        None
    }

    fn tell(&mut self, done: Done, jobs: Vec<Job>) {
        self.deadline = done.next_deadline.map(|deadline| {
            // A clock that runs ahead must not make the task spin.
            done.clock.moment_of(deadline).max(Instant::now() + Duration::from_millis(1))
        });
        let metrics = &self.all.metrics;
        metrics.holds_released.inc_by(done.released);
        metrics.holds_expired.inc_by(done.expiry_delays.len().try_into().unwrap_or_default());
        done.expiry_delays.iter().for_each(|delay| metrics.expiry_delay.observe(*delay));
        let granted = jobs.iter().zip(&done.answers).filter_map(|(job, answer)| match job.operation {
            Operation::Reserve { user, .. } if answer.refusal.is_none() => Some(user),
            _ => None,
        });
        self.memory.remember(&done.state, self.deadline, done.changed, granted);
        // Even if this run changed nothing: the one before it may have, and failed before it could publish.
        self.all.feed.announce(done.state);
        for (job, answer) in jobs.into_iter().zip(done.answers) {
            job.answer(Ok(answer));
        }
    }

    /// Runs the batch until its outcome is known, or for as long as its oldest operation can wait. A lost answer to
    /// COMMIT means unknown, not failed: the rerun waits for the old backend's lock and then finds by key and id what
    /// was done. Operations that have begun are not given up for a lock either.
    async fn settle(&mut self, jobs: &mut [Job]) -> Result<Option<Done>, DbError> {
        let operations: Vec<Operation> = jobs.iter().map(|job| job.operation.clone()).collect();
        let is_begun = jobs.iter().any(|job| job.is_begun);
        let waiting = jobs.iter().filter(|job| job.is_begun == is_begun).map(|job| job.waits_since);
        let oldest = waiting.min().unwrap_or_else(Instant::now);
        let mut is_unknown = false;
        loop {
            let error = match self.try_once(&operations).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if matches!(error, DbError::Unavailable(_)) {
                is_unknown = true;
                jobs.iter_mut().for_each(|job| job.is_begun = true);
            }
            let can_wait = is_unknown || (is_begun && matches!(error, DbError::Overloaded(_)));
            match oldest.elapsed() > RETRY_FOR {
                true if is_unknown => {
                    return Err(DbError::Unavailable(format!("the outcome is unknown: {error}")));
                }
                false if can_wait => {}
                _ => return Err(error),
            }
            self.all.metrics.stock_retries.inc();
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    async fn try_once(&mut self, operations: &[Operation]) -> Result<Option<Done>, DbError> {
        let _under_way = UnderWay::new(&self.all.under_way);
        let began = Instant::now();
        let connection = self.all.db.connection().await?;
        let outcome =
            batch::run(connection, self.drop_id, operations, &mut self.expected, &mut self.freed).await;
        self.all.metrics.stock_transaction.observe(began.elapsed().as_secs_f64());
        outcome
    }
}

fn answer_all(jobs: Vec<Job>, error: &StockError) {
    for job in jobs {
        job.answer(Err(error.clone()));
    }
}

/// Counts a transaction as in flight while it lives.
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
