//! One transaction for a batch of operations on one drop.
//!
//! If everything that matters is known from the batch before, and nobody has changed the drop since: decide, write.
//! One statement locks the drop, checks that it has the expected version, and writes; or does nothing. One round
//! trip.
//!
//! Otherwise: lock, look, decide, write. Lock and look are separate statements, because in READ COMMITTED a
//! statement's snapshot is taken before it waits for a row lock. The clock is read after the lock. Two round trips,
//! whatever the batch size: BEGIN, the lock and the looks; the write and COMMIT. One more to give out pairs again
//! that this server does not know for sure to be free, and another if it has to search for them.
//!
//! The counters change by what was decided, and the statement that writes fails if it did anything else.

mod draft;
mod pair_allocation;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::{task::unconstrained, time::timeout, try_join};

use super::{
    decide::{Look, close_some, decide},
    expected::{Basis, Expected},
    freed::Freed,
    operation::{Answer, Operation, Refusal},
    queries,
};
use crate::{
    clock::{ClockReading, Timestamp},
    db::{Connection, DbError, Transaction},
    drops::DropState,
    ids::DropId,
};
use draft::{Draft, Outcome};

/// Longer than a statement or a lock wait may take.
const WATCHDOG: Duration = Duration::from_millis(3_500);

/// The result of a committed batch.
pub(super) struct Done {
    /// One per operation, in their order; none yet when it [is partial](Self::is_partial).
    pub(super) answers: Vec<Answer<Refusal>>,
    /// Whether so many holds had to be closed that the operations, or most of them, are still to be done.
    pub(super) is_partial: bool,
    /// Whether the batch made the version of `state`.
    pub(super) changed: bool,
    /// The drop after the batch, read at the instant of the decision.
    pub(super) state: Arc<DropState>,
    /// The newest reading of the database clock.
    pub(super) clock: ClockReading,
    /// When the next hold of the drop expires.
    pub(super) next_deadline: Option<Timestamp>,
    /// How late each expired hold was released, in seconds.
    pub(super) expiry_delays: Vec<f64>,
    /// Number of cancelled holds.
    pub(super) released: u64,
}

/// Runs the batch in one transaction, or a part of it that has to come first. Returns `None` if the drop does not
/// exist. `expected` is how the batch before left the drop, and then how this one did; `None` if unknown. `freed` are
/// the pairs known to be free again.
///
/// # Errors
/// A database error. Nothing was done, unless it is `Unavailable`: then the outcome is unknown.
pub(super) async fn run(
    connection: Connection,
    drop_id: DropId,
    operations: &[Operation],
    expected: &mut Option<Expected>,
    freed: &mut Freed,
) -> Result<Option<Done>, DbError> {
    let mut before = expected.take();
    let transaction = Transaction::on(connection);
    let outcome = match watched(at_once(&transaction, drop_id, operations, before.as_mut(), freed)).await? {
        Ok(None) => match watched(in_transaction(&transaction, drop_id, operations, freed)).await? {
            Err(error) => {
                freed.doubt();
                return Err(watched(transaction.roll_back(error)).await?);
            }
            Ok(outcome) => outcome,
        },
        // It was a transaction by itself, which has ended.
        Err(error @ DbError::Overloaded(_)) => {
            transaction.end();
            return Err(error);
        }
        at_once => at_once?,
    };
    transaction.end();
    Ok(outcome.map(|outcome| {
        let (done, left) = outcome.end(before, freed);
        *expected = Some(left);
        done
    }))
}

/// Bounds a step. If PostgreSQL's own limits did not end it by then, its server is hung or gone. A transaction that
/// is given up closes its connection.
async fn watched<T>(road: impl Future<Output = T>) -> Result<T, DbError> {
    let no_answer = |_| DbError::Unavailable("no answer within the watchdog's time".to_owned());
    timeout(WATCHDOG, road).await.map_err(no_answer)
}

/// Writes without a look. `None`: not everything is known, or it has changed; nothing was done.
async fn at_once(
    transaction: &Transaction,
    drop_id: DropId,
    operations: &[Operation],
    expected: Option<&mut Expected>,
    freed: &mut Freed,
) -> Result<Option<Outcome>, DbError> {
    let Some(expected) = expected else { return Ok(None) };
    let Some(basis) = expected.basis(operations) else { return Ok(None) };
    freed.look_at(&basis.version);
    let mut draft = Draft::new(drop_id, basis, |look| decide(look, operations));
    let numbers = draft.numbers(freed);
    if !draft.plan.changes_anything() || !numbers.missing().is_empty() {
        return Ok(None);
    }
    draft.give(numbers)?;
    match queries::change(transaction.connection(), drop_id, draft.planned()).await {
        Ok(Some(settled)) => return Ok(Some(draft.settle(settled))),
        Ok(None) => {}
        // It did nothing. A look finds what was in the way, or which operation.
        Err(error @ (DbError::Constraint(_) | DbError::Unexpected(_))) => {
            tracing::warn!(%error, %drop_id, "a drop is not in the expected state; reading it again");
            freed.doubt();
        }
        Err(error) => return Err(error),
    }
    expected.was_wrong();
    Ok(None)
}

async fn in_transaction(
    transaction: &Transaction,
    drop_id: DropId,
    operations: &[Operation],
    freed: &mut Freed,
) -> Result<Option<Outcome>, DbError> {
    let connection = transaction.connection();
    // What is polled first is sent first, unless the runtime defers it.
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
    let looked = looked.filter(|looked| looked.version == version.number);
    let looked = looked.ok_or_else(|| DbError::Unexpected("not looked under the lock".to_owned()))?;
    let read = ClockReading::arrived_now(looked.now);
    let look = Look { now: looked.now, catalogue, sizes: looked.sizes, known: looked.known };
    freed.look_at(&version);
    let basis = Basis { look, read, version, next_pairs: looked.next_pairs, newcomers: None };
    let mut draft = Draft::new(drop_id, basis, |look| match looked.is_cut {
        true => close_some(look, operations),
        false => decide(look, operations),
    });
    if !draft.plan.changes_anything() {
        let next_deadline = transaction.commit_after(queries::find_deadline(connection, drop_id)).await?;
        return Ok(Some(draft.leave(next_deadline).in_part(looked.is_cut)));
    }
    let mut numbers = draft.numbers(freed);
    numbers.complete(connection, drop_id, freed).await?;
    draft.give(numbers)?;
    let change = queries::change(connection, drop_id, draft.planned());
    let settled = transaction.commit_after(change).await?;
    let settled = settled.ok_or_else(|| DbError::Unexpected("not written under the lock".to_owned()))?;
    Ok(Some(draft.settle(settled).in_part(looked.is_cut)))
}
