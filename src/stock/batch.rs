//! One transaction for a batch of operations on one drop: lock, look, decide, write, in this order.
//!
//! Lock first and look second, as separate statements: in READ COMMITTED a statement's snapshot is taken before it
//! waits for a row lock. The clock is read after the lock. What the counters move by is what the statements beside
//! them returned, or nothing is committed.
//!
//! Two round trips, whatever the batch's size: BEGIN, the lock and the looks; what is written, and COMMIT. One more where
//! pairs are given out again that came back before.

use std::{collections::HashMap, sync::Arc};

use chrono::TimeDelta;
use diesel_async::AsyncPgConnection;
use futures_util::future::try_join_all;
use tokio::{task::unconstrained, try_join};

use super::{
    Reservation, ReservationStatus,
    decide::{Grant, Known, Look, Plan, Verdict, close_some, decide},
    operation::{Answer, Operation, Refusal},
    queries::{self, NewHold},
};
use crate::{
    clock::{ClockReading, Timestamp},
    db::{Connection, DbError, Transaction},
    drops::{DropState, SizeStock},
    ids::{DropId, HoldId, ReservationId},
};

/// What a committed batch did.
pub(super) struct Done {
    /// One for each operation, in its order; none yet when it [is partial](Self::is_partial).
    pub(super) answers: Vec<Answer<Refusal>>,
    /// Whether so many holds had to be closed that the operations, or most of them, are still to be done.
    pub(super) is_partial: bool,
    /// Whether it made the version of `state`.
    pub(super) changed: bool,
    /// The drop after it.
    pub(super) state: Arc<DropState>,
    /// When the next hold of the drop lapses.
    pub(super) next_deadline: Option<Timestamp>,
    /// How late each lapsed hold was taken back, in seconds.
    pub(super) expiry_delays: Vec<f64>,
    /// Holds given back.
    pub(super) released: u64,
}

/// Runs the batch in one transaction, or a part of it that has to come first. `None`: there is no such drop.
///
/// # Errors
/// The database; nothing was done, unless it is `Unavailable`: then nobody knows.
pub(super) async fn run(
    connection: Connection,
    drop_id: DropId,
    operations: &[Operation],
) -> Result<Option<Done>, DbError> {
    let transaction = Transaction::on(connection);
    match in_transaction(&transaction, drop_id, operations).await {
        Ok(done) => {
            transaction.end();
            Ok(done)
        }
        Err(error) => Err(transaction.roll_back(error).await),
    }
}

async fn in_transaction(
    transaction: &Transaction,
    drop_id: DropId,
    operations: &[Operation],
) -> Result<Option<Done>, DbError> {
    let connection = transaction.connection();
    // What is polled first is sent first, unless the runtime puts it off.
    let first = unconstrained(async {
        try_join!(
            biased;
            transaction.begin(),
            queries::lock_drop(connection, drop_id),
            queries::look(connection, drop_id, operations),
        )
    });
    let ((), locked, looked) = first.await?;
    let Some((catalogue, version)) = locked else {
        return transaction.commit_after(async { Ok(None) }).await;
    };
    let looked = looked.filter(|looked| looked.version == version);
    let looked = looked.ok_or_else(|| DbError::Unexpected("not looked under the lock".to_owned()))?;
    let reading = ClockReading::arrived_now(looked.now);
    let look = Look { now: looked.now, catalogue, sizes: looked.sizes, known: looked.known };
    let plan = match looked.is_cut {
        true => close_some(&look, operations),
        false => decide(&look, operations),
    };
    let mut state = DropState {
        id: drop_id,
        catalogue: look.catalogue.clone(),
        sizes: look.sizes.clone(),
        version,
        read: reading,
    };
    let mut holds: HashMap<HoldId, Reservation> = look
        .known
        .iter()
        .map(|Known { reservation, .. }| (reservation.id.hold_id, reservation.clone()))
        .collect();
    if !plan.changes_anything() {
        let next_deadline = transaction.commit_after(queries::find_deadline(connection, drop_id)).await?;
        let state = Arc::new(state);
        let answers = answers(&plan.verdicts, &holds, &state);
        return Ok(Some(Done {
            answers,
            is_partial: looked.is_cut,
            changed: false,
            state,
            next_deadline,
            expiry_delays: Vec::new(),
            released: 0,
        }));
    }

    let new_holds = Numbers::find(connection, drop_id, &look, &plan, &looked.next_pairs, &holds).await?;
    let new_holds = new_holds.give_to(&plan.grants)?;
    let change = queries::change(connection, drop_id, looked.transaction, &look, &plan, &new_holds);
    let settled = transaction.commit_after(change).await?;
    let mut expiry_delays = Vec::new();
    for closing in &plan.closings {
        if let Some(hold) = holds.get_mut(&closing.hold_id) {
            hold.status = closing.to;
            hold.closed_at = Some(look.now);
            if closing.to == ReservationStatus::Expired {
                expiry_delays.push((look.now - hold.expires_at).as_seconds_f64());
            }
        }
    }
    let expires_at = look.now + TimeDelta::seconds(look.catalogue.hold_seconds.into());
    holds.extend(new_holds.iter().map(|new| {
        let id = ReservationId { drop_id, hold_id: new.grant.hold_id };
        (id.hold_id, made(new, id, &look, expires_at))
    }));
    let deadlines = [settled.next_deadline, (!new_holds.is_empty()).then_some(expires_at)];
    state.version = settled.version;
    if plan.cancels_drop {
        state.catalogue.cancelled_at = Some(look.now);
    }
    for size in &mut state.sizes {
        if let Some(count) = settled.counts.get(&size.size) {
            size.count = *count;
        }
    }
    let state = Arc::new(state);
    let released = plan.closings.iter().filter(|closing| closing.to == ReservationStatus::Cancelled).count();
    Ok(Some(Done {
        answers: answers(&plan.verdicts, &holds, &state),
        is_partial: looked.is_cut,
        changed: true,
        next_deadline: deadlines.into_iter().flatten().min(),
        expiry_delays,
        released: released.try_into().unwrap_or(u64::MAX),
        state,
    }))
}

