//! A database with one drop, all in memory.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta};
use uuid::Uuid;

use super::super::{
    draft::Draft,
    pair_allocation::{Found, Missing},
    *,
};
use crate::{
    admission::Admission,
    drops::{Catalogue, FIRST_VERSION, SizeStock, StockCount},
    ids::{HoldId, ReservationId, UserId},
    stock::{
        Reservation, ReservationStatus,
        decide::Known,
        expected::LATENESS,
        freed::Freed,
        queries::{Settled, Version},
        size_delta::SizeDelta,
    },
};

pub(super) const SIZES: [&str; 2] = ["US 9", "US 10"];

/// The database.
#[derive(Clone)]
pub(super) struct World {
    pub(super) state: DropState,
    /// The transaction that wrote the drop's row, and the number of transactions so far.
    writer: u32,
    transactions: u32,
    began: Timestamp,
    holds: HashMap<HoldId, Known>,
    next_pairs: HashMap<String, i32>,
    pub(super) now: Timestamp,
    made: u128,
}

/// The terms of a drop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) limit: i32,
    pub(super) pairs: i32,
    pub(super) admission_required: bool,
    /// In seconds after its start.
    pub(super) ends_after: Option<i64>,
}

impl Terms {
    pub(super) fn plain(limit: i32, pairs: i32) -> Self {
        Self { limit, pairs, admission_required: false, ends_after: None }
    }
}

/// A request: kind, user, index of the hold, size or admission, and key.
pub(super) type Asked = (u8, u128, usize, usize);

pub(super) const CANCEL_DROP: u8 = 14;

impl World {
    pub(super) fn new(Terms { limit, pairs, admission_required, ends_after }: Terms) -> Self {
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let size = |(size, total): (&str, i32)| SizeStock {
            size: size.to_owned(),
            count: StockCount { total, available: total, held: 0, sold: 0 },
        };
        let ends_at = ends_after.map(|seconds| now + TimeDelta::seconds(seconds));
        let catalogue =
            Catalogue { purchase_limit: limit, admission_required, ends_at, ..Catalogue::example(now) };
        let sizes = SIZES.into_iter().zip([pairs, 2]).map(size).collect();
        let read = ClockReading::arrived_now(now);
        Self {
            state: DropState { id: DropId(Uuid::nil()), catalogue, sizes, version: FIRST_VERSION, read },
            holds: HashMap::new(),
            next_pairs: SIZES.map(|size| (size.to_owned(), 1)).into(),
            writer: 0,
            transactions: 0,
            began: now,
            now,
            made: 0,
        }
    }

    fn version(&self) -> Version {
        Version { number: self.state.version, writer: self.writer.to_string() }
    }

    pub(super) fn operations(&mut self, asked: &[Asked]) -> Vec<Operation> {
        let mut holds: Vec<HoldId> = self.holds.keys().copied().collect();
        holds.sort_unstable();
        let operation = |(kind, user, which, key): &Asked| {
            let user = UserId(Uuid::from_u128(*user));
            let hold_id = holds.get(*which).copied().unwrap_or(HoldId(Uuid::nil()));
            match kind {
                0..=2 => Operation::Purchase { user, hold_id },
                3..=5 => Operation::Cancel { user, hold_id },
                &CANCEL_DROP => Operation::CancelDrop,
                _ => {
                    self.made += 1;
                    let size = SIZES[which % 2];
                    let hold_id = HoldId(Uuid::from_u128(self.made));
                    let key = format!("key {key}");
                    // This includes admissions that are not valid yet, or no longer.
                    let from = self.began + TimeDelta::seconds(20) * i32::try_from(*which).unwrap();
                    let until = from + TimeDelta::seconds(60);
                    let admission = Some(Admission { id: format!("admission {which}"), from, until });
                    Operation::Reserve { user, hold_id, size: Some(size.to_owned()), key, admission }
                }
            }
        };
        asked.iter().map(operation).collect()
    }

    /// Returns everything there is.
    pub(super) fn look(&self) -> Look {
        let DropState { catalogue, sizes, .. } = self.state.clone();
        Look { now: self.now, catalogue, sizes, known: self.holds.values().cloned().collect() }
    }

