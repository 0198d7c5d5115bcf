//! Tests `decide` against a model too slow and too simple to be wrong: it works on a list of reservations, one
//! operation after the other, and recounts everything each time.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    admission::Admission,
    drops::{Money, StockCount},
    ids::{DropId, ReservationId},
    stock::{CancelRefusal, PurchaseRefusal, ReserveRefusal},
};

const SIZES: [&str; 2] = ["US 9", "US 10"];
const USERS: u128 = 4;
const KEYS: usize = 3;

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number % USERS))
}

fn hold(number: usize) -> HoldId {
    HoldId(Uuid::from_u128(1_000 + number as u128))
}

fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

/// A hold that exists before the batch: its owner, size, status, key and deadline in seconds from now.
type Given = (u128, usize, u8, usize, i64);

/// The admission given by a reserve: its number, and from when and until when it is valid, in seconds from now.
type Shown = Option<(usize, i64, i64)>;

fn look(
    given: &[Given],
    totals: [i32; 2],
    limit: i32,
    starts: i64,
    ends: Option<i64>,
    cancelled: bool,
    admission_required: bool,
) -> Look {
    let status = |code: u8| {
        [
            ReservationStatus::Active,
            ReservationStatus::Purchased,
            ReservationStatus::Expired,
            ReservationStatus::Cancelled,
        ][usize::from(code % 4)]
    };
    let mut keys = HashSet::new();
    let mut known: Vec<Known> = Vec::new();
    for (number, (owner, size, code, key, deadline)) in given.iter().enumerate() {
        let key = format!("key {}", key % KEYS);
        // As in the database: one reservation per key, and no more live ones than pairs.
        if !keys.insert((user(*owner), key.clone())) {
            continue;
        }
        let size = size % SIZES.len();
        let live =
            |known: &Known| known.reservation.size == SIZES[size] && known.reservation.status.is_live();
        let full = known.iter().filter(|known| live(known)).count() as i32 >= totals[size];
        let status =
            if status(*code).is_live() && full { ReservationStatus::Cancelled } else { status(*code) };
        let reservation = Reservation {
            id: ReservationId { drop_id: DropId(Uuid::nil()), hold_id: hold(number) },
            size: SIZES[size].to_owned(),
            pair_number: 1,
            user_id: user(*owner),
            status,
            price: Money { amount: 1, currency: "USD".to_owned() },
            created_at: at(-100),
            expires_at: at(*deadline),
            closed_at: None,
        };
        // Each of them used an admission, if one was required.
        let admission_id = admission_required.then(|| format!("admission {number}"));
        known.push(Known { reservation, key, admission_id });
    }
    let sizes = SIZES.iter().zip(totals).map(|(size, total)| {
        let count = |status| {
            let of = |known: &&Known| known.reservation.size == *size && known.reservation.status == status;
            known.iter().filter(of).count() as i32
        };
        let (held, sold) = (count(ReservationStatus::Active), count(ReservationStatus::Purchased));
        let count = StockCount { total, available: total - held - sold, held, sold };
        SizeStock { size: (*size).to_owned(), count }
    });
    Look {
        now: at(0),
        catalogue: Catalogue {
            starts_at: at(starts),
            ends_at: ends.map(at),
            purchase_limit: limit,
            admission_required,
            cancelled_at: cancelled.then(|| at(-1)),
            ..Catalogue::example(at(-1_000))
        },
        sizes: sizes.collect(),
        known,
    }
}

/// The model: every reservation there ever was, as `(owner, size, key, status)`.
struct Model<'a> {
    look: &'a Look,
    all: BTreeMap<HoldId, (UserId, String, String, ReservationStatus)>,
    cancelled: bool,
    admissions_used: Vec<(UserId, String)>,
}

