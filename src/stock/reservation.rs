//! Reservations and purchases.

use crate::{
    clock::Timestamp,
    drops::Money,
    ids::{ReservationId, UserId},
    page::{Cursor, List},
};

/// The status of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationStatus {
    /// The pair is held.
    Active,
    /// The pair was bought.
    Purchased,
    /// The deadline passed.
    Expired,
    /// Cancelled by the buyer, or with its drop.
    Cancelled,
}

impl ReservationStatus {
    /// Returns the status as it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Purchased => "purchased",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Purchased, Self::Expired, Self::Cancelled]
            .into_iter()
            .find(|status| status.name() == name)
    }

    /// Returns whether the hold owns its pair.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Purchased)
    }
}

/// A pair held for one buyer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The reservation's id.
    pub id: ReservationId,
    /// The size of the pair.
    pub size: String,
    /// The pair's number within the size, from 1.
    pub pair_number: i32,
    /// The buyer.
    pub user_id: UserId,
    /// The status when this was read: a hold past its deadline reads as expired, released or not.
    pub status: ReservationStatus,
    /// The price at the time of reserving.
    pub price: Money,
    /// When the hold was made.
    pub created_at: Timestamp,
    /// The deadline: the hold can be bought before this instant, and is expired from it on.
    pub expires_at: Timestamp,
    /// When the hold was bought, cancelled or, once expired, released.
    pub closed_at: Option<Timestamp>,
}

impl Reservation {
    /// Returns the purchase, if the pair was bought.
    pub fn purchase(&self) -> Option<Purchase> {
        let purchased_at = self.closed_at.filter(|_| self.status == ReservationStatus::Purchased)?;
        Some(Purchase {
            reservation_id: self.id,
            size: self.size.clone(),
            pair_number: self.pair_number,
            user_id: self.user_id,
            price: self.price.clone(),
            purchased_at,
        })
    }

    /// Returns the position among the drop's active holds.
    pub fn deadline_cursor(&self) -> Cursor {
        Cursor { list: List::LiveHolds, at: self.expires_at, id: self.id.hold_id.0 }
    }

    /// Returns the position among the buyer's reservations.
    pub fn history_cursor(&self) -> Cursor {
        Cursor { list: List::Reservations, at: self.created_at, id: self.id.hold_id.0 }
    }
}

/// A purchased pair, identified by its reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The reservation's id.
    pub reservation_id: ReservationId,
    /// The size of the pair.
    pub size: String,
    /// The pair's number within the size, from 1.
    pub pair_number: i32,
    /// The buyer.
    pub user_id: UserId,
    /// The price paid.
    pub price: Money,
    /// When the pair was bought.
    pub purchased_at: Timestamp,
}

impl Purchase {
    /// Returns the position in a list of purchases.
    pub fn cursor(&self) -> Cursor {
        Cursor { list: List::Purchases, at: self.purchased_at, id: self.reservation_id.hold_id.0 }
    }
}
