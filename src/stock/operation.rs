//! What can be asked of a drop's stock, and what is answered.

use std::{sync::Arc, time::Duration};

use super::{Purchase, Reservation};
use crate::{
    admission::Admission,
    db::DbError,
    drops::DropState,
    ids::{HoldId, UserId},
};

/// Something to do under the drop's lock.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Hold a pair.
    Reserve { user: UserId, hold_id: HoldId, size: Option<String>, key: String, admission: Option<Admission> },
    /// Buy what is held.
    Purchase { user: UserId, hold_id: HoldId },
    /// Give back what is held.
    Cancel { user: UserId, hold_id: HoldId },
    /// Withdraw the drop.
    CancelDrop,
}

/// Why no pair was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReserveRefusal {
    /// The drop wants an admission, and this is none that is good now and was not used.
    AdmissionRequired,
    /// The start lies ahead.
    NotStarted,
    /// The end has passed.
    Ended,
    /// The drop was withdrawn.
    Cancelled,
    /// The drop has more than one size and none was named.
    SizeRequired,
    /// The drop has no such size.
    UnknownSize,
    /// Every pair of the size is sold.
    SoldOut,
    /// No pair of the size is free, but some are only held.
    AllHeld,
    /// The buyer has as many pairs as one may.
    LimitReached,
    /// The key was used with another size.
    KeyReused,
}

/// Why nothing was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PurchaseRefusal {
    /// No such reservation of this buyer.
    NotFound,
    /// It lapsed.
    Expired,
    /// It was given back.
    Cancelled,
}

/// Why nothing was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelRefusal {
    /// No such reservation of this buyer.
    NotFound,
    /// It was bought.
    AlreadyPurchased,
}

/// Any refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    Reserve(ReserveRefusal),
    Purchase(PurchaseRefusal),
    Cancel(CancelRefusal),
}

impl Refusal {
    /// As a label of the metrics.
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

/// What came of an operation.
#[derive(Clone, Debug)]
pub struct Answer<R> {
    /// Why it was not done; `None`: it was, now or before.
    pub refusal: Option<R>,
    /// The reservation it was about: the one held, bought or given back, or the live hold that stands in the way.
    pub reservation: Option<Reservation>,
    /// The drop after it. Its `read.at` is the instant at which it was decided, by the database clock; of an answer from
    /// memory, now.
    pub state: Arc<DropState>,
}

impl<R> Answer<R> {
    /// What was bought.
    pub fn purchase(&self) -> Option<Purchase> {
        self.reservation.as_ref().and_then(Reservation::purchase)
    }
}

impl Answer<Refusal> {
    /// The answer in terms of one kind of operation, whose refusals `to` picks out.
    pub(super) fn narrow<R>(self, to: impl FnOnce(Refusal) -> Option<R>) -> Answer<R> {
        // Not `None`, which would say that it was done.
        let narrowed = |refusal| {
            to(refusal).unwrap_or_else(|| unreachable!("a refusal of another operation: {refusal:?}"))
        };
        Answer { refusal: self.refusal.map(narrowed), reservation: self.reservation, state: self.state }
    }
}

/// No answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StockError {
    /// No such drop.
    #[error("there is no such drop")]
    DropNotFound,
    /// More was asked than can be done in time; nothing was done.
    #[error("too much at once")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// Too much by one buyer; nothing was done.
    #[error("too often")]
    TooOften {
        /// When to try again.
        retry_after: Duration,
    },
    /// PostgreSQL is gone. Whether it was done is unknown: a retry with the same key settles it.
    #[error("PostgreSQL is unavailable")]
    Unavailable,
    /// A mistake of ours; nothing was done.
    #[error("{0}")]
    Unexpected(String),
}

impl StockError {
    pub(super) const OVERLOADED: Self = Self::Overloaded { retry_after: Duration::from_millis(500) };

    /// As a label of the metrics.
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
