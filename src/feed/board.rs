//! The board: every open drop in memory, for subscribers to all drops and for queries.
//!
//! It is current by version: it shows a change by this server before the caller is answered, and one by another
//! server once the poll has found it. While the poll fails the board answers nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    pace::Bell,
    shown::{OFF, Shown},
};
use crate::{
    clock::Timestamp,
    drops::{DropState, ListDrops},
    ids::DropId,
    page::Page,
    telemetry::Metrics,
};

/// How long the last state of a drop that is over is kept, so that the slowest subscriber gets it.
const KEEP_GONE: Duration = Duration::from_secs(60);
/// How long a comparison with the database is valid. After that the board may be more outdated than anyone should
/// see.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Drops that are kept; if more are open, queries go to the database.
const MOST_DROPS: usize = 1_000;

pub(super) struct Board {
    content: Mutex<Content>,
    /// Wakes the subscribers.
    bell: Arc<Bell>,
    metrics: Metrics,
}

#[derive(Default)]
struct Content {
    entries: HashMap<DropId, Entry>,
    /// Increases with each change.
    generation: u64,
    /// When the clock will first change a status that is shown.
    next_change: Option<Instant>,
    /// When the last comparison began that found nothing missing or outdated. `None` until a poll completes one.
    compared: Option<Instant>,
}

struct Entry {
    shown: Shown,
    since: Instant,
}

/// Identifies the content of the board from which an answer was made. The answer is valid while the board has the
/// same content, and until the clock changes something.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    number: u64,
    next_change: Option<Instant>,
}

/// The next change is not compared: it differs by the transit time of each clock reading. A clock that was set counts as
/// other content.
impl PartialEq for Generation {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Generation {}

impl Generation {
    /// Returns the moment until which the clock alone changes nothing.
    pub fn good_until(&self) -> Option<Instant> {
        self.next_change
    }
}

impl Content {
    /// Returns the content, if it is current.
    fn current(&self) -> Option<&Self> {
        self.compared.is_some_and(|compared| compared.elapsed() < GOOD_FOR).then_some(self)
    }

    /// Resets the timer.
    fn look_at_the_clock(&mut self) {
        self.next_change = self.entries.values().filter_map(|entry| entry.shown.next_clock_change()).min();
    }
}

/// A subscriber's end of the board.
pub(super) struct WatchingBoard {
    pub(super) rings: watch::Receiver<()>,
    place: Place,
}

struct Place(Arc<Board>);

impl Board {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { content: Mutex::default(), bell: Bell::new(), metrics: metrics.clone() }
    }

    pub(super) fn watch(self: &Arc<Self>) -> WatchingBoard {
        self.metrics.subscribers.inc();
        WatchingBoard { rings: self.bell.listen(), place: Place(self.clone()) }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.bell.is_heard()
    }

    /// Shows a state. Returns whether it is news, even if the drop has no place here.
    pub(super) fn show(&self, new: &Shown) -> bool {
        let mut content = self.lock();
        let entry = Entry { shown: new.clone(), since: Instant::now() };
        let room = content.entries.len() < MOST_DROPS;
        let is_urgent = match content.entries.get_mut(&new.state.id) {
            Some(old) if new.is_later_reading_of(&old.shown) => {
                let was_set = new.state.read.differs_by(&old.shown.state.read) > OFF;
                old.shown = new.clone();
                // Answers given before carry the wrong end of validity.
                content.generation += u64::from(was_set);
                content.look_at_the_clock();
                return false;
            }
            Some(old) if !new.is_news_after(&old.shown) => return false,
            Some(old) => {
                let is_urgent = new.is_urgent_after(&old.shown);
                *old = entry;
                is_urgent
            }
            None if new.status.is_over() => return true,
            None if room => {
                content.entries.insert(new.state.id, entry);
                true
            }
            // The board counts as incomplete until there is room again, and the poll retries.
            None => {
                content.compared = None;
                return true;
            }
        };
        content.generation += 1;
        content.look_at_the_clock();
        drop(content);
        self.bell.ring(is_urgent);
        true
    }

    pub(super) fn all(&self) -> Vec<Shown> {
        self.lock().entries.values().map(|entry| entry.shown.clone()).collect()
    }

    pub(super) fn version(&self, id: DropId) -> Option<i32> {
        Some(self.lock().entries.get(&id)?.shown.state.version)
    }

    pub(super) fn versions(&self) -> HashMap<DropId, i32> {
        self.lock().entries.iter().map(|(id, entry)| (*id, entry.shown.state.version)).collect()
    }

