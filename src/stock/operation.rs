//! Operations on a drop's stock, and their answers.

use std::{sync::Arc, time::Duration};

use super::{Purchase, Reservation};
use crate::{
    admission::Admission,
    db::DbError,
    drops::DropState,
    ids::{HoldId, UserId},
};

/// An operation to execute under the drop's lock.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Holds a pair.
    Reserve { user: UserId, hold_id: HoldId, size: Option<String>, key: String, admission: Option<Admission> },
    /// Buys the held pair.
    Purchase { user: UserId, hold_id: HoldId },
    /// Cancels the hold.
    Cancel { user: UserId, hold_id: HoldId },
    /// Cancels the drop.
    CancelDrop,
}

/// Why no pair was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReserveRefusal {
    /// The drop requires an admission, and none was given that is valid now and unused.
    AdmissionRequired,
    /// The drop has not started.
    NotStarted,
    /// The drop has ended.
    Ended,
    /// The drop was cancelled.
    Cancelled,
    /// The drop has more than one size and none was named.
    SizeRequired,
    /// The drop has no such size.
    UnknownSize,
    /// Every pair of the size is sold.
    SoldOut,
    /// No pair of the size is free, but some are only held.
    AllHeld,
    /// The buyer has reached the drop's purchase limit.
    LimitReached,
    /// The key was used with another size.
    KeyReused,
}

/// Why nothing was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PurchaseRefusal {
    /// The buyer has no such reservation.
    NotFound,
    /// The hold expired.
    Expired,
    /// The hold was cancelled.
    Cancelled,
}

/// Why nothing was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelRefusal {
    /// The buyer has no such reservation.
    NotFound,
    /// The pair was bought.
    AlreadyPurchased,
}

/// A refusal of any operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    Reserve(ReserveRefusal),
    Purchase(PurchaseRefusal),
    Cancel(CancelRefusal),
}

impl Refusal {
    /// Returns the label for the metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reserve(ReserveRefusal::AdmissionRequired) => "admission_required",
            Self::Reserve(ReserveRefusal::NotStarted) => "not_started",
            Self::Reserve(ReserveRefusal::Ended) => "ended",
            Self::Reserve(ReserveRefusal::Cancelled) => "cancelled",
            Self::Reserve(ReserveRefusal::SizeRequired) => "size_required",
            Self::Reserve(ReserveRefusal::UnknownSize) => "unknown_size",
            Self::Reserve(ReserveRefusal::SoldOut) => "sold_out",
            Self::Reserve(ReserveRefusal::AllHeld) => "all_held",
            Self::Reserve(ReserveRefusal::LimitReached) => "limit_reached",
            Self::Reserve(ReserveRefusal::KeyReused) => "key_reused",
            Self::Purchase(PurchaseRefusal::NotFound) | Self::Cancel(CancelRefusal::NotFound) => "not_found",
            Self::Purchase(PurchaseRefusal::Expired) => "expired",
            Self::Purchase(PurchaseRefusal::Cancelled) => "cancelled",
            Self::Cancel(CancelRefusal::AlreadyPurchased) => "already_purchased",
        }
    }
}

/// The outcome of an operation.
#[derive(Clone, Debug)]
pub struct Answer<R> {
    /// Why it was refused; `None` if it was done, now or before.
    pub refusal: Option<R>,
    /// The reservation concerned: the one held, bought or cancelled, or the active hold that uses up the limit.
    pub reservation: Option<Reservation>,
    /// The drop after the operation. Its `read.at` is the instant of the decision, by the database clock; in an
    /// answer from memory, the current time.
    pub state: Arc<DropState>,
}

impl<R> Answer<R> {
    /// Returns the purchase, if the pair was bought.
    pub fn purchase(&self) -> Option<Purchase> {
        self.reservation.as_ref().and_then(Reservation::purchase)
    }
}

impl Answer<Refusal> {
    /// Narrows the answer to one kind of operation, whose refusals `to` selects.
    pub(super) fn narrow<R>(self, to: impl FnOnce(Refusal) -> Option<R>) -> Answer<R> {
        // Not `None`, which would mean that the operation was done.
        let narrowed = |refusal| {
            to(refusal).unwrap_or_else(|| unreachable!("a refusal of another operation: {refusal:?}"))
        };
        Answer { refusal: self.refusal.map(narrowed), reservation: self.reservation, state: self.state }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StockError {
    /// The drop does not exist.
    #[error("there is no such drop")]
    DropNotFound,
    /// Too much is waiting to be executed in time; nothing was done.
    #[error("too much at once")]
    Overloaded {
        /// Delay before a retry.
        retry_after: Duration,
    },
    /// The buyer exceeded a rate limit; nothing was done.
    #[error("too often")]
    TooOften {
        /// Delay before a retry.
        retry_after: Duration,
    },
    /// PostgreSQL is unavailable. The outcome is unknown: a retry with the same key settles it.
    #[error("PostgreSQL is unavailable")]
    Unavailable,
    /// An internal error; nothing was done.
    #[error("{0}")]
    Unexpected(String),
}

impl StockError {
    pub(super) const OVERLOADED: Self = Self::Overloaded { retry_after: Duration::from_millis(500) };

    /// Returns the label for the metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::DropNotFound => "drop_not_found",
            Self::Overloaded { .. } => "overloaded",
            Self::TooOften { .. } => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Unexpected(_) => "failed",
        }
    }
}

impl From<DbError> for StockError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Overloaded(_) => Self::OVERLOADED,
            DbError::Unavailable(_) => Self::Unavailable,
            DbError::Constraint(_) | DbError::Unexpected(_) => Self::Unexpected(error.to_string()),
        }
    }
}
