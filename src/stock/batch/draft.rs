//! A planned batch, and its outcome.

use std::{collections::HashMap, sync::Arc};

use chrono::TimeDelta;

use super::{
    Done,
    pair_allocation::{Given, PairAllocation},
};
use crate::{
    clock::{ClockReading, Timestamp},
    db::DbError,
    drops::{DropState, SizeStock},
    ids::{DropId, HoldId, ReservationId},
    stock::{
        Reservation, ReservationStatus,
        decide::{Grant, Known, Look, Plan, Verdict},
        expected::{Basis, Expected, Left},
        freed::Freed,
        operation::{Answer, Refusal},
        queries::{Planned, Settled, Version},
        size_delta::SizeDelta,
    },
};

/// What a batch is decided by, and its plan.
pub(super) struct Draft {
    drop_id: DropId,
    basis: Basis,
    pub(super) plan: Plan,
    /// All known holds.
    holds: HashMap<HoldId, Known>,
    /// The pair of each grant, once assigned; and those that the closings release and nobody gets, by size.
    given: Given,
    deltas: Vec<SizeDelta>,
}

/// A completed batch.
pub(super) struct Outcome {
    draft: Draft,
    /// The drop's version after the batch.
    version: Version,
    done: Done,
}

impl Draft {
    pub(super) fn new(drop_id: DropId, mut basis: Basis, decide: impl FnOnce(&Look) -> Plan) -> Self {
        let plan = decide(&basis.look);
        let known = std::mem::take(&mut basis.look.known);
        let holds = known.into_iter().map(|known| (known.reservation.id.hold_id, known)).collect();
        Self { drop_id, basis, plan, holds, given: Given::default(), deltas: Vec::new() }
    }

    /// Returns pairs for the grants, except those that are not known.
    pub(super) fn numbers(&self, freed: &Freed) -> PairAllocation {
        PairAllocation::at_hand(&self.basis.look, &self.plan, &self.basis.next_pairs, &self.holds, freed)
    }

    /// Assigns each grant its pair.
    pub(super) fn give(&mut self, numbers: PairAllocation) -> Result<(), DbError> {
        self.given = numbers.give_to(&self.plan.grants)?;
        self.deltas = self.deltas();
        Ok(())
    }

    /// Returns the sum of the closings and grants, for each size that they change.
    fn deltas(&self) -> Vec<SizeDelta> {
        let mut deltas: HashMap<&str, SizeDelta> = HashMap::new();
        for SizeStock { size, count } in &self.basis.look.sizes {
            let next_pair = self.basis.next_pairs.get(size).copied().unwrap_or(count.total + 1);
            deltas.insert(size, SizeDelta::none(size, *count, next_pair));
        }
        for closing in &self.plan.closings {
            let size = self.holds.get(&closing.hold_id).map(|known| known.reservation.size.as_str());
            if let Some(one) = size.and_then(|size| deltas.get_mut(size)) {
                one.close(closing.to);
            }
        }
        for (grant, pair_number) in self.plan.grants.iter().zip(&self.given.pairs) {
            if let Some(one) = deltas.get_mut(grant.size.as_str()) {
                one.reserve(*pair_number);
            }
        }
        let sizes = self.basis.look.sizes.iter();
        sizes.filter_map(|size| deltas.remove(size.size.as_str())).filter(SizeDelta::is_any).collect()
    }

