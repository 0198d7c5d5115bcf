//! What the next batch can expect to find: the drop as the last one left it.
//!
//! Every change of a drop raises its version, in the same transaction. So what is known of a version is true for as
//! long as the drop has it, and a batch that needs nothing else skips the look. One statement writes it: it takes the
//! lock, and does nothing unless it finds the expected version. No caller is answered before that.

mod holders;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chrono::TimeDelta;

use super::{
    decide::{Known, Look},
    operation::Operation,
    queries::Version,
};
use crate::{
    admission::Admission,
    clock::{ClockReading, Timestamp},
    drops::{Catalogue, DropState, FIRST_VERSION, SizeStock},
    ids::{HoldId, UserId},
};
use holders::{Had, Holders};

/// How much later than it was decided a batch may be written without a look, under the lock (`queries::change`
/// enforces it). If the clock changes something before that, the batch looks, so nothing is backdated past a
/// deadline.
pub(super) const LATENESS: TimeDelta = TimeDelta::milliseconds(100);

/// The expected state of a drop after a committed batch.
pub(super) struct Expected {
    left: Left,
    /// The lowest pair number never used, by size.
    next_pairs: HashMap<String, i32>,
    /// Whether nobody else changed the drop between the last two batches. While others sell the same drop,
    /// expectations are wrong more often than not.
    is_alone: bool,
    doubt: Doubt,
    pub(super) holders: Holders,
}

/// A drop as a committed batch left it.
pub(super) struct Left {
    pub(super) state: Arc<DropState>,
    pub(super) version: Version,
    /// The newest reading of the database clock.
    pub(super) clock: ClockReading,
    /// When the next hold expires.
    pub(super) deadline: Option<Timestamp>,
}

/// Backoff after a wrong expectation: batches look for a while, twice as long each time. Otherwise a server that
/// restarted in the middle of a drop, or has a slow connection to PostgreSQL, would fail with each batch.
#[derive(Clone, Copy, Default)]
struct Doubt {
    batches_to_look: u32,
    last_time: u32,
}

const LONGEST_DOUBT: u32 = 64;

/// What a batch is decided by.
pub(super) struct Basis {
    pub(super) look: Look,
    /// The clock reading of that look.
    pub(super) read: ClockReading,
    pub(super) version: Version,
    /// The lowest pair number never used, by size.
    pub(super) next_pairs: HashMap<String, i32>,
    /// Buyers assumed to have no reservation, who have to be looked up; `None` after a look.
    pub(super) newcomers: Option<Vec<UserId>>,
}

impl Expected {
    /// Returns what `operations` will find, if everything that matters to them is known.
    pub(super) fn basis(&self, operations: &[Operation]) -> Option<Basis> {
        let now = self.left.clock.now();
        let then = now + LATENESS;
        if !self.is_alone || self.doubt.batches_to_look > 0 || self.changes_by(then) {
            return None;
        }
        let (mut known, mut newcomers) = (BTreeMap::new(), Vec::new());
        let mut know = |hold_id: &HoldId| {
            let hold = self.holders.find(hold_id)?;
            known.insert(*hold_id, hold);
            Some(())
        };
        for operation in operations {
            match operation {
                Operation::Reserve { admission: Some(Admission { from, until, .. }), .. }
                    if [from, until].into_iter().any(|at| now < *at && *at <= then) =>
                {
                    return None;
                }
                Operation::Reserve { user, .. } => match self.holders.had_by(user) {
                    Had::All(holds) => holds.iter().try_for_each(&mut know)?,
                    Had::More => return None,
                    Had::Unknown => newcomers.push(*user),
                },
                Operation::Purchase { hold_id, .. } | Operation::Cancel { hold_id, .. } => know(hold_id)?,
                // It closes all holds, including those that are not known here.
                Operation::CancelDrop => return None,
            }
        }
        newcomers.sort_unstable();
        newcomers.dedup();
        let DropState { catalogue, sizes, .. } = &*self.left.state;
        let known = known.into_values().cloned().collect();
        Some(Basis {
            look: Look { now, catalogue: catalogue.clone(), sizes: sizes.clone(), known },
            read: ClockReading::arrived_now(now),
            version: self.left.version.clone(),
            next_pairs: self.next_pairs.clone(),
            newcomers: Some(newcomers),
        })
    }

    /// Notes that the statement found something else, and doubles the backoff.
    pub(super) fn was_wrong(&mut self) {
        let last_time = (2 * self.doubt.last_time).clamp(1, LONGEST_DOUBT);
        self.doubt = Doubt { batches_to_look: last_time, last_time };
    }

    /// Returns whether the clock changes something by `then`, or already has.
    fn changes_by(&self, then: Timestamp) -> bool {
        let Left { state, deadline, .. } = &self.left;
        let Catalogue { starts_at, ends_at, .. } = &state.catalogue;
        let was = state.read.at;
        let passes = |at: Timestamp| was < at && at <= then;
        passes(*starts_at) || ends_at.is_some_and(passes) || deadline.is_some_and(|at| at <= then)
    }

    /// Returns the expectation after a batch that was decided by `basis` and left the drop and the holds `touched` as
    /// they are now. `before` is the previous expectation.
    pub(super) fn after(
        before: Option<Self>,
        basis: Basis,
        left: Left,
        touched: HashMap<HoldId, Known>,
    ) -> Self {
        let Basis { look, version, next_pairs, newcomers, .. } = basis;
        let doubt = match (&newcomers, &before) {
            (None, Some(Self { doubt: Doubt { batches_to_look, last_time }, .. })) => {
                Doubt { batches_to_look: batches_to_look.saturating_sub(1), last_time: *last_time }
            }
            _ => Doubt::default(),
        };
        let is_alone = before.as_ref().is_none_or(|before| before.left.version == version);
        // A reservation raises the version. (One inserted by hand at least takes a pair from `available`.)
        let nobody_yet = version.number == FIRST_VERSION
            && look.sizes.iter().all(|SizeStock { count, .. }| count.available == count.total);
        let mut holders = match before {
            _ if nobody_yet => Holders::nobody(),
            Some(before) if is_alone => before.holders,
            _ => Holders::default(),
        };
        holders.add(touched, &newcomers.unwrap_or_default());
        Self { left, next_pairs, is_alone, doubt, holders }
    }
}
