//! Refuses from memory. Never grants: a pair is given out only under the drop's lock.
//!
//! In the first minute of a drop thousands of requests find nothing left. They cost no transaction: the function that
//! decides under the lock decides on what the last batch saw. Buyers who ever had a hold of the drop are not answered
//! from memory, so that a retry of a granted request, with its key, always finds its reservation.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    ReserveRefusal,
    decide::{Look, decide},
    operation::{Answer, Operation, Refusal},
};
use crate::{
    clock::ClockReading,
    db::{Database, DbError, statement},
    drops::DropState,
    ids::{DropId, UserId},
};

/// How long a look can tell that every pair of a size is held: a pair may come free at any moment.
const HELD_FOR: Duration = Duration::from_millis(50);
/// Reservations of a drop up to which its buyers are kept; with more, every request goes to the database.
const MOST_RESERVATIONS: usize = 200_000;
/// Shortest interval between reads of the buyers: another server's changes make them unknown again.
const BETWEEN_READS: Duration = Duration::from_secs(1);
/// How long the drop's batches wait for such a read. (PostgreSQL may continue until its own limit; the connection is
/// not available until then.)
const READ_WITHIN: Duration = Duration::from_millis(300);
/// Such reads take at most one part in this many of the time.
const READS_TAKE_AT_MOST: u32 = 20;

/// What is remembered of one drop. Lives as long as its queue.
#[derive(Default)]
pub(super) struct Memory(Mutex<Content>);

#[derive(Default)]
struct Content {
    seen: Option<Seen>,
    /// Everyone who has or had a hold, possibly more. `None` if unknown.
    holders: Option<HashSet<UserId>>,
    /// Earliest time of the next read, if there was one.
    next_read: Option<Instant>,
    /// There are more reservations than are kept, and their number never falls.
    has_too_many: bool,
}

/// What a batch saw.
struct Seen {
    state: Arc<DropState>,
    /// Contains no holds: it decides requests of buyers who have none.
    look: Look,
    when: Instant,
    /// When the next hold expires, if there is one.
    deadline: Option<Instant>,
}

/// Refuses a reserve without an admission where the drop requires one. It costs nothing, because that never changes.
pub(super) fn refuse_unadmitted(newest: &DropState, operation: &Operation) -> Option<Answer<Refusal>> {
    let is_refused = newest.catalogue.admission_required
        && matches!(operation, Operation::Reserve { admission: None, .. });
    is_refused.then(|| {
        let read = ClockReading::arrived_now(newest.read.now());
        Answer {
            refusal: Some(Refusal::Reserve(ReserveRefusal::AdmissionRequired)),
            reservation: None,
            state: Arc::new(DropState { read, ..newest.clone() }),
        }
    })
}

impl Memory {
    /// Returns the answer to `operation`, if it is certain now. `newest` is the newest known state of the drop.
    pub(super) fn refuse(&self, newest: &DropState, operation: &Operation) -> Option<Answer<Refusal>> {
        let Operation::Reserve { user, .. } = operation else { return None };
        let mut content = self.lock();
        let Content { seen, holders, .. } = &mut *content;
        let seen = seen.as_mut().filter(|seen| seen.state.version == newest.version)?;
        if holders.as_ref()?.contains(user) {
            return None;
        }
        seen.look.now = seen.state.read.now();
        let verdict = decide(&seen.look, std::slice::from_ref(operation)).verdicts.pop()?;
        let is_certain = match verdict.refusal? {
            Refusal::Reserve(ReserveRefusal::SoldOut) => true,
            Refusal::Reserve(ReserveRefusal::AllHeld) => {
                seen.when.elapsed() < HELD_FOR
                    && seen.deadline.is_none_or(|deadline| Instant::now() < deadline)
            }
            _ => false,
        };
        // As if it had been read now: the answer shows the clock.
        let read = ClockReading::arrived_now(seen.look.now);
        let state = || Arc::new(DropState { read, ..DropState::clone(&seen.state) });
        is_certain.then(|| Answer { refusal: verdict.refusal, reservation: None, state: state() })
    }

