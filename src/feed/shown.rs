//! A drop's state as subscribers see it.

use std::sync::Arc;

use chrono::TimeDelta;
use tokio::time::Instant;

use crate::{
    clock::{ClockReading, Timestamp},
    drops::{DropState, DropStatus},
};

/// How late a start or an end may be shown. Readings differ by less: by their transit times.
pub(super) const OFF: TimeDelta = TimeDelta::milliseconds(250);

/// A state of a drop, with its status by the clock.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The whole drop.
    pub state: Arc<DropState>,
    /// The status when it was read.
    pub status: DropStatus,
}

impl Shown {
    pub(super) fn new(state: Arc<DropState>) -> Self {
        Self { status: state.status(state.read.at), state }
    }

    /// Returns when it was read, by the database clock.
    pub fn at(&self) -> Timestamp {
        self.state.read.at
    }

    /// Returns whether it is newer than `before`: a later version, or the same version with another status and a
    /// later reading.
    pub(super) fn is_news_after(&self, before: &Self) -> bool {
        match self.state.version.cmp(&before.state.version) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => self.status != before.status && self.is_read_after(before),
            std::cmp::Ordering::Less => false,
        }
    }

    /// Returns whether it is the same news, read later, which keeps the timer accurate.
    pub(super) fn is_later_reading_of(&self, before: &Self) -> bool {
        self.state.version == before.state.version
            && self.status == before.status
            && self.is_read_after(before)
    }

    fn is_read_after(&self, before: &Self) -> bool {
        self.state.read.is_later_than(&before.state.read)
    }

    /// Returns whether the clock has changed the status, or will at another moment than this reading predicts.
    pub(super) fn is_off(&self, clock: &ClockReading) -> bool {
        let now = clock.now();
        let changes = self.state.next_clock_change(now).is_some();
        self.state.status(now) != self.status || changes && self.state.read.differs_by(clock) > OFF
    }

    /// Returns whether it must be sent at once: a size sold out or came back, or the status changed.
    pub(super) fn is_urgent_after(&self, before: &Self) -> bool {
        let empty =
            |shown: &Self| shown.state.sizes.iter().map(|size| size.count.available == 0).collect::<Vec<_>>();
        self.status != before.status || empty(self) != empty(before)
    }

    /// Returns the local moment at which the clock will surely have changed the status.
    pub(super) fn next_clock_change(&self) -> Option<Instant> {
        self.state.next_clock_change(self.at()).map(|instant| self.state.read.moment_of(instant))
    }
}
