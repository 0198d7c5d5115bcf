//! One transaction for a batch of operations on one drop: lock, look, decide, write, in this order.
//!
//! Lock first and look second, as separate statements: in READ COMMITTED a statement's snapshot is taken before it
//! waits for a row lock. The clock is read after the lock. What the counters move by is what the statements beside
//! them returned, or nothing is committed.
//!
//! Three round trips, whatever the batch's size: BEGIN, the lock and the looks; what is written; COMMIT. One more where
//! pairs that were held before are given out again.

use std::{collections::HashMap, sync::Arc};

use diesel_async::AsyncPgConnection;
use futures_util::future::try_join_all;
use tokio::try_join;

use super::{
    Reservation, ReservationStatus,
    decide::{Closing, Grant, Known, Look, Plan, Verdict, decide},
    operation::{Answer, Operation, Refusal},
    queries::{self, Moved, NewHold, Settled},
};
use crate::{
    clock::{ClockReading, Timestamp},
    db::{Connection, DbError, Transaction},
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
    connection: Connection,
    drop_id: DropId,
    operations: &[Operation],
) -> Result<Option<Done>, DbError> {
    let transaction = Transaction::on(connection);
    match in_transaction(&transaction, drop_id, operations).await {
        Ok(done) => transaction.commit().await.map(|()| done),
        Err(error) => {
            transaction.roll_back().await;
            Err(error)
        }
    }
}

async fn in_transaction(
    transaction: &Transaction,
    drop_id: DropId,
    operations: &[Operation],
) -> Result<Option<Done>, DbError> {
    let connection = transaction.connection();
    let ((), locked, looked) = try_join!(
        biased;
        transaction.begin(),
        queries::lock_drop(connection, drop_id),
        queries::look(connection, drop_id, operations),
    )?;
    let Some((catalogue, version)) = locked else { return Ok(None) };
    let looked = looked.filter(|looked| looked.version == version);
    let looked = looked.ok_or_else(|| DbError::Unexpected("not looked under the lock".to_owned()))?;
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

    let Written { closed, made, settled } =
        write(connection, drop_id, &look, &plan, &looked.next_pairs, &holds).await?;
    for (hold_id, _, status) in closed {
        if let Some(hold) = holds.get_mut(&hold_id) {
            hold.status = status;
            hold.closed_at = Some(look.now);
        }
    }
    holds.extend(made.into_iter().map(|hold| (hold.id.hold_id, hold)));
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
        released: count(&plan.closings, ReservationStatus::Cancelled).try_into().unwrap_or(u64::MAX),
        state,
    }))
}

fn count(closings: &[Closing], to: ReservationStatus) -> usize {
    closings.iter().filter(|closing| closing.to == to).count()
}

/// What the database says that it did.
struct Written {
    closed: Vec<(HoldId, String, ReservationStatus)>,
    made: Vec<Reservation>,
    settled: Settled,
}

/// Writes the plan. Under the lock nobody else closes holds or takes pairs; where a statement did less than planned the
/// whole batch is to be rolled back.
async fn write(
    connection: &AsyncPgConnection,
    drop_id: DropId,
    look: &Look,
    plan: &Plan,
    next_pairs: &HashMap<String, i32>,
    holds: &HashMap<HoldId, Reservation>,
) -> Result<Written, DbError> {
    let mut planned: HashMap<String, Moved> = HashMap::new();
    for closing in &plan.closings {
        let hold = holds.get(&closing.hold_id);
        let hold = hold.ok_or_else(|| DbError::Unexpected("a hold is closed that nobody saw".to_owned()))?;
        planned.entry(hold.size.clone()).or_default().closed(closing.to);
    }
    for grant in &plan.grants {
        planned.entry(grant.size.clone()).or_default().reserved += 1;
    }
    let close = async {
        try_join!(
            biased;
            queries::mark_closed(connection, drop_id, look.now, &plan.closings),
            queries::insert_purchases(connection, drop_id, &plan.closings),
        )
    };
    let settle = |fresh| queries::settle(connection, drop_id, look.now, plan.cancels_drop, &planned, fresh);
    let mut numbers = Numbers::new(look, plan, next_pairs);
    let ((closed, bought), made, settled) = match numbers.missing.is_empty() {
        true => {
            let new_holds = numbers.give_to(&plan.grants)?;
            let insert = queries::insert_holds(connection, drop_id, look, &new_holds);
            try_join!(biased; close, insert, settle(&numbers.fresh))?
        }
        false => {
            // Those that this batch gives back are free once it has.
            let (closed, ()) = try_join!(biased; close, numbers.find_freed(connection, drop_id, next_pairs))?;
            let new_holds = numbers.give_to(&plan.grants)?;
            let insert = queries::insert_holds(connection, drop_id, look, &new_holds);
            let (made, settled) = try_join!(biased; insert, settle(&numbers.fresh))?;
            (closed, made, settled)
        }
    };
    let mut moved: HashMap<String, Moved> = HashMap::new();
    for (_, size, status) in &closed {
        moved.entry(size.clone()).or_default().closed(*status);
    }
    for hold in &made {
        moved.entry(hold.size.clone()).or_default().reserved += 1;
    }
    match moved == planned && bought == count(&plan.closings, ReservationStatus::Purchased) {
        true => Ok(Written { closed, made, settled }),
        false => {
            Err(DbError::Unexpected(format!("{moved:?} and {bought} bought is not the plan: {planned:?}")))
        }
    }
}

/// Pair numbers for grants: those never used first, then freed ones.
struct Numbers {
    /// By size, what is to be given.
    free: HashMap<String, Vec<i32>>,
    /// How many of those were never used.
    fresh: HashMap<String, i32>,
    /// How many freed ones it takes beside.
    missing: HashMap<String, i32>,
}

impl Numbers {
    fn new(look: &Look, plan: &Plan, next_pairs: &HashMap<String, i32>) -> Self {
        let mut wanted: HashMap<&str, i32> = HashMap::new();
        for grant in &plan.grants {
            *wanted.entry(&grant.size).or_default() += 1;
        }
        let mut all = Self { free: HashMap::new(), fresh: HashMap::new(), missing: HashMap::new() };
        for size in &look.sizes {
            let Some(wanted) = wanted.get(size.size.as_str()).copied() else { continue };
            let next = next_pairs.get(&size.size).copied().unwrap_or(size.count.total + 1);
            let fresh = wanted.min(size.count.total - next + 1);
            // The highest first: they are taken from the end.
            all.free.insert(size.size.clone(), (next..next + fresh).rev().collect());
            all.fresh.insert(size.size.clone(), fresh);
            if fresh < wanted {
                all.missing.insert(size.size.clone(), wanted - fresh);
            }
        }
        all
    }

    async fn find_freed(
        &mut self,
        connection: &AsyncPgConnection,
        drop_id: DropId,
        next_pairs: &HashMap<String, i32>,
    ) -> Result<(), DbError> {
        let found = try_join_all(self.missing.drain().map(async |(size, missing)| {
            let below = next_pairs.get(&size).copied().unwrap_or_default();
            let numbers = queries::list_freed_pairs(connection, drop_id, &size, below, missing).await?;
            Ok::<_, DbError>((size, numbers))
        }));
        for (size, numbers) in found.await? {
            self.free.entry(size).or_default().splice(0..0, numbers.into_iter().rev());
        }
        Ok(())
    }

    fn give_to<'a>(&mut self, grants: &'a [Grant]) -> Result<Vec<NewHold<'a>>, DbError> {
        let give = |grant: &'a Grant| {
            let pair_number = self.free.get_mut(&grant.size).and_then(Vec::pop);
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
