//! The reservations of a drop's buyers that batches have touched.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use crate::{
    ids::{HoldId, UserId},
    stock::decide::Known,
};

/// Holds kept per drop, the newest; some eleven megabytes, measured. Buyers of evicted holds need a look again.
const MOST_HOLDS: usize = 16_384;
/// Buyers of one drop up to which all are known; some two megabytes. With more, new ones are looked up.
const MOST_BUYERS: usize = 100_000;

/// What is known of a drop's buyers; by default nothing.
#[derive(Default)]
pub(in crate::stock) struct Holders {
    holds: BTreeMap<HoldId, Known>,
    buyers: HashMap<UserId, Buyer>,
    /// Everybody who ever had a reservation, if all are known. Anybody else is a new buyer.
    everybody: Option<HashSet<UserId>>,
}

/// A buyer with holds among those that are kept.
struct Buyer {
    holds: Vec<HoldId>,
    /// Whether these are all holds that the buyer ever had.
    is_whole: bool,
}

/// The reservations of a buyer so far.
pub(super) enum Had<'a> {
    /// Exactly these.
    All(&'a [HoldId]),
    /// Some, not all of them known.
    More,
    /// Unknown, most likely none.
    Unknown,
}

impl Holders {
    /// Returns the holders of a drop without reservations.
    pub(super) fn nobody() -> Self {
        Self { everybody: Some(HashSet::new()), ..Self::default() }
    }

    pub(super) fn find(&self, hold_id: &HoldId) -> Option<&Known> {
        self.holds.get(hold_id)
    }

    pub(super) fn had_by(&self, user: &UserId) -> Had<'_> {
        match (self.buyers.get(user), &self.everybody) {
            (Some(buyer), _) if buyer.is_whole => Had::All(&buyer.holds),
            (Some(_), _) => Had::More,
            (None, Some(everybody)) if everybody.contains(user) => Had::More,
            (None, Some(_)) => Had::All(&[]),
            (None, None) => Had::Unknown,
        }
    }

    /// Adds holds as they are now. `newcomers` is sorted; these buyers had none before.
    pub(super) fn add(&mut self, touched: HashMap<HoldId, Known>, newcomers: &[UserId]) {
        for (hold_id, hold) in touched {
            let user = hold.reservation.user_id;
            if self.holds.insert(hold_id, hold).is_none() {
                let is_first = self.everybody.as_mut().is_some_and(|everybody| everybody.insert(user));
                let is_whole = is_first || newcomers.binary_search(&user).is_ok();
                let first = || Buyer { holds: Vec::new(), is_whole };
                self.buyers.entry(user).or_insert_with(first).holds.push(hold_id);
            }
        }
        self.keep(MOST_HOLDS, MOST_BUYERS);
    }

    /// Evicts the oldest holds beyond `most_holds`, and forgets who all buyers are if there are more than
    /// `most_buyers`.
    pub(in crate::stock) fn keep(&mut self, most_holds: usize, most_buyers: usize) {
        self.everybody.take_if(|everybody| everybody.len() > most_buyers);
        while self.holds.len() > most_holds
            && let Some((hold_id, hold)) = self.holds.pop_first()
            && let Entry::Occupied(mut buyer) = self.buyers.entry(hold.reservation.user_id)
        {
            buyer.get_mut().is_whole = false;
            buyer.get_mut().holds.retain(|id| *id != hold_id);
            if buyer.get().holds.is_empty() {
                buyer.remove();
            }
        }
    }
}
