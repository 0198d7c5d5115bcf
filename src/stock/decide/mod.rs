//! Decides what a batch of operations does. Pure: no clock, no database, no chance.
//!
//! The order within a batch: lapsed holds are taken back; holds are bought and given back, in order of arrival; the
//! drop is withdrawn; pairs are reserved, in order of arrival. So a buyer's own lapsed hold never counts against
//! the limit, and a pair that comes back in a batch can be had in it.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::{
    CancelRefusal, PurchaseRefusal, Reservation, ReservationStatus, ReserveRefusal,
    operation::{Operation, Refusal},
};
use crate::{
    admission::Admission,
    clock::Timestamp,
    drops::{Catalogue, SizeStock},
    ids::{HoldId, UserId},
};

/// What is seen under the drop's lock.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The database clock, read after the lock.
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
    let mut bench = Bench::new(look);
    bench.expire();
    let mut verdicts: Vec<Option<Verdict>> =
        operations.iter().map(|operation| bench.close(operation)).collect();
    for operation in operations {
        if matches!(operation, Operation::CancelDrop) {
            bench.cancel_drop();
        }
    }
    for (operation, verdict) in operations.iter().zip(&mut verdicts) {
        if let Operation::Reserve { user, hold_id, size, key, admission } = operation {
            *verdict = Some(bench.reserve(*user, *hold_id, size.as_deref(), key, admission.as_ref()));
        }
    }
    let done = Verdict { refusal: None, hold: None };
    bench.plan.verdicts = verdicts.into_iter().map(|verdict| verdict.unwrap_or(done)).collect();
    bench.plan
}

/// The first part of what has to be closed before anything else is decided, where it is too much for one transaction:
/// everything that is due or, where the drop is to be withdrawn, active.
pub(super) fn close_some(look: &Look, operations: &[Operation]) -> Plan {
    let mut bench = Bench::new(look);
    bench.expire();
    if operations.iter().any(|operation| matches!(operation, Operation::CancelDrop)) {
        bench.release();
    }
    bench.plan
}

struct Hold<'a> {
    user: UserId,
    size: &'a str,
    status: ReservationStatus,
    expires_at: Timestamp,
}

/// The state while the batch is worked through.
struct Bench<'a> {
    look: &'a Look,
    holds: HashMap<HoldId, Hold<'a>>,
    by_key: HashMap<(UserId, String), HoldId>,
    admissions_used: HashSet<(UserId, String)>,
    /// Live holds and purchases of each buyer.
    had: HashMap<UserId, i32>,
    /// Free pairs and sold pairs of each size.
    shelves: HashMap<&'a str, Shelf>,
    cancelled: bool,
    plan: Plan,
}

struct Shelf {
    available: i32,
    sold: i32,
    total: i32,
}

