//! One state of a drop as subscribers see it.

use std::sync::Arc;

use chrono::TimeDelta;
use tokio::time::Instant;

use crate::{
    clock::{ClockReading, Timestamp},
    drops::{DropState, DropStatus},
};

/// A start or an end may be shown late by so much. Readings differ by less: by how long they were on their way.
pub(super) const OFF: TimeDelta = TimeDelta::milliseconds(250);

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
            std::cmp::Ordering::Equal => self.status != before.status && self.is_read_after(before),
            std::cmp::Ordering::Less => false,
        }
    }

    /// Whether it is the same news, read later: it keeps the timer true.
    pub(super) fn is_later_reading_of(&self, before: &Self) -> bool {
        self.state.version == before.state.version
            && self.status == before.status
            && self.is_read_after(before)
    }

    fn is_read_after(&self, before: &Self) -> bool {
        self.state.read.is_later_than(&before.state.read)
    }

    /// Whether the clock has made something else of it, or will at another moment than it was read to.
    pub(super) fn is_off(&self, clock: &ClockReading) -> bool {
        let now = clock.now();
        let changes = self.state.next_clock_change(now).is_some();
        self.state.status(now) != self.status || changes && self.state.read.differs_by(clock) > OFF
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
