//! Batches on a drop that is all in memory. One that goes by what is expected decides what one would that sees everything,
//! whatever the server did before, others did meanwhile, and was forgotten.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use uuid::Uuid;

use super::{draft::Draft, *};
use crate::{
    admission::Admission,
    drops::{Catalogue, FIRST_VERSION, SizeStock, StockCount},
    ids::{HoldId, ReservationId, UserId},
    stock::{
        Reservation, ReservationStatus,
        decide::{Known, Plan},
        expected::LATENESS,
        queries::{Move, Settled, Version},
    },
};

const SIZES: [&str; 2] = ["US 9", "US 10"];

/// The database.
#[derive(Clone)]
struct World {
    state: DropState,
    /// The transaction that wrote the drop's row, and how many have.
    writer: u32,
    transactions: u32,
    began: Timestamp,
    holds: HashMap<HoldId, Known>,
    next_pairs: HashMap<String, i32>,
    now: Timestamp,
    made: u128,
}

/// A drop as it is put up.
#[derive(Clone, Copy, Debug)]
struct Terms {
    limit: i32,
    pairs: i32,
    admission_required: bool,
    /// Seconds after its start.
    ends_after: Option<i64>,
}

impl Terms {
    fn plain(limit: i32, pairs: i32) -> Self {
        Self { limit, pairs, admission_required: false, ends_after: None }
    }
}

/// What somebody asks: what, who, which hold, size or admission, with which key.
type Asked = (u8, u128, usize, usize);
/// Who acts, how many milliseconds later, and what is asked of them.
type Step = (Who, i64, Vec<Asked>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Us,
    /// A server that has forgotten everything: it lost an answer, or was started anew.
    UsAfresh,
    Others,
    /// Others, on a standby that never got the last change.
    OthersAfterFailover,
    /// Somebody who changes what the drop allows, and not its version.
    ByHand,
}

const CANCEL_DROP: u8 = 14;

