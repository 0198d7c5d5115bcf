//! Every change to the stock counters: reserve, purchase, cancel, expire.
//!
//! All changes go through the drop's queue. One transaction executes everything that waits in it, under the lock of
//! the drop's row. No other module writes these tables once the drop is created.

pub mod audit;
mod batch;
mod decide;
mod expected;
mod first_pages;
mod freed;
mod lists;
mod memory;
mod operation;
mod queries;
mod queue;
mod reservation;
mod size_delta;

use std::{sync::Arc, time::Duration};

pub use first_pages::FirstPages;
pub use lists::{ListReservations, PageKey};
pub use operation::{Answer, CancelRefusal, PurchaseRefusal, ReserveRefusal, StockError};
pub use reservation::{Purchase, Reservation, ReservationStatus};

use crate::{
    admission::Admission,
    clock::ClockReading,
    config::Limits,
    db::{Database, DbError},
    drops::Drops,
    feed::Feed,
    ids::{DropId, HoldId, ReservationId, UserId},
    rates::Rates,
    telemetry::{Metrics, Outcome},
};
use operation::{Operation, Refusal};
use queue::Queues;

/// Interval at which the database is polled for deadlines of holds made by another server, or by this one before a
/// restart. A queue knows its own.
const DEADLINE_POLL: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);

/// A reservation request.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The drop.
    pub drop_id: DropId,
    /// The size; optional when the drop has only one.
    pub size: Option<String>,
    /// Chosen by the client, one per intent.
    pub idempotency_key: Option<String>,
    /// Required by some drops.
    pub admission: Option<Admission>,
}

/// The stock service. Clones are cheap and share state.
#[derive(Clone)]
pub struct Stock {
    db: Database,
    queues: Arc<Queues>,
    /// Rate limit of reservations per buyer. Purchases have none: they are what a drop is for.
    reserves: Arc<Rates<UserId>>,
    cancels: Arc<Rates<UserId>>,
    first_pages: Arc<first_pages::PageCache>,
    metrics: Metrics,
}

impl Stock {
    /// Creates the service over `db`, which publishes committed states to `feed`.
    /// [`watch_deadlines`](Self::watch_deadlines) has to run beside it.
    pub fn new(db: &Database, drops: &Drops, feed: &Feed, metrics: &Metrics, limits: &Limits) -> Self {
        let queues = Queues::new(db.clone(), drops.clone(), feed.clone(), metrics.clone(), limits.batch);
        let queues = Arc::new(queues);
        Self {
            db: db.clone(),
            queues,
            reserves: Arc::new(Rates::new(limits.reserves_per_buyer, MINUTE)),
            cancels: Arc::new(Rates::new(limits.cancels_per_buyer, MINUTE)),
            first_pages: Arc::new(first_pages::PageCache::new()),
            metrics: metrics.clone(),
        }
    }

    /// Holds a pair for the buyer, or returns a refusal. A retry with the same key returns the first reservation.
    ///
    /// # Errors
    /// The drop does not exist, or there is no answer: then a retry with the same key settles the outcome.
    pub async fn reserve(
        &self,
        user: UserId,
        reserve: Reserve,
    ) -> Result<Answer<ReserveRefusal>, StockError> {
        self.reserves.take(user).map_err(|retry_after| StockError::TooOften { retry_after })?;
        // The hold's id is fixed here, so that a batch rerun after a lost COMMIT finds its own work.
        let hold_id = HoldId::new();
        // A generated key begins with a character that a client's key cannot have.
        let key = reserve.idempotency_key.unwrap_or_else(|| format!("\u{1}{hold_id}"));
        let Reserve { drop_id, size, admission, .. } = reserve;
        let operation = Operation::Reserve { user, hold_id, size, key, admission };
        let answer = self.queues.run(drop_id, operation).await;
        self.count(&self.metrics.reservations, &answer, "reserved");
        Ok(answer?.narrow(|refusal| match refusal {
            Refusal::Reserve(refusal) => Some(refusal),
            Refusal::Purchase(_) | Refusal::Cancel(_) => None,
        }))
    }

    /// Turns the buyer's active hold into a purchase. A repeat returns the same purchase.
    ///
    /// # Errors
    /// There is no answer: then a retry settles the outcome.
    pub async fn purchase(
        &self,
        user: UserId,
        id: ReservationId,
    ) -> Result<Answer<PurchaseRefusal>, StockError> {
        let answer = self.queues.run(id.drop_id, Operation::Purchase { user, hold_id: id.hold_id }).await;
        self.count(&self.metrics.purchases, &answer, "purchased");
        Ok(answer?.narrow(|refusal| match refusal {
            Refusal::Purchase(refusal) => Some(refusal),
            Refusal::Reserve(_) | Refusal::Cancel(_) => None,
        }))
    }

    /// Cancels the buyer's hold. A hold that is already closed, other than by a purchase, stays as it is.
    ///
    /// # Errors
    /// As for [`purchase`](Self::purchase).
    pub async fn cancel_reservation(
        &self,
        user: UserId,
        id: ReservationId,
    ) -> Result<Answer<CancelRefusal>, StockError> {
        self.cancels.take(user).map_err(|retry_after| StockError::TooOften { retry_after })?;
        let answer = self.queues.run(id.drop_id, Operation::Cancel { user, hold_id: id.hold_id }).await;
        Ok(answer?.narrow(|refusal| match refusal {
            Refusal::Cancel(refusal) => Some(refusal),
            Refusal::Reserve(_) | Refusal::Purchase(_) => None,
        }))
    }

    /// Cancels a drop and its active holds. A repeat changes nothing.
    ///
    /// # Errors
    /// The drop does not exist, or there is no answer.
    pub async fn cancel_drop(&self, id: DropId) -> Result<Answer<std::convert::Infallible>, StockError> {
        Ok(self.queues.run(id, Operation::CancelDrop).await?.narrow(|_| None))
    }

    /// Polls for deadlines that no queue of this server knows, for as long as the future is polled. The first poll is
    /// immediate, so that holds which expired before a restart are released right away. Errors are logged and
    /// retried.
    pub async fn watch_deadlines(self) {
        loop {
            if let Err(error) = self.look_for_deadlines().await {
                tracing::warn!(%error, "cannot read the deadlines of holds; trying again");
            }
            tokio::time::sleep(DEADLINE_POLL).await;
        }
    }

    /// Reads the next deadline of each drop and passes it to the drop's queue.
    ///
    /// # Errors
    /// A database error.
    pub async fn look_for_deadlines(&self) -> Result<(), DbError> {
        let (now, deadlines) =
            self.db.run(async |connection| queries::list_deadlines(connection).await).await?;
        let reading = ClockReading::arrived_now(now);
        for (drop_id, deadline) in deadlines {
            self.queues.expect_deadline(drop_id, reading.moment_of(deadline));
        }
        Ok(())
    }

    /// Waits until no transaction is in flight.
    pub async fn drain(&self) {
        self.queues.drain().await;
    }

    fn count(
        &self,
        family: &prometheus_client::metrics::family::Family<
            Outcome,
            prometheus_client::metrics::counter::Counter,
        >,
        answer: &Result<Answer<Refusal>, StockError>,
        done: &'static str,
    ) {
        let outcome = match answer {
            Ok(Answer { refusal: None, .. }) => done,
            Ok(Answer { refusal: Some(refusal), .. }) => refusal.name(),
            Err(error) => error.name(),
        };
        family.get_or_create(&Outcome::of(outcome)).inc();
    }
}
