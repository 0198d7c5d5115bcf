//! Batches on an in-memory drop. One decided by expectations decides the same as one that sees everything, whatever
//! the server did and forgot before, and others did meanwhile.

mod world;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::{draft::Draft, *};
use crate::stock::{decide::Plan, expected::LATENESS, freed::Freed};
use world::{Asked, CANCEL_DROP, Terms, World};

/// Who acts, how many milliseconds later, and the requested operations.
type Step = (Who, i64, Vec<Asked>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Us,
    /// A server that has forgotten everything after a lost answer or a restart.
    UsAfresh,
    Others,
    /// Others, on a standby that never got the last change.
    OthersAfterFailover,
    /// Somebody who changes the drop's terms without raising its version.
    ByHand,
}

/// Sorts the closings, whose order depends on the order in which holds were found.
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

/// Returns how many batches were sent without a look, how many of those were right, and how many buyers to look up.
fn run(terms: Terms, [holds, buyers]: [usize; 2], steps: Vec<Step>) -> (usize, usize, usize) {
    let mut world = World::new(terms);
    let (mut expected, mut freed): (Option<Expected>, Freed) = Default::default();
    let (mut sent, mut right, mut to_look_up) = (0, 0, 0);
    let mut before_last_change = world.clone();
    for (who, later, asked) in steps {
        world.now += TimeDelta::milliseconds(later);
        if who == Who::OthersAfterFailover {
            world.fail_over_to(&before_last_change);
        }
        let was = world.clone();
        let operations = world.operations(&asked);
        let looked = |world: &World| {
            Draft::new(world.state.id, world.basis(&operations), |look| decide(look, &operations))
        };
        if who == Who::ByHand {
            world.change_by_hand();
        } else if matches!(who, Who::Others | Who::OthersAfterFailover) {
            let draft = looked(&world);
            world.write(draft, None, &mut Freed::default());
        } else {
            if who == Who::UsAfresh {
                (expected, freed) = Default::default();
            }
            let mut before = expected.take();
            let basis = before.as_ref().and_then(|before| before.basis(&operations));
            let is_so = basis.as_ref().is_some_and(|basis| world.is_as(basis));
            to_look_up += basis.iter().flat_map(|basis| &basis.newcomers).flatten().count();
            let foreseen = basis.map(|basis| {
                freed.look_at(&basis.version);
                let now = basis.look.now;
                let draft = Draft::new(world.state.id, basis, |look| decide(look, &operations));
                // At the first and the last instant at which it may be written.
                for now in [now, now + LATENESS] {
                    let everything = Look { now, ..world.look() };
                    let decided = decide(&everything, &operations);
                    assert!(!is_so || sorted(draft.plan.clone()) == sorted(decided), "{:?}", draft.plan);
                }
                draft
            });
            let can_write =
                |draft: &Draft| draft.plan.changes_anything() && draft.numbers(&freed).missing().is_empty();
            let foreseen = foreseen.filter(can_write);
            if foreseen.is_some() {
                sent += 1;
                right += usize::from(is_so);
                before.iter_mut().filter(|_| !is_so).for_each(Expected::was_wrong);
            }
            let draft = foreseen.filter(|_| is_so).unwrap_or_else(|| looked(&world));
            let mut left = world.write(draft, before, &mut freed);
            left.holders.keep(holds, buyers);
            world.check_freed(&freed);
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
    // The first hold, and a returning buyer; then one whose hold was evicted, and who returns as well.
    let steps =
        vec![reserve(1), reserve(2), (Who::Us, 0, vec![(0, 2, 1, 0)]), reserve(3), reserve(2), reserve(4)];
    assert_eq!(run(Terms::plain(1, 5), all, steps.clone()), (4, 4, 0));
    assert_eq!(run(Terms::plain(1, 5), [0, 1_000], steps.clone()), (3, 3, 0));
    // Too many to know each: a buyer without a known hold may be new.
    assert_eq!(run(Terms::plain(1, 5), [0, 1], steps), (4, 3, 3));
    // Others sold before.
    let steps = std::iter::once((Who::Others, 0, vec![(10, 9, 0, 0)])).chain((1..5).map(reserve));
    assert_eq!(run(Terms::plain(1, 5), all, steps.collect()), (3, 3, 3));
}

#[test]
fn what_came_back_is_given_out_again_without_a_look() {
    let reserve = |who, user| (who, 0, vec![(10, user, 0, 0)]);
    let cancel = |user| (Who::Us, 0, vec![(3, user, usize::try_from(user - 1).unwrap(), 0)]);
    let all_used: Vec<Step> =
        (1..5).map(|user| reserve(Who::Us, user)).chain([cancel(1), cancel(2)]).collect();
    let steps = |then: [Step; 2]| all_used.iter().cloned().chain(then).collect();
    let again = steps([reserve(Who::Us, 5), reserve(Who::Us, 6)]);
    assert_eq!(run(Terms::plain(1, 4), [1_000, 1_000], again), (7, 7, 0), "all but the first");
    // A server that has forgotten it finds more than it needs.
    let again = steps([reserve(Who::UsAfresh, 5), reserve(Who::Us, 6)]);
    assert_eq!(run(Terms::plain(1, 4), [1_000, 1_000], again), (6, 6, 1));
}

/// Each of them had a hold that the server does not know; they return one after the other, beside a new buyer.
#[test]
fn a_server_that_was_wrong_tries_less_and_less() {
    let before = (1..=18).flat_map(|user| {
        let index = usize::try_from(user).unwrap() - 1;
        [(Who::Others, 0, vec![(10, user, 0, 0)]), (Who::Others, 0, vec![(3, user, index, 0)])]
    });
    // Each time the previous new buyer's hold is cancelled.
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
