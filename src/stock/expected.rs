//! What the next batch can expect to find: the drop as the last one left it.
//!
//! Whoever changes a drop raises its version, in the same transaction. So what is known of a version is true for as long as
//! the drop has it, and a batch that nothing unknown is asked of need not look: it is written by one statement, under
//! the lock, which finds the version that was expected or does nothing. Nothing is told by it before that.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{
    batch::Done,
    decide::{Known, Look},
    operation::Operation,
};
use crate::{
    clock::{ClockReading, Timestamp},
    drops::DropState,
    ids::{HoldId, UserId},
};

/// Holds that are kept of one drop, the newest; some eight megabytes. Whose hold is forgotten is looked at again.
const MOST_HOLDS: usize = 16_384;

/// A drop as a committed batch left it.
pub(super) struct Expected {
    state: Arc<DropState>,
    clock: ClockReading,
    /// By size, the lowest pair number never used.
    next_pairs: HashMap<String, i32>,
    /// When the next hold lapses.
    deadline: Option<Timestamp>,
    /// Whether nobody else changed the drop since the batch before. Where others sell the same drop, what is expected is
    /// wrong more often than not.
    is_alone: bool,
    holds: BTreeMap<HoldId, Known>,
    buyers: HashMap<UserId, Buyer>,
}

/// Somebody who has holds among those that are kept.
#[derive(Default)]
struct Buyer {
    holds: Vec<HoldId>,
    /// Whether these are all that they ever had.
    is_whole: bool,
}

/// What a batch goes by.
pub(super) struct Basis {
    pub(super) look: Look,
    pub(super) version: i32,
    /// By size, the lowest pair number never used.
    pub(super) next_pairs: HashMap<String, i32>,
    /// Where nobody looked: who is taken for a buyer that never had a reservation.
    pub(super) newcomers: Option<Vec<UserId>>,
}

impl Expected {
    /// What `operations` will find, if all that matters to them is known.
    pub(super) fn basis(&self, operations: &[Operation]) -> Option<Basis> {
        let now = self.clock.now();
        if !self.is_alone || self.deadline.is_some_and(|deadline| deadline <= now) {
            return None;
        }
        let (mut known, mut newcomers) = (BTreeMap::new(), Vec::new());
        let mut know = |hold_id: &HoldId| {
            let hold = self.holds.get(hold_id)?;
            known.insert(*hold_id, hold);
            Some(())
        };
        for operation in operations {
            match operation {
                Operation::Reserve { user, .. } => match self.buyers.get(user) {
                    None => newcomers.push(*user),
                    Some(buyer) if buyer.is_whole => buyer.holds.iter().try_for_each(&mut know)?,
                    Some(_) => return None,
                },
                Operation::Purchase { hold_id, .. } | Operation::Cancel { hold_id, .. } => know(hold_id)?,
                // It closes all holds, whoever made them.
                Operation::CancelDrop => return None,
            }
        }
        newcomers.sort_unstable();
        newcomers.dedup();
        let DropState { catalogue, sizes, version, .. } = &*self.state;
        let known = known.into_values().cloned().collect();
        Some(Basis {
            look: Look { now, catalogue: catalogue.clone(), sizes: sizes.clone(), known },
            version: *version,
            next_pairs: self.next_pairs.clone(),
            newcomers: Some(newcomers),
        })
    }

    /// After a batch that went by `basis`, and left `touched` as they are now. `before` is what was expected of it.
    pub(super) fn after(
        before: Option<Self>,
        basis: Basis,
        done: &Done,
        touched: HashMap<HoldId, Known>,
    ) -> Self {
        let Basis { version, next_pairs, newcomers, .. } = basis;
        let newcomers = newcomers.unwrap_or_default();
        let is_alone = before.as_ref().is_none_or(|before| before.state.version == version);
        let before = before.filter(|_| is_alone);
        let (holds, buyers) = before.map(|before| (before.holds, before.buyers)).unwrap_or_default();
        let (state, clock, deadline) = (done.state.clone(), done.clock, done.next_deadline);
        let mut expected = Self { state, clock, next_pairs, deadline, is_alone, holds, buyers };
        for (hold_id, hold) in touched {
            let user = hold.reservation.user_id;
            if expected.holds.insert(hold_id, hold).is_none() {
                let is_newcomer = || newcomers.binary_search(&user).is_ok();
                let first = || Buyer { holds: Vec::new(), is_whole: is_newcomer() };
                expected.buyers.entry(user).or_insert_with(first).holds.push(hold_id);
            }
        }
        expected.keep(MOST_HOLDS);
        expected
    }

    /// Forgets the oldest holds, down to so many.
    pub(super) fn keep(&mut self, most: usize) {
        while self.holds.len() > most
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
