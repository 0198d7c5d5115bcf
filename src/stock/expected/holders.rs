//! Who has reserved what of a drop, as far as batches have touched it.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use crate::{
    ids::{HoldId, UserId},
    stock::decide::Known,
};

/// Holds that are kept of one drop, the newest; some eleven megabytes, measured. Whose hold is forgotten is looked at again.
const MOST_HOLDS: usize = 16_384;
/// Buyers of one drop of whom it is known that they are all; some two megabytes. With more, new ones are looked up.
const MOST_BUYERS: usize = 100_000;

/// By default nothing is known of anybody.
#[derive(Default)]
pub(in crate::stock) struct Holders {
    holds: BTreeMap<HoldId, Known>,
    buyers: HashMap<UserId, Buyer>,
    /// Everybody who ever had a reservation, where all of them are known: who is not among them is a new buyer.
    everybody: Option<HashSet<UserId>>,
}

/// Somebody who has holds among those that are kept.
struct Buyer {
    holds: Vec<HoldId>,
    /// Whether these are all that they ever had.
    is_whole: bool,
}

/// What a buyer has reserved so far.
pub(super) enum Had<'a> {
    /// This, and no more.
    All(&'a [HoldId]),
    /// Something that is not all known.
    More,
    /// Nothing, most likely.
    Unknown,
}

impl Holders {
    /// Of a drop that nobody has reserved.
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

    /// Adds holds as they are now. `newcomers`, in order, had none before.
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

    /// Forgets the oldest holds, down to so many, and who all buyers are, where they are more than that.
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