impl World {
    fn new(Terms { limit, pairs, admission_required, ends_after }: Terms) -> Self {
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

    fn operations(&mut self, asked: &[Asked]) -> Vec<Operation> {
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
                    // Not good yet, or no more, is one as well.
                    let from = self.began + TimeDelta::seconds(20) * i32::try_from(*which).unwrap();
                    let until = from + TimeDelta::seconds(60);
                    let admission = Some(Admission { id: format!("admission {which}"), from, until });
                    Operation::Reserve { user, hold_id, size: Some(size.to_owned()), key, admission }
                }
            }
        };
        asked.iter().map(operation).collect()
    }

    /// All there is.
    fn look(&self) -> Look {
        let DropState { catalogue, sizes, .. } = self.state.clone();
        Look { now: self.now, catalogue, sizes, known: self.holds.values().cloned().collect() }
    }

    /// What the database finds for a batch: see `queries::look`.
    fn basis(&self, operations: &[Operation]) -> Basis {
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

    /// Whether the statement that writes would find everything as it is expected: see `queries::change`.
    fn is_as(&self, basis: &Basis) -> bool {
        let mut newcomers = basis.newcomers.iter().flatten();
        let had = |user: &UserId| self.holds.values().any(|known| known.reservation.user_id == *user);
        basis.version == self.version() && (basis.look.now - self.now).abs() < LATENESS && !newcomers.any(had)
    }

    fn is_active(&self, known: &Known) -> bool {
        known.reservation.status == ReservationStatus::Active
    }

    /// Commits it.
    fn write(&mut self, mut draft: Draft, before: Option<Expected>) -> Expected {
        let closed: HashSet<HoldId> = draft.plan.closings.iter().map(|closing| closing.hold_id).collect();
        if !draft.plan.changes_anything() {
            let next = self.next_deadline(&HashSet::new());
            return draft.leave(next).end(before).1;
        }
        let mut numbers = draft.numbers();
        for size in SIZES {
            let live = |known: &&Known| known.reservation.size == size && known.reservation.status.is_live();
            let live: HashSet<i32> =
                self.holds.values().filter(live).map(|known| known.reservation.pair_number).collect();
            let freed = (1..self.next_pairs[size]).filter(|number| !live.contains(number));
            if !numbers.are_enough() {
                numbers.add(size.to_owned(), freed.collect());
            }
        }
        draft.give(numbers).unwrap();
        let next_deadline = self.next_deadline(&closed);
        self.change(&draft);
        self.state.version += 1;
        self.write_row();
        let settled = Settled { now: self.now, version: self.version(), next_deadline };
        let (done, expected) = draft.settle(settled).end(before);
        let seen =
            |state: &DropState| (state.version, state.catalogue.cancelled_at, state.catalogue.purchase_limit);
        assert_eq!(seen(&done.state), seen(&self.state));
        assert_eq!(done.state.sizes, self.state.sizes);
        expected
    }

    fn write_row(&mut self) {
        self.transactions += 1;
        self.writer = self.transactions;
    }

    /// As the statement does that writes.
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
        for Move { size, reserved, purchased, released, expired, count, next_pair } in planned.moves {
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

    /// Each live hold has a pair of its own, and the counters count them.
    fn check(&self) {
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

/// The same, whatever the order in which holds were found.
fn sorted(mut plan: Plan) -> Plan {
    plan.closings.sort_by_key(|closing| closing.hold_id);
    plan
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![100 => 0..14_u8, 1 => Just(CANCEL_DROP)];
    let asked = (kind, 1..5_u128, 0..10_usize, 0..3_usize);
    let later = prop::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 0, 1_000, 20_000, 39_950]);
    let who = prop_oneof![
        20 => Just(Who::Us), 1 => Just(Who::UsAfresh), 1 => Just(Who::Others), 1 => Just(Who::OthersAfterFailover),
        1 => Just(Who::ByHand),
    ];
    (who, later, prop::collection::vec(asked, 0..6))
}

/// How many batches were sent without a look, how many of those were right, and how many buyers were to be looked up.
fn run(terms: Terms, [holds, buyers]: [usize; 2], steps: Vec<Step>) -> (usize, usize, usize) {
    let mut world = World::new(terms);
    let mut expected: Option<Expected> = None;
    let (mut sent, mut right, mut to_look_up) = (0, 0, 0);
    let mut before_last_change = world.clone();
    for (who, later, asked) in steps {
        world.now += TimeDelta::milliseconds(later);
        if who == Who::OthersAfterFailover {
            // The numbers of what the standby never got do not come again.
            let World { now, made, transactions, .. } = world;
            world = World { now, made, transactions, ..before_last_change.clone() };
        }
        let was = world.clone();
        let operations = world.operations(&asked);
        let looked = |world: &World| {
            Draft::new(world.state.id, world.basis(&operations), |look| decide(look, &operations))
        };
        if who == Who::ByHand {
            world.state.catalogue.purchase_limit = 3 - world.state.catalogue.purchase_limit;
            world.write_row();
        } else if matches!(who, Who::Others | Who::OthersAfterFailover) {
            let draft = looked(&world);
            world.write(draft, None);
        } else {
            let mut before = expected.take().filter(|_| who == Who::Us);
            let basis = before.as_ref().and_then(|before| before.basis(&operations));
            let is_so = basis.as_ref().is_some_and(|basis| world.is_as(basis));
            to_look_up += basis.iter().flat_map(|basis| &basis.newcomers).flatten().count();
            let foreseen = basis.map(|basis| {
                let now = basis.look.now;
                let draft = Draft::new(world.state.id, basis, |look| decide(look, &operations));
                // At each instant at which it may be written.
                for now in [now, now + LATENESS] {
                    let everything = Look { now, ..world.look() };
                    let decided = decide(&everything, &operations);
                    assert!(!is_so || sorted(draft.plan.clone()) == sorted(decided), "{:?}", draft.plan);
                }
                draft
            });
            let can_write = |draft: &Draft| draft.plan.changes_anything() && draft.numbers().are_enough();
            let foreseen = foreseen.filter(can_write);
            if foreseen.is_some() {
                sent += 1;
                right += usize::from(is_so);
                before.iter_mut().filter(|_| !is_so).for_each(Expected::was_wrong);
            }
            let draft = foreseen.filter(|_| is_so).unwrap_or_else(|| looked(&world));
            let mut left = world.write(draft, before);
            left.holders.keep(holds, buyers);
            expected = Some(left);
        }
        world.check();
        if world.state.version != was.state.version {
            before_last_change = was;
        }
    }
    (sent, right, to_look_up)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_expected_is_what_is_there(
        limit in 1..3_i32,
        pairs in 1..6_i32,
        admission_required in any::<bool>(),
        ends_after in prop::option::of(prop::sample::select(vec![40, 60])),
        holds in prop::sample::select(vec![0, 2, 5, 1_000]),
        buyers in prop::sample::select(vec![0, 2, 1_000]),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        run(Terms { limit, pairs, admission_required, ends_after }, [holds, buyers], steps);
    }
}

#[test]
fn a_server_that_sells_alone_looks_once() {
    let reserve = |user| (Who::Us, 0, vec![(10, user, 0, 0)]);
    let all = [1_000, 1_000];
    assert_eq!(run(Terms::plain(1, 4), all, (1..5).map(reserve).collect()), (3, 3, 0));
    // The first hold, and a buyer who comes again; then somebody whose hold is forgotten, and comes again as well.
    let steps =
        vec![reserve(1), reserve(2), (Who::Us, 0, vec![(0, 2, 1, 0)]), reserve(3), reserve(2), reserve(4)];
    assert_eq!(run(Terms::plain(1, 5), all, steps.clone()), (4, 4, 0));
    assert_eq!(run(Terms::plain(1, 5), [0, 1_000], steps.clone()), (3, 3, 0));
    // Too many to know each: whoever has no hold that is known may be a new buyer.
    assert_eq!(run(Terms::plain(1, 5), [0, 1], steps), (4, 3, 3));
    // Others were there before.
    let steps = std::iter::once((Who::Others, 0, vec![(10, 9, 0, 0)])).chain((1..5).map(reserve));
    assert_eq!(run(Terms::plain(1, 5), all, steps.collect()), (3, 3, 3));
}

/// All of them had a hold, of which the server knows nothing, and one after the other comes again, beside a new buyer.
#[test]
fn a_server_that_was_wrong_tries_less_and_less() {
    let before = (1..=18).flat_map(|user| {
        let index = usize::try_from(user).unwrap() - 1;
        [(Who::Others, 0, vec![(10, user, 0, 0)]), (Who::Others, 0, vec![(3, user, index, 0)])]
    });
    // Each new buyer gives back what the one before got.
    let now = (0..17).map(|turn| {
        let new = 100 + u128::try_from(turn).unwrap();
        (Who::Us, 0, vec![(3, new - 1, 17 + turn, 0), (10, new - 99, 0, 0), (10, new, 0, 0)])
    });
    assert_eq!(
        run(Terms::plain(1, 60), [1_000, 1_000], before.chain(now).collect()),
        (5, 0, 10),
        "the second, third, fifth, ninth and last"
    );
}