impl<'a> Bench<'a> {
    fn new(look: &'a Look) -> Self {
        let shelf = |size: &'a SizeStock| {
            let count = size.count;
            (size.size.as_str(), Shelf { available: count.available, sold: count.sold, total: count.total })
        };
        let mut bench = Self {
            look,
            holds: HashMap::new(),
            by_key: HashMap::new(),
            admissions_used: HashSet::new(),
            had: HashMap::new(),
            shelves: look.sizes.iter().map(shelf).collect(),
            cancelled: look.catalogue.cancelled_at.is_some(),
            plan: Plan::default(),
        };
        for Known { reservation, key, admission_id } in &look.known {
            let Reservation { id, size, user_id: user, status, expires_at, .. } = reservation;
            bench
                .holds
                .insert(id.hold_id, Hold { user: *user, size, status: *status, expires_at: *expires_at });
            bench.by_key.insert((*user, key.clone()), id.hold_id);
            bench.admissions_used.extend(admission_id.clone().map(|id| (*user, id)));
            if status.is_live() {
                *bench.had.entry(*user).or_default() += 1;
            }
        }
        bench
    }

    fn expire(&mut self) {
        let lapsed =
            |hold: &Hold<'_>| hold.status == ReservationStatus::Active && hold.expires_at <= self.look.now;
        let lapsed: Vec<HoldId> =
            self.holds.iter().filter(|(_, hold)| lapsed(hold)).map(|(id, _)| *id).collect();
        lapsed.into_iter().for_each(|id| self.shut(id, ReservationStatus::Expired));
    }

    /// Buys or gives back; `None` for operations that come later.
    fn close(&mut self, operation: &Operation) -> Option<Verdict> {
        let (user, hold_id, buys) = match operation {
            Operation::Purchase { user, hold_id } => (user, hold_id, true),
            Operation::Cancel { user, hold_id } => (user, hold_id, false),
            Operation::Reserve { .. } | Operation::CancelDrop => return None,
        };
        let own = self.holds.get(hold_id).filter(|hold| hold.user == *user);
        let refusal = match (own.map(|hold| hold.status), buys) {
            (Some(ReservationStatus::Active), true) => {
                self.shut(*hold_id, ReservationStatus::Purchased);
                None
            }
            (Some(ReservationStatus::Active), false) => {
                self.shut(*hold_id, ReservationStatus::Cancelled);
                None
            }
            (Some(ReservationStatus::Purchased), true) => None,
            (Some(ReservationStatus::Expired), true) => Some(Refusal::Purchase(PurchaseRefusal::Expired)),
            (Some(ReservationStatus::Cancelled), true) => Some(Refusal::Purchase(PurchaseRefusal::Cancelled)),
            (None, true) => Some(Refusal::Purchase(PurchaseRefusal::NotFound)),
            (Some(ReservationStatus::Purchased), false) => {
                Some(Refusal::Cancel(CancelRefusal::AlreadyPurchased))
            }
            (Some(ReservationStatus::Expired | ReservationStatus::Cancelled), false) => None,
            (None, false) => Some(Refusal::Cancel(CancelRefusal::NotFound)),
        };
        let own = self.holds.get(hold_id).filter(|hold| hold.user == *user);
        Some(Verdict { refusal, hold: own.map(|_| *hold_id) })
    }

    fn cancel_drop(&mut self) {
        if self.cancelled {
            return;
        }
        self.release();
        self.cancelled = true;
        self.plan.cancels_drop = true;
    }

    fn release(&mut self) {
        let active = |hold: &Hold<'_>| hold.status == ReservationStatus::Active;
        let active: Vec<HoldId> =
            self.holds.iter().filter(|(_, hold)| active(hold)).map(|(id, _)| *id).collect();
        active.into_iter().for_each(|id| self.shut(id, ReservationStatus::Cancelled));
    }

    fn shut(&mut self, hold_id: HoldId, to: ReservationStatus) {
        let Some(hold) = self.holds.get_mut(&hold_id) else { return };
        hold.status = to;
        if let Some(shelf) = self.shelves.get_mut(hold.size) {
            match to {
                ReservationStatus::Purchased => shelf.sold += 1,
                _ => shelf.available += 1,
            }
        }
        if !to.is_live() {
            *self.had.entry(hold.user).or_default() -= 1;
        }
        self.plan.closings.push(Closing { hold_id, to });
    }

    fn reserve(
        &mut self,
        user: UserId,
        hold_id: HoldId,
        size: Option<&str>,
        key: &str,
        admission: Option<&Admission>,
    ) -> Verdict {
        let refuse = |refusal| Verdict { refusal: Some(Refusal::Reserve(refusal)), hold: None };
        if admission.is_none() && self.look.catalogue.admission_required {
            return refuse(ReserveRefusal::AdmissionRequired);
        }
        if let Some(first) = self.by_key.get(&(user, key.to_owned())) {
            let same = self.holds.get(first).is_some_and(|hold| self.size_named(size) == Ok(hold.size));
            let refusal = (!same).then_some(Refusal::Reserve(ReserveRefusal::KeyReused));
            return Verdict { refusal, hold: same.then_some(*first) };
        }
        let catalogue = &self.look.catalogue;
        if self.cancelled {
            return refuse(ReserveRefusal::Cancelled);
        }
        if catalogue.ends_at.is_some_and(|ends_at| ends_at <= self.look.now) {
            return refuse(ReserveRefusal::Ended);
        }
        if catalogue.starts_at > self.look.now {
            return refuse(ReserveRefusal::NotStarted);
        }
        let admission = admission.filter(|_| catalogue.admission_required);
        let is_good = |admission: &Admission| {
            (admission.from..admission.until).contains(&self.look.now)
                && !self.admissions_used.contains(&(user, admission.id.clone()))
        };
        if !admission.is_none_or(is_good) {
            return refuse(ReserveRefusal::AdmissionRequired);
        }
        let size = match self.size_named(size) {
            Ok(size) => size,
            Err(refusal) => return refuse(refusal),
        };
        if self.had.get(&user).is_some_and(|had| *had >= catalogue.purchase_limit) {
            return Verdict {
                refusal: Some(Refusal::Reserve(ReserveRefusal::LimitReached)),
                hold: self.live_hold(user),
            };
        }
        match self.shelves.get_mut(size) {
            Some(shelf) if shelf.available > 0 => shelf.available -= 1,
            Some(shelf) if shelf.sold == shelf.total => return refuse(ReserveRefusal::SoldOut),
            _ => return refuse(ReserveRefusal::AllHeld),
        }
        *self.had.entry(user).or_default() += 1;
        self.by_key.insert((user, key.to_owned()), hold_id);
        let status = ReservationStatus::Active;
        // Its deadline lies ahead; nothing in this batch asks for it.
        self.holds.insert(hold_id, Hold { user, size, status, expires_at: Timestamp::MAX_UTC });
        let admission_id = admission.map(|admission| admission.id.clone());
        self.admissions_used.extend(admission_id.clone().map(|id| (user, id)));
        let (size, key) = (size.to_owned(), key.to_owned());
        self.plan.grants.push(Grant { hold_id, user, size, key, admission_id });
        Verdict { refusal: None, hold: Some(hold_id) }
    }

    /// The size that was asked for: the only one, when none was named.
    fn size_named(&self, size: Option<&str>) -> Result<&'a str, ReserveRefusal> {
        match (size, self.look.sizes.as_slice()) {
            (None, [only]) => Ok(&only.size),
            (None, _) => Err(ReserveRefusal::SizeRequired),
            (Some(name), sizes) => match sizes.iter().find(|size| size.size == name) {
                Some(size) => Ok(&size.size),
                None => Err(ReserveRefusal::UnknownSize),
            },
        }
    }

    /// The buyer's hold that lapses last: the one that they have the most time to buy.
    fn live_hold(&self, user: UserId) -> Option<HoldId> {
        let live = |hold: &Hold<'_>| hold.user == user && hold.status == ReservationStatus::Active;
        let holds = self.holds.iter().filter(|(_, hold)| live(hold));
        holds.max_by_key(|(id, hold)| (hold.expires_at, **id)).map(|(id, _)| *id)
    }
}
