//! What waits in the queue of a drop.

use std::time::Duration;

use tokio::time::Instant;

use super::Reply;
use crate::stock::operation::{Answer, Operation, Refusal, StockError};

/// An operation that has waited this long is told to come back instead of being begun.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// An operation taken out of the queue.
pub(super) struct Job {
    pub(super) operation: Operation,
    pub(super) reply: Reply,
    /// When it came, or when it was begun.
    pub(super) waits_since: Instant,
    /// Whether it may be done, in a part of its batch or in a try whose outcome is unknown: then it must not be called
    /// undone, and is not left half done either.
    pub(super) is_begun: bool,
}

impl Job {
    pub(super) fn reserves(&self) -> bool {
        matches!(self.operation, Operation::Reserve { .. })
    }

    /// Itself, if it is begun, or somebody waits for it who has not waited for too long.
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
        // The client may have gone; the hold stands, and its retry finds it.
        drop(self.reply.send(answer));
    }
}
