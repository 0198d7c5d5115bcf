//! What a batch does to the counters, as it is added up here: the statement that writes only compares.

use super::ReservationStatus;
use crate::drops::StockCount;

/// What a batch does to a size.
#[derive(Debug)]
pub(super) struct SizeDelta {
    pub(super) size: String,
    pub(super) reserved: i32,
    pub(super) purchased: i32,
    pub(super) released: i32,
    pub(super) expired: i32,
    /// The counters after it.
    pub(super) count: StockCount,
    /// The lowest pair number never used, after it.
    pub(super) next_pair: i32,
}

impl SizeDelta {
    /// Nothing yet, of a size as it was found.
    pub(super) fn none(size: &str, count: StockCount, next_pair: i32) -> Self {
        let size = size.to_owned();
        Self { size, reserved: 0, purchased: 0, released: 0, expired: 0, count, next_pair }
    }

    /// Whether the size is touched.
    pub(super) fn is_any(&self) -> bool {
        self.reserved + self.purchased + self.released + self.expired > 0
    }

    /// A hold of this pair was made.
    pub(super) fn reserve(&mut self, pair_number: i32) {
        self.reserved += 1;
        self.count.available -= 1;
        self.count.held += 1;
        self.next_pair = self.next_pair.max(pair_number + 1);
    }

    /// A hold became this.
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