/// The hold as it was made.
fn made(new: &NewHold<'_>, id: ReservationId, look: &Look, expires_at: Timestamp) -> Reservation {
    Reservation {
        id,
        size: new.grant.size.clone(),
        pair_number: new.pair_number,
        user_id: new.grant.user,
        status: ReservationStatus::Active,
        price: look.catalogue.price.clone(),
        created_at: look.now,
        expires_at,
        closed_at: None,
    }
}

/// Pair numbers for grants, by size: those never used first, then those that this batch gives back, then those given back
/// before. Each list is taken from its end.
struct Numbers(HashMap<String, Vec<i32>>);

impl Numbers {
    /// Asks the database only where a size has too few of the first two kinds.
    async fn find(
        connection: &AsyncPgConnection,
        drop_id: DropId,
        look: &Look,
        plan: &Plan,
        next_pairs: &HashMap<String, i32>,
        holds: &HashMap<HoldId, Reservation>,
    ) -> Result<Self, DbError> {
        let mut wanted: HashMap<&str, i32> = HashMap::new();
        for grant in &plan.grants {
            *wanted.entry(&grant.size).or_default() += 1;
        }
        let given_back = plan.closings.iter().filter(|closing| !closing.to.is_live());
        let given_back: Vec<&Reservation> =
            given_back.filter_map(|closing| holds.get(&closing.hold_id)).collect();
        let given_back = &given_back;
        let sizes = look.sizes.iter().filter_map(|size| Some((size, *wanted.get(size.size.as_str())?)));
        let found = try_join_all(sizes.map(async |(SizeStock { size, count }, wanted)| {
            let next = next_pairs.get(size).copied().unwrap_or(count.total + 1);
            let fresh = wanted.min(count.total - next + 1);
            let mut numbers: Vec<i32> = (next..next + fresh).collect();
            let mut own: Vec<i32> =
                given_back.iter().filter(|hold| hold.size == *size).map(|hold| hold.pair_number).collect();
            own.sort_unstable();
            numbers.extend(own);
            let missing = wanted - i32::try_from(numbers.len()).unwrap_or(i32::MAX);
            if missing > 0 {
                numbers.extend(queries::list_freed_pairs(connection, drop_id, size, next, missing).await?);
            }
            numbers.reverse();
            Ok::<_, DbError>((size.clone(), numbers))
        }));
        Ok(Self(found.await?.into_iter().collect()))
    }

    fn give_to<'a>(mut self, grants: &'a [Grant]) -> Result<Vec<NewHold<'a>>, DbError> {
        let give = |grant: &'a Grant| {
            let pair_number = self.0.get_mut(&grant.size).and_then(Vec::pop);
            let pair_number = pair_number
                .ok_or_else(|| DbError::Unexpected(format!("no pair of {} is free", grant.size)))?;
            Ok(NewHold { grant, pair_number })
        };
        grants.iter().map(give).collect()
    }
}

fn answers(
    verdicts: &[Verdict],
    holds: &HashMap<HoldId, Reservation>,
    state: &Arc<DropState>,
) -> Vec<Answer<Refusal>> {
    let answer = |verdict: &Verdict| Answer {
        refusal: verdict.refusal,
        reservation: verdict.hold.and_then(|hold| holds.get(&hold)).cloned(),
        state: state.clone(),
    };
    verdicts.iter().map(answer).collect()
}
