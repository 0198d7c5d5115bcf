//! A drop at one version.

use crate::{
    clock::{ClockReading, Timestamp},
    ids::DropId,
    page::{Cursor, List},
};

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money {
    /// In the currency's minor unit.
    pub amount: i32,
    /// The ISO 4217 code.
    pub currency: String,
}

/// The status of a drop, derived from the clock and its flags: the first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropStatus {
    /// Cancelled by an administrator.
    Cancelled,
    /// Its end has passed.
    Ended,
    /// It has not started.
    Scheduled,
    /// Every pair is sold.
    SoldOut,
    /// On sale.
    Live,
}

impl DropStatus {
    /// Returns whether the drop is live or sold out, and so shown to subscribers of the board.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Live | Self::SoldOut)
    }

    /// Returns whether the drop has ended or was cancelled: nothing can be reserved any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Cancelled)
    }
}

/// The description of a drop, without its stock.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// A name, such as the model's.
    pub name: String,
    /// A text about it.
    pub description: Option<String>,
    /// An `http` or `https` URL.
    pub image_url: Option<String>,
    /// The price of one pair.
    pub price: Money,
    /// When the sale starts.
    pub starts_at: Timestamp,
    /// When the sale ends; `None` for never.
    pub ends_at: Option<Timestamp>,
    /// How long a reservation holds a pair, in seconds.
    pub hold_seconds: i32,
    /// Maximum of pairs per buyer.
    pub purchase_limit: i32,
    /// Whether `reserve` requires an admission.
    pub admission_required: bool,
    /// When the drop was cancelled.
    pub cancelled_at: Option<Timestamp>,
    /// When the drop was created.
    pub created_at: Timestamp,
}

#[cfg(test)]
impl Catalogue {
    /// Returns a drop on sale from `now` on, one pair per buyer, held for a minute.
    pub(crate) fn example(now: Timestamp) -> Self {
        Self {
            name: "Runner".to_owned(),
            description: None,
            image_url: None,
            price: Money { amount: 1, currency: "USD".to_owned() },
            starts_at: now,
            ends_at: None,
            hold_seconds: 60,
            purchase_limit: 1,
            admission_required: false,
            cancelled_at: None,
            created_at: now,
        }
    }
}

/// Pairs by status; always `total = available + held + sold`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockCount {
    /// All pairs.
    pub total: i32,
    /// Free pairs.
    pub available: i32,
    /// Held and not bought, including expired holds that are not released yet.
    pub held: i32,
    /// Bought pairs.
    pub sold: i32,
}

/// The stock of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeStock {
    /// As printed on the box.
    pub size: String,
    /// The pairs by status.
    pub count: StockCount,
}

/// The version of a drop as `queries::insert_drop` creates it, without reservations.
pub const FIRST_VERSION: i32 = 1;

/// A drop at one version, read by one statement or under the drop's lock.
#[derive(Clone, Debug)]
pub struct DropState {
    /// The drop's id.
    pub id: DropId,
    /// Its description.
    pub catalogue: Catalogue,
    /// The sizes, in the order in which the administrator listed them.
    pub sizes: Vec<SizeStock>,
    /// Begins with [`FIRST_VERSION`] and rises by one with each change.
    pub version: i32,
    /// The database clock when this was read.
    pub read: ClockReading,
}

impl DropState {
    /// Returns the sum of all sizes.
    pub fn count(&self) -> StockCount {
        self.sizes.iter().fold(StockCount::default(), |sum, size| StockCount {
            total: sum.total + size.count.total,
            available: sum.available + size.count.available,
            held: sum.held + size.count.held,
            sold: sum.sold + size.count.sold,
        })
    }

    /// Returns the position in a list of drops.
    pub fn cursor(&self) -> Cursor {
        Cursor { list: List::Drops, at: self.catalogue.starts_at, id: self.id.0 }
    }

    /// Returns the status at `at`.
    pub fn status(&self, at: Timestamp) -> DropStatus {
        let catalogue = &self.catalogue;
        if catalogue.cancelled_at.is_some() {
            DropStatus::Cancelled
        } else if catalogue.ends_at.is_some_and(|ends_at| ends_at <= at) {
            DropStatus::Ended
        } else if catalogue.starts_at > at {
            DropStatus::Scheduled
        } else if self.sizes.iter().all(|size| size.count.sold == size.count.total) {
            DropStatus::SoldOut
        } else {
            DropStatus::Live
        }
    }

    /// Returns the next instant after `at` at which the clock alone changes the status.
    pub fn next_clock_change(&self, at: Timestamp) -> Option<Timestamp> {
        let Catalogue { starts_at, ends_at, cancelled_at, .. } = self.catalogue;
        let ahead = |instant: &Timestamp| cancelled_at.is_none() && *instant > at;
        [Some(starts_at), ends_at].into_iter().flatten().filter(ahead).min()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_first_status_that_applies_is_the_status() {
        let at = chrono::Utc::now();
        let hour = TimeDelta::hours(1);
        let state = |starts_at, ends_at, cancelled_at, sold| DropState {
            id: DropId::new(),
            catalogue: Catalogue { starts_at, ends_at, cancelled_at, ..Catalogue::example(at) },
            sizes: vec![SizeStock {
                size: "ONE".to_owned(),
                count: StockCount { total: 2, available: 2 - sold, held: 0, sold },
            }],
            version: 1,
            read: ClockReading::arrived_now(at),
        };
        assert_eq!(state(at, Some(at + hour), None, 1).status(at), DropStatus::Live);
        assert_eq!(state(at, Some(at + hour), None, 2).status(at), DropStatus::SoldOut);
        assert_eq!(state(at + hour, None, None, 2).status(at), DropStatus::Scheduled);
        assert_eq!(state(at - hour, Some(at), None, 2).status(at), DropStatus::Ended);
        assert_eq!(state(at - hour, Some(at), Some(at), 0).status(at), DropStatus::Cancelled);
        assert_eq!(state(at + hour, Some(at + hour * 2), None, 0).next_clock_change(at), Some(at + hour));
        assert_eq!(state(at, Some(at + hour), None, 0).next_clock_change(at), Some(at + hour));
        assert_eq!(state(at, Some(at + hour), Some(at), 0).next_clock_change(at), None);
    }
}
