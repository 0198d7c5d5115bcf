//! One transaction for a batch of operations on one drop: lock, look, decide, write, in this order.
//!
//! Lock first and look second, as separate statements: in READ COMMITTED a statement's snapshot is taken before it
//! waits for a row lock. The clock is read after the lock. What the counters move by is counted from what the
//! statements returned, never from what was intended.

use std::{collections::HashMap, sync::Arc};

use diesel_async::AsyncPgConnection;

use super::{
    Reservation, ReservationStatus,
    decide::{Closing, Grant, Known, Look, Plan, Verdict, decide},
    operation::{Answer, Operation, Refusal},
    queries::{self, Moved, NewHold},
};
use crate::{
    clock::{ClockReading, Timestamp},
    db::{Connection, DbError},
    drops::DropState,
    ids::{DropId, HoldId},
};

/// What a committed batch did.
pub(super) struct Done {
    /// One for each operation, in its order.
    pub(super) answers: Vec<Answer<Refusal>>,
    /// The drop after it.
    pub(super) state: Arc<DropState>,
    /// When the next hold of the drop lapses.
    pub(super) next_deadline: Option<Timestamp>,
    /// How late each lapsed hold was taken back, in seconds.
    pub(super) expiry_delays: Vec<f64>,
    /// Holds given back.
    pub(super) released: u64,
}

/// Runs the batch in one transaction. `None`: there is no such drop.
///
/// # Errors
/// The database; nothing was done, unless it is `Unavailable`: then nobody knows.
pub(super) async fn run(
    connection: &mut Connection,
    drop_id: DropId,
    operations: &[Operation],
) -> Result<Option<Done>, DbError> {
    let mut transaction = connection.build_transaction().read_committed();
    transaction.run(async |connection| in_transaction(connection, drop_id, operations).await).await
}

async fn in_transaction(
    connection: &mut AsyncPgConnection,
    drop_id: DropId,
    operations: &[Operation],
) -> Result<Option<Done>, DbError> {
    let Some((catalogue, version)) = queries::lock_drop(connection, drop_id).await? else { return Ok(None) };
    let looked = queries::look(connection, drop_id, operations).await?;
    let reading = ClockReading::arrived_now(looked.now);
    let look = Look { now: looked.now, catalogue, sizes: looked.sizes, known: looked.known };
    let plan = decide(&look, operations);
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
        let next_deadline = queries::find_deadline(connection, drop_id).await?;
        let state = Arc::new(state);
        let answers = answers(&plan.verdicts, &holds, &state);
        return Ok(Some(Done { answers, state, next_deadline, expiry_delays: Vec::new(), released: 0 }));
    }

    let mut moved: HashMap<String, Moved> = HashMap::new();
    close(connection, &look, &plan.closings, drop_id, &mut holds, &mut moved).await?;
    grant(connection, &look, &plan, &looked.next_pairs, drop_id, &mut holds, &mut moved).await?;
    let settled = queries::settle(connection, drop_id, look.now, plan.cancels_drop, moved).await?;
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
    let lapsed = |closing: &&Closing| closing.to == ReservationStatus::Expired;
    let delay = |closing: &Closing| holds.get(&closing.hold_id).map(|hold| look.now - hold.expires_at);
    let expiry_delays = plan.closings.iter().filter(lapsed).filter_map(delay);
    Ok(Some(Done {
        answers: answers(&plan.verdicts, &holds, &state),
        next_deadline: settled.next_deadline,
        expiry_delays: expiry_delays.map(|delay| delay.as_seconds_f64()).collect(),
        released: count(&plan.closings, ReservationStatus::Cancelled),
        state,
    }))
}

fn count(closings: &[Closing], to: ReservationStatus) -> u64 {
    closings.iter().filter(|closing| closing.to == to).count().try_into().unwrap_or(u64::MAX)
}

/// Closes holds, and books the pairs of those that the database says it closed.
async fn close(
    connection: &mut AsyncPgConnection,
    look: &Look,
    closings: &[Closing],
    drop_id: DropId,
    holds: &mut HashMap<HoldId, Reservation>,
    moved: &mut HashMap<String, Moved>,
) -> Result<(), DbError> {
    if closings.is_empty() {
        return Ok(());
    }
    let closed = queries::mark_closed(connection, drop_id, look.now, closings).await?;
    expect_all(closings.len(), closed.len())?;
    if closings.iter().any(|closing| closing.to == ReservationStatus::Purchased) {
        let bought = queries::insert_purchases(connection, drop_id, closings).await?;
        expect_all(
            usize::try_from(count(closings, ReservationStatus::Purchased)).unwrap_or_default(),
            bought,
        )?;
    }
    for (hold_id, size, status) in closed {
        let moved = moved.entry(size).or_default();
        match status {
            ReservationStatus::Purchased => moved.purchased += 1,
            ReservationStatus::Expired => moved.expired += 1,
            ReservationStatus::Cancelled => moved.released += 1,
            ReservationStatus::Active => {
                return Err(DbError::Unexpected("a hold was closed and is active".into()));
            }
        }
        if let Some(hold) = holds.get_mut(&hold_id) {
            hold.status = status;
            hold.closed_at = Some(look.now);
        }
    }
    Ok(())
}

/// Makes holds: numbers never used first, then freed ones.
async fn grant(
    connection: &mut AsyncPgConnection,
    look: &Look,
    plan: &Plan,
    next_pairs: &HashMap<String, i32>,
    drop_id: DropId,
    holds: &mut HashMap<HoldId, Reservation>,
    moved: &mut HashMap<String, Moved>,
) -> Result<(), DbError> {
    if plan.grants.is_empty() {
        return Ok(());
    }
    let mut by_size: HashMap<&str, Vec<&Grant>> = HashMap::new();
    for grant in &plan.grants {
        by_size.entry(&grant.size).or_default().push(grant);
    }
    let mut new_holds: Vec<NewHold<'_>> = Vec::with_capacity(plan.grants.len());
    for (size, grants) in by_size {
        let total = look.sizes.iter().find(|shelf| shelf.size == size).map_or(0, |shelf| shelf.count.total);
        let next = next_pairs.get(size).copied().unwrap_or(total + 1);
        let wanted = i32::try_from(grants.len()).unwrap_or(i32::MAX);
        let fresh = wanted.min(total - next + 1);
        moved.entry(size.to_owned()).or_default().fresh = fresh;
        let mut numbers: Vec<i32> = (next..next + fresh).collect();
        if fresh < wanted {
            numbers.extend(queries::list_freed_pairs(connection, drop_id, size, next, wanted - fresh).await?);
        }
        expect_all(grants.len(), numbers.len())?;
        new_holds.extend(
            grants.into_iter().zip(numbers).map(|(grant, pair_number)| NewHold { grant, pair_number }),
        );
    }
    let made = queries::insert_holds(connection, drop_id, look, &new_holds).await?;
    expect_all(new_holds.len(), made.len())?;
    for hold in made {
        moved.entry(hold.size.clone()).or_default().reserved += 1;
        holds.insert(hold.id.hold_id, hold);
    }
    Ok(())
}

/// Under the lock nobody else closes holds or takes pairs; where a statement did less than planned the whole batch
/// is rolled back.
fn expect_all(planned: usize, done: usize) -> Result<(), DbError> {
    match planned == done {
        true => Ok(()),
        false => Err(DbError::Unexpected(format!("{done} of {planned} planned changes could be made"))),
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