    /// Records a comparison that began at `began`. The board is current if it has all `open` drops.
    pub(super) fn compared(&self, began: Instant, open: &[DropId]) {
        let mut content = self.lock();
        let whole = open.iter().all(|id| content.entries.contains_key(id));
        content.compared = whole.then_some(began);
    }

    /// Removes drops that have been over for a while.
    pub(super) fn forget_the_gone(&self, now: Instant) {
        let mut content = self.lock();
        let before = content.entries.len();
        content.entries.retain(|_, entry| !entry.shown.status.is_over() || now - entry.since < KEEP_GONE);
        // Answers about them are no longer valid: their changes do not show here any more.
        content.generation += u64::from(content.entries.len() < before);
    }

    pub(super) fn next_clock_change(&self) -> Option<Instant> {
        self.lock().next_change
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        let content = self.lock();
        let Content { generation: number, next_change, .. } = *content.current()?;
        Some(Generation { number, next_change })
    }

    pub(super) fn shown(&self, id: DropId) -> Option<Shown> {
        Some(self.lock().current()?.entries.get(&id)?.shown.clone())
    }

    /// Returns the page as the database would. `None` if only the database can: the list includes drops that are
    /// over, or the board is not current.
    pub(super) fn list(&self, list: &ListDrops) -> Option<Page<Arc<DropState>>> {
        if list.statuses.iter().any(|status| status.is_over()) {
            return None;
        }
        let place =
            |state: &DropState| -> (Timestamp, uuid::Uuid) { (state.catalogue.starts_at, state.id.0) };
        let after = list.after.map(|cursor| (cursor.at, cursor.id));
        let follows = |state: &DropState| match after {
            None => true,
            Some(after) if list.reverse => place(state) > after,
            Some(after) => place(state) < after,
        };
        let mut found: Vec<Arc<DropState>> = {
            let content = self.lock();
            let states = content.current()?.entries.values().map(|entry| &entry.shown.state);
            states.filter(|state| list.statuses.contains(&state.status(state.read.now()))).cloned().collect()
        };
        found.retain(|state| follows(state));
        found.sort_unstable_by_key(|state| place(state));
        if !list.reverse {
            found.reverse();
        }
        Some(Page::of(found, list.first))
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchingBoard {
    pub(super) fn all(&self) -> Vec<Shown> {
        self.place.0.all()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.metrics.subscribers.dec();
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};

    use super::*;
    use crate::{clock::ClockReading, drops::Catalogue};

    fn shown(id: DropId, version: i32, ends_at: Timestamp, read: Timestamp) -> Shown {
        let catalogue =
            Catalogue { ends_at: Some(ends_at), ..Catalogue::example(read - TimeDelta::hours(1)) };
        let read = ClockReading::arrived_now(read);
        Shown::new(Arc::new(DropState { id, catalogue, sizes: Vec::new(), version, read }))
    }

    #[test]
    fn what_was_answered_of_a_drop_is_good_no_longer_when_it_is_forgotten() {
        let (board, id, now) = (Board::new(&Metrics::default()), DropId::new(), Utc::now());
        board.show(&shown(id, 1, now + TimeDelta::hours(1), now));
        board.show(&shown(id, 2, now, now));
        board.compared(Instant::now(), &[]);
        let kept = board.generation();
        board.forget_the_gone(Instant::now() + KEEP_GONE / 2);
        assert_eq!((board.generation(), kept.is_some()), (kept, true), "it is there");
        board.forget_the_gone(Instant::now() + KEEP_GONE);
        assert_ne!(board.generation(), kept, "its changes do not show here any more");
        assert!(board.shown(id).is_none());
    }

    #[test]
    fn what_was_answered_until_a_moment_is_good_no_longer_when_the_clock_is_set() {
        let (board, id, now) = (Board::new(&Metrics::default()), DropId::new(), Utc::now());
        let ends_at = now + TimeDelta::hours(1);
        board.show(&shown(id, 1, ends_at, now));
        board.compared(Instant::now(), &[]);
        let kept = board.generation().unwrap();
        board.show(&shown(id, 1, ends_at, now + TimeDelta::milliseconds(5)));
        assert_eq!(board.generation(), Some(kept), "read again, it has not changed");
        for minutes in [50, -50] {
            let before = board.generation().unwrap();
            board.show(&shown(id, 1, ends_at, now + TimeDelta::minutes(minutes)));
            let after = board.generation().unwrap();
            assert_ne!(after, before);
            assert_eq!(after.next_change < before.next_change, minutes > 0);
        }
    }
}
