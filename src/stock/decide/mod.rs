//! Decides what a batch of operations does. Pure: no clock, no database, no randomness.
//!
//! The order within a batch: expired holds are released; holds are bought and cancelled, in order of arrival; the
//! drop is cancelled; pairs are reserved, in order of arrival. So a buyer's own expired hold never counts against the
//! limit, and a pair released in a batch can be reserved in it.

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

/// Holds that one transaction closes at most, besides those that the operations of a smaller batch name. It takes a
/// few hundredths of a second: ten thousand would exceed the statement timeout.
pub(super) const MOST_CLOSED: usize = 1_000;

/// What is seen under the drop's lock, or known to be what would be seen.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The database clock, read after the lock; without a look, up to a tenth of a second before it.
    pub(super) now: Timestamp,
    pub(super) catalogue: Catalogue,
    pub(super) sizes: Vec<SizeStock>,
    /// Every hold that the batch could touch or repeat: those past their deadline, those that it names, the live ones
    /// of its buyers, those with its keys or admissions; all active ones if the drop is to be cancelled. Of those
    /// past their deadline and those active, as many as one transaction can close.
    pub(super) known: Vec<Known>,
}

/// A stored hold.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) reservation: Reservation,
    pub(super) key: String,
    pub(super) admission_id: Option<String>,
}

/// A hold to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) hold_id: HoldId,
    pub(super) to: ReservationStatus,
}

/// A hold to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) hold_id: HoldId,
    pub(super) user: UserId,
    pub(super) size: String,
    pub(super) key: String,
    /// The id of the admission that it uses up.
    pub(super) admission_id: Option<String>,
}

/// The outcome of one operation, and the hold concerned, if any.
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
    /// One per operation, in their order.
    pub(super) verdicts: Vec<Verdict>,
}

impl Plan {
    pub(super) fn changes_anything(&self) -> bool {
        !self.closings.is_empty() || !self.grants.is_empty() || self.cancels_drop
    }
}

/// Decides what the batch does.
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

/// Returns the first part of the batch's closings, if they are too many for one transaction. Purchases come first:
/// their holds must not expire while they wait. [`decide`] then does the rest, and finds this part done.
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
