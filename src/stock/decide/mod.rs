//! Decides what a batch of operations does. Pure: no clock, no database, no chance.
//!
//! The order within a batch: lapsed holds are taken back; holds are bought and given back, in order of arrival; the
//! drop is withdrawn; pairs are reserved, in order of arrival. So a buyer's own lapsed hold never counts against
//! the limit, and a pair that comes back in a batch can be had in it.

#[cfg(test)]
mod tests;
mod working_state;

use super::{
    Reservation, ReservationStatus,
    operation::{Operation, Refusal},
};
use crate::{
    clock::Timestamp,
    drops::{Catalogue, SizeStock},
    ids::{HoldId, UserId},
};
use working_state::WorkingState;

/// Holds that one transaction closes, besides those that a batch which closes fewer asks for. A few hundredths of a second's
/// work: ten thousand would take longer than a statement may.
pub(super) const MOST_CLOSED: usize = 1_000;

/// What is seen under the drop's lock, or known to be what would be seen.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The database clock, read after the lock; without a look, up to a tenth of a second before it.
    pub(super) now: Timestamp,
    pub(super) catalogue: Catalogue,
    pub(super) sizes: Vec<SizeStock>,
    /// Every hold that the batch could touch or repeat: those past their deadline, those that it names, the live
    /// ones of its buyers, those under its keys; all active ones when the drop is to be withdrawn. Of those past their
    /// deadline and those active, as many as one transaction can close.
    pub(super) known: Vec<Known>,
}

/// A hold as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) reservation: Reservation,
    pub(super) key: String,
    pub(super) admission_id: Option<String>,
}

/// A hold to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) hold_id: HoldId,
    pub(super) to: ReservationStatus,
}

/// A hold to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) hold_id: HoldId,
    pub(super) user: UserId,
    pub(super) size: String,
    pub(super) key: String,
    /// Of the admission that it uses up.
    pub(super) admission_id: Option<String>,
}

/// What came of one operation; the hold that it is about, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) refusal: Option<Refusal>,
    pub(super) hold: Option<HoldId>,
}

/// What the batch does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) closings: Vec<Closing>,
    pub(super) grants: Vec<Grant>,
    pub(super) cancels_drop: bool,
    /// One for each operation, in its order.
    pub(super) verdicts: Vec<Verdict>,
}

impl Plan {
    pub(super) fn changes_anything(&self) -> bool {
        !self.closings.is_empty() || !self.grants.is_empty() || self.cancels_drop
    }
}

/// What the batch does.
pub(super) fn decide(look: &Look, operations: &[Operation]) -> Plan {
    let mut state = WorkingState::new(look);
    state.expire();
    let mut verdicts: Vec<Option<Verdict>> =
        operations.iter().map(|operation| state.close(operation)).collect();
    for operation in operations {
        if matches!(operation, Operation::CancelDrop) {
            state.cancel_drop();
        }
    }
    for (operation, verdict) in operations.iter().zip(&mut verdicts) {
        if let Operation::Reserve { user, hold_id, size, key, admission } = operation {
            *verdict = Some(state.reserve(*user, *hold_id, size.as_deref(), key, admission.as_ref()));
        }
    }
    let done = Verdict { refusal: None, hold: None };
    state.plan.verdicts = verdicts.into_iter().map(|verdict| verdict.unwrap_or(done)).collect();
    state.plan
}

/// The first part of what the batch closes, where it is too much for one transaction. What is bought comes first: it must
/// not lapse while it waits. [`decide`] finds the rest to do, and what was done here as done.
pub(super) fn close_some(look: &Look, operations: &[Operation]) -> Plan {
    let mut state = WorkingState::new(look);
    state.expire();
    for operation in operations {
        state.close(operation);
    }
    if operations.iter().any(|operation| matches!(operation, Operation::CancelDrop)) {
        state.release();
    }
    let mut closings = state.plan.closings;
    let is_bought = |closing: &Closing| closing.to == ReservationStatus::Purchased;
    closings.sort_by_key(|closing| !is_bought(closing));
    closings.truncate(MOST_CLOSED.max(closings.iter().filter(|closing| is_bought(closing)).count()));
    Plan { closings, ..Plan::default() }
}
