//! One state of a drop as subscribers see it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    clock::Timestamp,
    drops::{DropState, DropStatus},
};

/// A state of a drop and what the clock made of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The drop, whole.
    pub state: Arc<DropState>,
    /// Its status when it was read.
    pub status: DropStatus,
}

impl Shown {
    pub(super) fn new(state: Arc<DropState>) -> Self {
        Self { status: state.status(state.read.at), state }
    }

    /// When it was read, by the database clock.
    pub fn at(&self) -> Timestamp {
        self.state.read.at
    }

    /// Whether it tells more than `before`: a later version, or another status of the same version at a later time.
    pub(super) fn is_news_after(&self, before: &Self) -> bool {
        match self.state.version.cmp(&before.state.version) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => self.status != before.status && self.at() > before.at(),
            std::cmp::Ordering::Less => false,
        }
    }

    /// Whether it is the same news, read later: it keeps the timer true.
    pub(super) fn is_later_reading_of(&self, before: &Self) -> bool {
        self.state.version == before.state.version && self.status == before.status && self.at() > before.at()
    }

    /// Whether nobody should wait for it: a size sold out or came back, or the status changed.
    pub(super) fn is_urgent_after(&self, before: &Self) -> bool {
        let empty =
            |shown: &Self| shown.state.sizes.iter().map(|size| size.count.available == 0).collect::<Vec<_>>();
        self.status != before.status || empty(self) != empty(before)
    }

    /// The local moment at which the clock will surely have changed the status.
    pub(super) fn next_clock_change(&self) -> Option<Instant> {
        self.state.next_clock_change(self.at()).map(|instant| self.state.read.moment_of(instant))
    }
}
