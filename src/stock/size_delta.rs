//! What a batch changes in the counters. The sums are made here: the statement that writes only compares.

use super::ReservationStatus;
use crate::drops::StockCount;

/// What a batch changes in one size.
#[derive(Debug)]
pub(super) struct SizeDelta {
    pub(super) size: String,
    pub(super) reserved: i32,
    pub(super) purchased: i32,
    pub(super) released: i32,
    pub(super) expired: i32,
    /// The counters after the batch.
    pub(super) count: StockCount,
    /// The lowest pair number never used, after the batch.
    pub(super) next_pair: i32,
}

impl SizeDelta {
    /// Returns an empty delta of a size as it was found.
    pub(super) fn none(size: &str, count: StockCount, next_pair: i32) -> Self {
        let size = size.to_owned();
        Self { size, reserved: 0, purchased: 0, released: 0, expired: 0, count, next_pair }
    }

    /// Returns whether the batch changes the size.
    pub(super) fn is_any(&self) -> bool {
        self.reserved + self.purchased + self.released + self.expired > 0
    }

    /// Counts a new hold of this pair.
    pub(super) fn reserve(&mut self, pair_number: i32) {
        self.reserved += 1;
        self.count.available -= 1;
        self.count.held += 1;
        self.next_pair = self.next_pair.max(pair_number + 1);
    }

    /// Counts a hold that was closed with this status.
    pub(super) fn close(&mut self, to: ReservationStatus) {
        self.count.held -= 1;
        match to {
            ReservationStatus::Purchased => {
                self.purchased += 1;
                self.count.sold += 1;
                return;
            }
            ReservationStatus::Expired => self.expired += 1,
            ReservationStatus::Cancelled => self.released += 1,
            ReservationStatus::Active => return,
        }
        self.count.available += 1;
    }
}