    /// Records what a batch saw and which buyers it gave holds. Call this before they are answered.
    pub(super) fn remember(
        &self,
        state: &Arc<DropState>,
        deadline: Option<Instant>,
        changed: bool,
        granted: impl Iterator<Item = UserId>,
    ) {
        let mut content = self.lock();
        let before = content.seen.as_ref().map(|seen| seen.state.version);
        // A version that this batch did not make is another server's, which may have granted holds.
        let is_next = before.is_some_and(|before| state.version == before + i32::from(changed));
        content.holders = content.holders.take().filter(|_| is_next);
        if let Some(holders) = &mut content.holders {
            holders.extend(granted);
        }
        let look = Look {
            now: state.read.at,
            catalogue: state.catalogue.clone(),
            sizes: state.sizes.clone(),
            known: Vec::new(),
        };
        content.seen = Some(Seen { state: state.clone(), look, when: Instant::now(), deadline });
    }

    /// Forgets everything, because a batch failed.
    pub(super) fn forget(&self) {
        let mut content = self.lock();
        content.seen = None;
        content.holders = None;
    }

    /// Reads who has or had a hold, if a size has nothing left and this is unknown. No batch may run meanwhile.
    pub(super) async fn learn(&self, db: &Database, drop_id: DropId) -> Result<(), DbError> {
        if !self.lacks_holders() {
            return Ok(());
        }
        let began = Instant::now();
        let limit = i64::try_from(MOST_RESERVATIONS + 1).unwrap_or(i64::MAX);
        let list = ListBuyers { drop_id: drop_id.0, limit };
        let read = db.run_for_sale(async |connection| Ok(list.load::<UserId>(connection).await?));
        let found = timeout(READ_WITHIN, read).await;
        let mut content = self.lock();
        content.next_read = Some(Instant::now() + BETWEEN_READS.max(began.elapsed() * READS_TAKE_AT_MOST));
        let found =
            found.map_err(|_| DbError::Overloaded("too many buyers to read in time".to_owned()))??;
        content.has_too_many = found.len() > MOST_RESERVATIONS;
        content.holders = (!content.has_too_many).then(|| found.into_iter().collect());
        Ok(())
    }

    fn lacks_holders(&self) -> bool {
        let content = self.lock();
        let has_none_left = |seen: &Seen| seen.state.sizes.iter().any(|size| size.count.available == 0);
        content.holders.is_none()
            && !content.has_too_many
            && content.seen.as_ref().is_some_and(has_none_left)
            && content.next_read.is_none_or(|next_read| next_read <= Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

statement!(
    /// One row per reservation.
    ListBuyers -> SqlUuid,
    "SELECT user_id FROM reservations WHERE drop_id = $1 LIMIT $2",
    { drop_id: SqlUuid => Uuid, limit: BigInt => i64 }
);

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::{
        config::DatabaseConfig,
        drops::{Catalogue, SizeStock, StockCount},
        telemetry::Metrics,
    };

    /// Returns a drop of one pair, which is held.
    fn all_held() -> Arc<DropState> {
        let now = Utc::now();
        Arc::new(DropState {
            id: DropId::new(),
            catalogue: Catalogue::example(now),
            sizes: vec![SizeStock {
                size: "US 9".to_owned(),
                count: StockCount { total: 1, available: 0, held: 1, sold: 0 },
            }],
            version: 2,
            read: ClockReading::arrived_now(now),
        })
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_asked_for_with_each_batch() {
        let nowhere = "postgres://127.0.0.1:1/none";
        let nowhere = DatabaseConfig { url: Some(nowhere.into()), direct_url: None, pool_size: 1 };
        let db = Database::new(&nowhere, &Metrics::default()).unwrap();
        let (memory, state) = (Memory::default(), all_held());
        memory.remember(&state, None, true, std::iter::empty());
        assert!(memory.learn(&db, state.id).await.is_err());
        for _ in 0..10 {
            memory.forget();
            memory.remember(&state, None, true, std::iter::empty());
            assert!(memory.learn(&db, state.id).await.is_ok(), "asked again");
        }
    }
}