    /// Returns what the database finds for a batch: see `queries::look`.
    pub(super) fn basis(&self, operations: &[Operation]) -> Basis {
        let mut look = self.look();
        look.known.retain(|Known { reservation, key: used, admission_id }| {
            let is_active = reservation.status == ReservationStatus::Active;
            (is_active && reservation.expires_at <= self.now)
                || operations.iter().any(|operation| match operation {
                    Operation::Reserve { user, key, admission, .. } => {
                        let shown = admission.as_ref().map(|admission| &admission.id);
                        *user == reservation.user_id
                            && (reservation.status.is_live()
                                || used == key
                                || (shown.is_some() && shown == admission_id.as_ref()))
                    }
                    Operation::Purchase { hold_id, .. } | Operation::Cancel { hold_id, .. } => {
                        *hold_id == reservation.id.hold_id
                    }
                    Operation::CancelDrop => true,
                })
        });
        let (version, next_pairs) = (self.version(), self.next_pairs.clone());
        Basis { look, read: ClockReading::arrived_now(self.now), version, next_pairs, newcomers: None }
    }

    /// Returns whether the statement that writes would find everything as expected: see `queries::change`.
    pub(super) fn is_as(&self, basis: &Basis) -> bool {
        let mut newcomers = basis.newcomers.iter().flatten();
        let had = |user: &UserId| self.holds.values().any(|known| known.reservation.user_id == *user);
        basis.version == self.version() && (basis.look.now - self.now).abs() < LATENESS && !newcomers.any(had)
    }

    fn is_active(&self, known: &Known) -> bool {
        known.reservation.status == ReservationStatus::Active
    }

    fn is_free(&self, size: &str, number: i32) -> bool {
        let has =
            |hold: &Reservation| hold.size == size && hold.pair_number == number && hold.status.is_live();
        number < self.next_pairs[size] && !self.holds.values().any(|known| has(&known.reservation))
    }

    /// Asserts that the numbers known as free are free.
    pub(super) fn check_freed(&self, freed: &Freed) {
        for size in SIZES {
            let mut known = freed.known(size);
            assert!(
                known.all(|number| self.is_free(size, number)),
                "of {size} {:?}",
                freed.known(size).collect::<Vec<_>>()
            );
        }
    }

    /// Answers as the database does: see `PairAllocation::complete`.
    fn find(&self, Missing { size, count, below }: &Missing, freed: &Freed) -> Found {
        let is_free = |number: &i32| self.is_free(size, *number);
        let used = |number: &i32| number < below;
        let mut settled: Vec<i32> = freed.rumoured(size).take_while(used).take(2 * count).collect();
        let mut free: Vec<i32> = settled.iter().copied().filter(is_free).take(*count).collect();
        match free.len() == *count {
            true => settled.retain(|number| Some(number) <= free.last()),
            false => free = (1..self.next_pairs[size.as_str()]).filter(is_free).take(count + 1).collect(),
        }
        Found { settled, free }
    }

    /// Commits a batch.
    pub(super) fn write(
        &mut self,
        mut draft: Draft,
        before: Option<Expected>,
        freed: &mut Freed,
    ) -> Expected {
        freed.look_at(&self.version());
        let closed: HashSet<HoldId> = draft.plan.closings.iter().map(|closing| closing.hold_id).collect();
        if !draft.plan.changes_anything() {
            let next = self.next_deadline(&HashSet::new());
            return draft.leave(next).end(before, freed).1;
        }
        let mut numbers = draft.numbers(freed);
        let found = numbers.missing().iter().map(|missing| self.find(missing, freed)).collect();
        numbers.add(found, freed);
        draft.give(numbers).unwrap();
        let next_deadline = self.next_deadline(&closed);
        self.change(&draft);
        self.state.version += 1;
        self.write_row();
        let settled = Settled { now: self.now, version: self.version(), next_deadline };
        let (done, expected) = draft.settle(settled).end(before, freed);
        let seen =
            |state: &DropState| (state.version, state.catalogue.cancelled_at, state.catalogue.purchase_limit);
        assert_eq!(seen(&done.state), seen(&self.state));
        assert_eq!(done.state.sizes, self.state.sizes);
        expected
    }

    pub(super) fn change_by_hand(&mut self) {
        self.state.catalogue.purchase_limit = 3 - self.state.catalogue.purchase_limit;
        self.write_row();
    }

