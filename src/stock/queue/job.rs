//! An operation in the queue of a drop.

use std::time::Duration;

use tokio::time::Instant;

use super::Reply;
use crate::stock::operation::{Answer, Operation, Refusal, StockError};

/// An operation that has waited this long is refused as overloaded instead of executed.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// An operation taken from the queue.
pub(super) struct Job {
    pub(super) operation: Operation,
    pub(super) reply: Reply,
    /// When it arrived, or when it began.
    pub(super) waits_since: Instant,
    /// Whether it may be done, by a part of its batch or a try with an unknown outcome. Then it must not be reported
    /// as not done, nor be left half done.
    pub(super) is_begun: bool,
}

impl Job {
    pub(super) fn reserves(&self) -> bool {
        matches!(self.operation, Operation::Reserve { .. })
    }

    /// Returns the job if it has begun, or its caller still waits and has not waited too long.
    pub(super) fn if_in_time(self) -> Option<Self> {
        if self.is_begun {
            return Some(self);
        }
        if self.reply.is_closed() {
            return None;
        }
        if self.waits_since.elapsed() > LONGEST_WAIT {
            self.answer(Err(StockError::OVERLOADED));
            return None;
        }
        Some(self)
    }

    pub(super) fn answer(self, answer: Result<Answer<Refusal>, StockError>) {
        let answer = match answer {
            Err(StockError::Overloaded { .. } | StockError::Unexpected(_)) if self.is_begun => {
                Err(StockError::Unavailable)
            }
            answer => answer,
        };
        // The caller may be gone; the hold stands, and a retry finds it.
        drop(self.reply.send(answer));
    }
}