impl Model<'_> {
    fn count(&self, of: impl Fn(&(UserId, String, String, ReservationStatus)) -> bool) -> i32 {
        self.all.values().filter(|one| of(one)).count() as i32
    }

    fn purchase(&mut self, user: UserId, id: HoldId) -> Option<Refusal> {
        match self.all.get_mut(&id) {
            Some((owner, _, _, status)) if *owner == user => match status {
                ReservationStatus::Active | ReservationStatus::Purchased => {
                    *status = ReservationStatus::Purchased;
                    None
                }
                ReservationStatus::Expired => Some(Refusal::Purchase(PurchaseRefusal::Expired)),
                ReservationStatus::Cancelled => Some(Refusal::Purchase(PurchaseRefusal::Cancelled)),
            },
            _ => Some(Refusal::Purchase(PurchaseRefusal::NotFound)),
        }
    }

    fn cancel(&mut self, user: UserId, id: HoldId) -> Option<Refusal> {
        match self.all.get_mut(&id) {
            Some((owner, _, _, status)) if *owner == user => match status {
                ReservationStatus::Active => {
                    *status = ReservationStatus::Cancelled;
                    None
                }
                ReservationStatus::Purchased => Some(Refusal::Cancel(CancelRefusal::AlreadyPurchased)),
                _ => None,
            },
            _ => Some(Refusal::Cancel(CancelRefusal::NotFound)),
        }
    }

    fn reserve(
        &mut self,
        user: UserId,
        id: HoldId,
        size: Option<&str>,
        key: &str,
        admission: Option<&Admission>,
    ) -> Option<Refusal> {
        let refuse = |refusal| Some(Refusal::Reserve(refusal));
        if self.look.catalogue.admission_required && admission.is_none() {
            return refuse(ReserveRefusal::AdmissionRequired);
        }
        if let Some(first) = self.all.values().find(|one| one.0 == user && one.2 == key) {
            return if Some(first.1.as_str()) == size { None } else { refuse(ReserveRefusal::KeyReused) };
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
        if catalogue.admission_required && !admission.is_some_and(|admission| self.admits(user, admission)) {
            return refuse(ReserveRefusal::AdmissionRequired);
        }
        let Some(size) = size else { return refuse(ReserveRefusal::SizeRequired) };
        let Some(stock) = self.look.sizes.iter().find(|stock| stock.size == size) else {
            return refuse(ReserveRefusal::UnknownSize);
        };
        if self.count(|one| one.0 == user && one.3.is_live()) >= catalogue.purchase_limit {
            return refuse(ReserveRefusal::LimitReached);
        }
        if self.count(|one| one.1 == size && one.3 == ReservationStatus::Purchased) == stock.count.total {
            return refuse(ReserveRefusal::SoldOut);
        }
        if self.count(|one| one.1 == size && one.3.is_live()) == stock.count.total {
            return refuse(ReserveRefusal::AllHeld);
        }
        self.all.insert(id, (user, size.to_owned(), key.to_owned(), ReservationStatus::Active));
        self.admissions_used.extend(admission.map(|admission| (user, admission.id.clone())));
        None
    }

    fn admits(&self, user: UserId, admission: &Admission) -> bool {
        let now = self.look.now;
        let was_used = self.admissions_used.iter().any(|used| *used == (user, admission.id.clone()));
        now >= admission.from && now < admission.until && !was_used
    }
}