    /// Fails over to a standby, which loses later changes. Numbers of its transactions and holds are not reused.
    pub(super) fn fail_over_to(&mut self, standby: &Self) {
        let Self { now, made, transactions, .. } = *self;
        *self = Self { now, made, transactions, ..standby.clone() };
    }

    fn write_row(&mut self) {
        self.transactions += 1;
        self.writer = self.transactions;
    }

    /// Does what the statement that writes does.
    fn change(&mut self, draft: &Draft) {
        let planned = draft.planned();
        let (look, plan) = (planned.look, planned.plan);
        for (closing, size) in plan.closings.iter().zip(planned.closed_sizes) {
            let hold = &mut self.holds.get_mut(&closing.hold_id).unwrap().reservation;
            assert_eq!((hold.status, hold.size.as_str()), (ReservationStatus::Active, size));
            let is_due = hold.expires_at <= look.now;
            assert_eq!(is_due, closing.to == ReservationStatus::Expired);
            hold.status = closing.to;
            hold.closed_at = Some(look.now);
        }
        for (grant, pair_number) in plan.grants.iter().zip(planned.pairs) {
            let reservation = Reservation {
                id: ReservationId { drop_id: self.state.id, hold_id: grant.hold_id },
                size: grant.size.clone(),
                pair_number: *pair_number,
                user_id: grant.user,
                status: ReservationStatus::Active,
                price: look.catalogue.price.clone(),
                created_at: look.now,
                expires_at: look.now + TimeDelta::seconds(look.catalogue.hold_seconds.into()),
                closed_at: None,
            };
            let (key, admission_id) = (grant.key.clone(), grant.admission_id.clone());
            assert_eq!(admission_id.is_some(), self.state.catalogue.admission_required);
            let hold = Known { reservation, key, admission_id };
            assert!(self.holds.insert(grant.hold_id, hold).is_none());
        }
        if plan.cancels_drop {
            self.state.catalogue.cancelled_at = Some(look.now);
        }
        for SizeDelta { size, reserved, purchased, released, expired, count, next_pair } in planned.deltas {
            let stock = self.state.sizes.iter_mut().find(|stock| stock.size == *size).unwrap();
            let StockCount { total, available, held, sold } = stock.count;
            stock.count = StockCount {
                total,
                available: available - reserved + released + expired,
                held: held + reserved - purchased - released - expired,
                sold: sold + purchased,
            };
            assert_eq!(stock.count, *count);
            self.next_pairs.insert(size.clone(), *next_pair);
        }
    }

    fn next_deadline(&self, but: &HashSet<HoldId>) -> Option<Timestamp> {
        let active = self
            .holds
            .values()
            .filter(|known| self.is_active(known) && !but.contains(&known.reservation.id.hold_id));
        active.map(|known| known.reservation.expires_at).min()
    }

    /// Asserts that each live hold has a pair of its own, and that the counters are right.
    pub(super) fn check(&self) {
        for SizeStock { size, count } in &self.state.sizes {
            let of = |status| {
                let of = move |known: &&Known| {
                    known.reservation.size == *size && known.reservation.status == status
                };
                self.holds.values().filter(of)
            };
            let (held, sold) = (of(ReservationStatus::Active), of(ReservationStatus::Purchased));
            let pairs: HashSet<i32> =
                held.clone().chain(sold.clone()).map(|known| known.reservation.pair_number).collect();
            let (held, sold) = (held.count() as i32, sold.count() as i32);
            assert_eq!((count.held, count.sold), (held, sold));
            assert_eq!(count.available, count.total - held - sold);
            assert_eq!(pairs.len() as i32, held + sold, "a pair was given twice");
            assert!(pairs.iter().all(|number| (1..=count.total).contains(number)));
        }
        let used = |known: &Known| Some((known.reservation.user_id, known.admission_id.clone()?));
        let used: Vec<_> = self.holds.values().filter_map(used).collect();
        assert_eq!(used.iter().collect::<HashSet<_>>().len(), used.len(), "an admission was used twice");
        let is_withdrawn = self.state.catalogue.cancelled_at.is_some();
        assert!(!is_withdrawn || !self.holds.values().any(|known| self.is_active(known)));
    }
}