    /// Returns the batch as it is to be written.
    pub(super) fn planned(&self) -> Planned<'_> {
        let Basis { look, version, newcomers, .. } = &self.basis;
        let closed = self.plan.closings.iter().filter_map(|closing| self.holds.get(&closing.hold_id));
        Planned {
            look,
            version,
            newcomers: newcomers.as_deref(),
            plan: &self.plan,
            closed_sizes: closed.map(|known| known.reservation.size.as_str()).collect(),
            pairs: &self.given.pairs,
            deltas: &self.deltas,
        }
    }

    /// Completes a batch that had nothing to write.
    pub(super) fn leave(self, next_deadline: Option<Timestamp>) -> Outcome {
        let done = self.done(self.state(), self.basis.read, next_deadline);
        Outcome { version: self.basis.version.clone(), draft: self, done }
    }

    /// Completes a batch that was written.
    pub(super) fn settle(mut self, settled: Settled) -> Outcome {
        let look = &self.basis.look;
        let (mut expiry_delays, mut released) = (Vec::new(), 0);
        for closing in &self.plan.closings {
            if let Some(Known { reservation: hold, .. }) = self.holds.get_mut(&closing.hold_id) {
                hold.status = closing.to;
                hold.closed_at = Some(look.now);
                released += u64::from(closing.to == ReservationStatus::Cancelled);
                if closing.to == ReservationStatus::Expired {
                    expiry_delays.push((look.now - hold.expires_at).as_seconds_f64());
                }
            }
        }
        let expires_at = look.now + TimeDelta::seconds(look.catalogue.hold_seconds.into());
        for (grant, pair_number) in self.plan.grants.iter().zip(&self.given.pairs) {
            let id = ReservationId { drop_id: self.drop_id, hold_id: grant.hold_id };
            self.holds.insert(grant.hold_id, made(grant, id, *pair_number, look, expires_at));
        }
        let deadlines = [settled.next_deadline, (!self.plan.grants.is_empty()).then_some(expires_at)];
        let mut state = self.state();
        state.version = settled.version.number;
        if self.plan.cancels_drop {
            state.catalogue.cancelled_at = Some(look.now);
        }
        for SizeDelta { size, count, next_pair, .. } in self.deltas.drain(..) {
            state.sizes.iter_mut().filter(|of| of.size == size).for_each(|of| of.count = count);
            self.basis.next_pairs.insert(size, next_pair);
        }
        let clock = ClockReading::arrived_now(settled.now);
        let done = self.done(state, clock, deadlines.into_iter().flatten().min());
        let version = settled.version;
        Outcome { draft: self, version, done: Done { changed: true, expiry_delays, released, ..done } }
    }

    /// Returns the drop as it was found.
    fn state(&self) -> DropState {
        let Basis { look, read, version, .. } = &self.basis;
        let (catalogue, sizes) = (look.catalogue.clone(), look.sizes.clone());
        DropState { id: self.drop_id, catalogue, sizes, version: version.number, read: *read }
    }

    fn done(&self, state: DropState, clock: ClockReading, next_deadline: Option<Timestamp>) -> Done {
        let state = Arc::new(state);
        let answer = |verdict: &Verdict| Answer::<Refusal> {
            refusal: verdict.refusal,
            reservation: verdict
                .hold
                .and_then(|hold| self.holds.get(&hold))
                .map(|known| known.reservation.clone()),
            state: state.clone(),
        };
        let answers = self.plan.verdicts.iter().map(answer).collect();
        Done {
            answers,
            is_partial: false,
            changed: false,
            state,
            clock,
            next_deadline,
            expiry_delays: Vec::new(),
            released: 0,
        }
    }
}

impl Outcome {
    /// Marks whether this is only a part of what the operations ask for.
    pub(super) fn in_part(mut self, is_partial: bool) -> Self {
        self.done.is_partial = is_partial;
        self
    }

    /// Returns the result, and how it left the drop that the batch `before` had left.
    pub(super) fn end(self, before: Option<Expected>, freed: &mut Freed) -> (Done, Expected) {
        let Self { draft: Draft { basis, plan, holds, given, .. }, version, done } = self;
        given.left_over.into_iter().for_each(|(size, numbers)| freed.add(&size, numbers));
        plan.grants.iter().zip(given.pairs).for_each(|(grant, pair)| freed.give(&grant.size, pair));
        freed.is_left_at(&version);
        let Done { state, clock, next_deadline, .. } = &done;
        let left = Left { state: state.clone(), version, clock: *clock, deadline: *next_deadline };
        (done, Expected::after(before, basis, left, holds))
    }
}

/// Returns the hold as it was made.
fn made(grant: &Grant, id: ReservationId, pair_number: i32, look: &Look, expires_at: Timestamp) -> Known {
    let reservation = Reservation {
        id,
        size: grant.size.clone(),
        pair_number,
        user_id: grant.user,
        status: ReservationStatus::Active,
        price: look.catalogue.price.clone(),
        created_at: look.now,
        expires_at,
        closed_at: None,
    };
    Known { reservation, key: grant.key.clone(), admission_id: grant.admission_id.clone() }
}
