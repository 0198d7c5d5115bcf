//! A pair held, and a pair bought.

use crate::{
    clock::Timestamp,
    drops::Money,
    ids::{ReservationId, UserId},
    page::{Cursor, List},
};

/// What became of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationStatus {
    /// Holds its pair.
    Active,
    /// Became a purchase.
    Purchased,
    /// Its deadline passed.
    Expired,
    /// Given back by the buyer, or with its drop.
    Cancelled,
}

impl ReservationStatus {
    /// As it is stored.
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

    /// Whether it owns its pair.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Purchased)
    }
}

/// A pair held for one buyer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Which.
    pub id: ReservationId,
    /// Of which size.
    pub size: String,
    /// Which of the size's pairs, from 1.
    pub pair_number: i32,
    /// For whom.
    pub user_id: UserId,
    /// As it was when this was read: a hold past its deadline reads expired, taken back or not.
    pub status: ReservationStatus,
    /// At the moment of reserving.
    pub price: Money,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it lapses: it can be bought before this instant, and is expired from it on.
    pub expires_at: Timestamp,
    /// When it was bought, cancelled or taken back.
    pub closed_at: Option<Timestamp>,
}

impl Reservation {
    /// The purchase that it became.
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

    /// Its place among a drop's live holds.
    pub fn deadline_cursor(&self) -> Cursor {
        Cursor { list: List::LiveHolds, at: self.expires_at, id: self.id.hold_id.0 }
    }

    /// Its place among a person's reservations.
    pub fn history_cursor(&self) -> Cursor {
        Cursor { list: List::Reservations, at: self.created_at, id: self.id.hold_id.0 }
    }
}

/// A pair bought. It is named by the reservation that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// Which.
    pub reservation_id: ReservationId,
    /// Of which size.
    pub size: String,
    /// Which of the size's pairs, from 1.
    pub pair_number: i32,
    /// By whom.
    pub user_id: UserId,
    /// What it cost.
    pub price: Money,
    /// When.
    pub purchased_at: Timestamp,
}

impl Purchase {
    /// Its place among purchases.
    pub fn cursor(&self) -> Cursor {
        Cursor { list: List::Purchases, at: self.purchased_at, id: self.reservation_id.hold_id.0 }
    }
}