/// Returns the model's answers, and its final state.
fn model<'a>(look: &'a Look, operations: &[Operation]) -> (Vec<Option<Refusal>>, Model<'a>) {
    let all = look.known.iter().map(|Known { reservation, key, .. }| {
        let lapsed = reservation.status == ReservationStatus::Active && reservation.expires_at <= look.now;
        let status = if lapsed { ReservationStatus::Expired } else { reservation.status };
        (reservation.id.hold_id, (reservation.user_id, reservation.size.clone(), key.clone(), status))
    });
    let used =
        look.known.iter().filter_map(|known| Some((known.reservation.user_id, known.admission_id.clone()?)));
    let mut model = Model {
        look,
        all: all.collect(),
        cancelled: look.catalogue.cancelled_at.is_some(),
        admissions_used: used.collect(),
    };
    let mut refusals = vec![None; operations.len()];
    for (operation, refusal) in operations.iter().zip(&mut refusals) {
        match operation {
            Operation::Purchase { user, hold_id } => *refusal = model.purchase(*user, *hold_id),
            Operation::Cancel { user, hold_id } => *refusal = model.cancel(*user, *hold_id),
            Operation::Reserve { .. } | Operation::CancelDrop => {}
        }
    }
    if !model.cancelled && operations.iter().any(|operation| matches!(operation, Operation::CancelDrop)) {
        model.cancelled = true;
        let active = model.all.values_mut().filter(|one| one.3 == ReservationStatus::Active);
        active.for_each(|one| one.3 = ReservationStatus::Cancelled);
    }
    for (operation, refusal) in operations.iter().zip(&mut refusals) {
        if let Operation::Reserve { user, hold_id, size, key, admission } = operation {
            *refusal = model.reserve(*user, *hold_id, size.as_deref(), key, admission.as_ref());
        }
    }
    (refusals, model)
}

/// Returns what is seen once the closings of `part` are committed.
fn after_part(look: &Look, part: &Plan) -> Look {
    let mut look = look.clone();
    for Closing { hold_id, to } in &part.closings {
        let known = look.known.iter_mut().map(|known| &mut known.reservation);
        let reservation = known.into_iter().find(|hold| hold.id.hold_id == *hold_id).unwrap();
        reservation.status = *to;
        let stock = look.sizes.iter_mut().find(|stock| stock.size == reservation.size).unwrap();
        stock.count.held -= 1;
        match to {
            ReservationStatus::Purchased => stock.count.sold += 1,
            _ => stock.count.available += 1,
        }
    }
    look
}

type Asked = (u8, u128, usize, usize, Shown);

fn operation() -> impl Strategy<Value = Asked> {
    let shown = prop::option::weighted(0.8, (8..20_usize, -3..2_i64, 0..4_i64));
    (0..20_u8, 0..USERS, 0..14_usize, 0..KEYS + 3, shown)
}

