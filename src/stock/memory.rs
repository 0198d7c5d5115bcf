//! Says no from memory. Never yes: a pair is had under the drop's lock and nowhere else.
//!
//! In the first minute of a drop thousands are told that nothing is left. That costs no transaction: what the last batch
//! saw is decided upon by the same function as under the lock. Whoever ever had a hold of the drop is not told from
//! memory, so that a retry of a granted request, with its key, always finds its reservation.

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

/// Every pair of a size being held changes any moment: a look that is older says nothing.
const HELD_FOR: Duration = Duration::from_millis(50);
/// Reservations of a drop whose buyers are known by name; with more, everybody is asked about in the database.
const MOST_RESERVATIONS: usize = 200_000;
/// Who has had a hold is read at most so often: another server's changes make it unknown again.
const BETWEEN_READS: Duration = Duration::from_secs(1);
/// The drop's batches wait for it that long and no longer. (PostgreSQL may go on until its own limit; the connection is
/// not had by anybody until then.)
const READ_WITHIN: Duration = Duration::from_millis(300);
/// And for this part of the time at the most.
const READS_TAKE_AT_MOST: u32 = 20;

/// What is remembered of one drop. Made and gone with its queue.
#[derive(Default)]
pub(super) struct Memory(Mutex<Content>);

#[derive(Default)]
struct Content {
    seen: Option<Seen>,
    /// Everyone who has or had a hold, or more. `None`: not known.
    holders: Option<HashSet<UserId>>,
    /// Not to be read before, if it was read.
    next_read: Option<Instant>,
    /// More than are kept, and there will not be fewer.
    has_too_many: bool,
}

/// What a batch saw.
struct Seen {
    state: Arc<DropState>,
    /// With no holds in it: the questions of those who have none are decided with it.
    look: Look,
    when: Instant,
    /// When the next hold lapses, if one does.
    deadline: Option<Instant>,
}

/// Whoever comes to a guarded door with nothing to show costs nothing: whether a drop wants admissions never changes.
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
    /// What is certain to be the answer to `operation` now. `newest` is the newest state of the drop that is known.
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
        // As if it had been read now: the answer tells the clock.
        let read = ClockReading::arrived_now(seen.look.now);
        let state = || Arc::new(DropState { read, ..DropState::clone(&seen.state) });
        is_certain.then(|| Answer { refusal: verdict.refusal, reservation: None, state: state() })
    }

    /// Remembers what a batch saw and whom it gave holds. To be told before those people are.
    pub(super) fn remember(
        &self,
        state: &Arc<DropState>,
        deadline: Option<Instant>,
        changed: bool,
        granted: impl Iterator<Item = UserId>,
    ) {
        let mut content = self.lock();
        let before = content.seen.as_ref().map(|seen| seen.state.version);
        // A version that this batch did not make is somebody else's, who may have given holds.
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

    /// Nobody knows what was done.
    pub(super) fn forget(&self) {
        let mut content = self.lock();
        content.seen = None;
        content.holders = None;
    }

    /// Learns who has had a hold, where a size has nothing left and it is not known. No batch may run meanwhile.
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
    /// One for each reservation.
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

    /// A drop of one pair, which is held.
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
