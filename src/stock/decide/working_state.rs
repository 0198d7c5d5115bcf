//! The state of a drop while a batch is decided.

use std::collections::{HashMap, HashSet};

use super::{Closing, Grant, Known, Look, Plan, Verdict};
use crate::{
    admission::Admission,
    clock::Timestamp,
    drops::SizeStock,
    ids::{HoldId, UserId},
    stock::{
        CancelRefusal, PurchaseRefusal, Reservation, ReservationStatus, ReserveRefusal,
        operation::{Operation, Refusal},
    },
};

struct Hold<'a> {
    user: UserId,
    size: &'a str,
    status: ReservationStatus,
    expires_at: Timestamp,
}

/// The state while the batch is decided.
pub(super) struct WorkingState<'a> {
    look: &'a Look,
    holds: HashMap<HoldId, Hold<'a>>,
    by_key: HashMap<(UserId, String), HoldId>,
    admissions_used: HashSet<(UserId, String)>,
    /// Number of active holds and purchases of each buyer.
    had: HashMap<UserId, i32>,
    /// Free, sold and all pairs of each size.
    sizes: HashMap<&'a str, SizeState>,
    cancelled: bool,
    pub(super) plan: Plan,
}

struct SizeState {
    available: i32,
    sold: i32,
    total: i32,
}

impl<'a> WorkingState<'a> {
    pub(super) fn new(look: &'a Look) -> Self {
        let size_state = |size: &'a SizeStock| {
            let count = size.count;
            (
                size.size.as_str(),
                SizeState { available: count.available, sold: count.sold, total: count.total },
            )
        };
        let mut bench = Self {
            look,
            holds: HashMap::new(),
            by_key: HashMap::new(),
            admissions_used: HashSet::new(),
            had: HashMap::new(),
            sizes: look.sizes.iter().map(size_state).collect(),
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

    pub(super) fn expire(&mut self) {
        let lapsed =
            |hold: &Hold<'_>| hold.status == ReservationStatus::Active && hold.expires_at <= self.look.now;
        let lapsed: Vec<HoldId> =
            self.holds.iter().filter(|(_, hold)| lapsed(hold)).map(|(id, _)| *id).collect();
        lapsed.into_iter().for_each(|id| self.shut(id, ReservationStatus::Expired));
    }

    /// Buys or cancels a hold. Returns `None` for operations that come later.
    pub(super) fn close(&mut self, operation: &Operation) -> Option<Verdict> {
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

    pub(super) fn cancel_drop(&mut self) {
        if !self.cancelled {
            self.release();
            self.cancelled = true;
            self.plan.cancels_drop = true;
        }
    }

    /// Cancels the active holds of a drop that is to be cancelled.
    pub(super) fn release(&mut self) {
        let active = |hold: &Hold<'_>| hold.status == ReservationStatus::Active && !self.cancelled;
        let active: Vec<HoldId> =
            self.holds.iter().filter(|(_, hold)| active(hold)).map(|(id, _)| *id).collect();
        active.into_iter().for_each(|id| self.shut(id, ReservationStatus::Cancelled));
    }

    fn shut(&mut self, hold_id: HoldId, to: ReservationStatus) {
        let Some(hold) = self.holds.get_mut(&hold_id) else { return };
        hold.status = to;
        if let Some(size_state) = self.sizes.get_mut(hold.size) {
            match to {
                ReservationStatus::Purchased => size_state.sold += 1,
                _ => size_state.available += 1,
            }
        }
        if !to.is_live() {
            *self.had.entry(hold.user).or_default() -= 1;
        }
        self.plan.closings.push(Closing { hold_id, to });
    }

    pub(super) fn reserve(
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
        match self.sizes.get_mut(size) {
            Some(size_state) if size_state.available > 0 => size_state.available -= 1,
            Some(size_state) if size_state.sold == size_state.total => {
                return refuse(ReserveRefusal::SoldOut);
            }
            _ => return refuse(ReserveRefusal::AllHeld),
        }
        *self.had.entry(user).or_default() += 1;
        self.by_key.insert((user, key.to_owned()), hold_id);
        let status = ReservationStatus::Active;
        // The exact deadline does not matter, only that it is later than all others.
        self.holds.insert(hold_id, Hold { user, size, status, expires_at: Timestamp::MAX_UTC });
        let admission_id = admission.map(|admission| admission.id.clone());
        self.admissions_used.extend(admission_id.clone().map(|id| (user, id)));
        let (size, key) = (size.to_owned(), key.to_owned());
        self.plan.grants.push(Grant { hold_id, user, size, key, admission_id });
        Verdict { refusal: None, hold: Some(hold_id) }
    }

    /// Returns the requested size: the only one, if none was named.
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

    /// Returns the buyer's active hold with the latest deadline, which leaves the most time to buy.
    fn live_hold(&self, user: UserId) -> Option<HoldId> {
        let live = |hold: &Hold<'_>| hold.user == user && hold.status == ReservationStatus::Active;
        let holds = self.holds.iter().filter(|(_, hold)| live(hold));
        holds.max_by_key(|(id, hold)| (hold.expires_at, **id)).map(|(id, _)| *id)
    }
}