fn build(operations: &[Asked]) -> Vec<Operation> {
    let one = |(place, (kind, owner, number, key, shown)): (usize, &Asked)| {
        let user = user(*owner);
        match kind {
            0..=3 => Operation::Purchase { user, hold_id: hold(*number) },
            4..=6 => Operation::Cancel { user, hold_id: hold(*number) },
            7 => Operation::CancelDrop,
            _ => {
                let size = [Some("US 9"), Some("US 10"), Some("US 9"), None, Some("US 99")][number % 5];
                let hold_id = HoldId(Uuid::from_u128(1_000_000 + place as u128));
                let admission = shown.map(|(number, from, until)| Admission {
                    id: format!("admission {number}"),
                    from: at(from),
                    until: at(until),
                });
                let (size, key) = (size.map(str::to_owned), format!("key {key}"));
                Operation::Reserve { user, hold_id, size, key, admission }
            }
        }
    };
    operations.iter().enumerate().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decides_as_the_model_does(
        given in prop::collection::vec((0..USERS, 0..2_usize, 0..4_u8, 0..KEYS, -5..5_i64), 0..12),
        totals in [1..6_i32, 1..6_i32],
        limit in 1..4_i32,
        starts in prop::sample::select(vec![-10, -10, -10, 0, 1]),
        ends in prop::sample::select(vec![None, None, Some(5), Some(0)]),
        cancelled in prop::bool::weighted(0.1),
        admission_required in prop::bool::weighted(0.3),
        operations in prop::collection::vec(operation(), 0..24),
    ) {
        let look = look(&given, totals, limit, starts, ends, cancelled, admission_required);
        let operations = build(&operations);
        let plan = decide(&look, &operations);
        let (refusals, model) = model(&look, &operations);
        let decided: Vec<Option<Refusal>> = plan.verdicts.iter().map(|verdict| verdict.refusal).collect();
        prop_assert_eq!(decided, refusals);

        // The same reservations in the same states, each closed at most once.
        let mut after: BTreeMap<HoldId, ReservationStatus> =
            look.known.iter().map(|known| (known.reservation.id.hold_id, known.reservation.status)).collect();
        for Closing { hold_id, to } in &plan.closings {
            prop_assert_eq!(after.insert(*hold_id, *to), Some(ReservationStatus::Active));
        }
        for grant in &plan.grants {
            prop_assert_eq!(after.insert(grant.hold_id, ReservationStatus::Active), None);
        }
        let wanted: BTreeMap<HoldId, ReservationStatus> = model.all.iter().map(|(id, one)| (*id, one.3)).collect();
        prop_assert_eq!(after, wanted);
        // Each grant used up an admission if one was required, and no two grants of a buyer the same.
        let used: Vec<_> = plan.grants.iter().filter_map(|grant| Some((grant.user, grant.admission_id.clone()?))).collect();
        prop_assert_eq!(used.len(), if admission_required { plan.grants.len() } else { 0 });
        prop_assert_eq!(used.iter().collect::<HashSet<_>>().len(), used.len());
        prop_assert_eq!(plan.cancels_drop, model.cancelled && !cancelled);

        // A part that runs first closes the same holds, and then the batch has nothing more to close.
        let some = close_some(&look, &operations);
        let closings = |plan: &Plan| -> BTreeMap<HoldId, ReservationStatus> {
            plan.closings.iter().map(|closing| (closing.hold_id, closing.to)).collect()
        };
        prop_assert_eq!((some.closings.len(), closings(&some)), (plan.closings.len(), closings(&plan)));
        prop_assert_eq!((&some.grants, some.cancels_drop, &some.verdicts), (&Vec::new(), false, &Vec::new()));
        let rest = decide(&after_part(&look, &some), &operations);
        prop_assert_eq!((rest.closings, rest.grants, rest.verdicts), (Vec::new(), plan.grants, plan.verdicts));

        // Never more live reservations than pairs.
        for stock in &look.sizes {
            prop_assert!(model.count(|one| one.1 == stock.size && one.3.is_live()) <= stock.count.total);
        }
        // A deadline is inclusive: a hold that expires now is expired.
        let lapsed = |known: &&Known| known.reservation.expires_at <= look.now + TimeDelta::zero();
        let expired = plan.closings.iter().filter(|closing| closing.to == ReservationStatus::Expired).count();
        let due = look.known.iter().filter(lapsed).filter(|known| known.reservation.status == ReservationStatus::Active);
        prop_assert_eq!(expired, due.count());
    }
}

/// One transaction closes a bounded number of holds, purchases first.
#[test]
fn a_part_is_bounded_and_begins_with_what_is_bought() {
    let given: Vec<Given> = (0..2_500).map(|number| (number, 0, 0, 0, -1)).collect();
    let known = |(number, given): (usize, &Given)| {
        let one = look(std::slice::from_ref(given), [1, 1], 1, -10, None, false, false).known.remove(0);
        let id = ReservationId { hold_id: hold(number), ..one.reservation.id };
        let expires_at = if number < 2_400 { one.reservation.expires_at } else { at(1) };
        let reservation =
            Reservation { id, user_id: UserId(Uuid::from_u128(given.0)), expires_at, ..one.reservation };
        Known { reservation, key: format!("key {number}"), admission_id: None }
    };
    let mut look = look(&[], [2_500, 1], 1, -10, None, false, false);
    look.known = given.iter().enumerate().map(known).collect();
    let buys = (2_400..2_500).map(|number| Operation::Purchase {
        user: UserId(Uuid::from_u128(number as u128)),
        hold_id: hold(number),
    });
    let operations: Vec<Operation> = std::iter::once(Operation::CancelDrop).chain(buys).collect();
    let part = close_some(&look, &operations);
    let count = |to| part.closings.iter().filter(|closing| closing.to == to).count();
    assert_eq!(count(ReservationStatus::Purchased), 100);
    assert_eq!(count(ReservationStatus::Expired), MOST_CLOSED - 100);
}
