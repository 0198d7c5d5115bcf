//! The board: every open drop, kept while anybody watches it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::shown::Shown;
use crate::{drops::DropStatus, ids::DropId, telemetry::Metrics};

/// How long the last state of a drop that is over stays, so that the slowest subscriber gets it.
const KEEP_GONE: Duration = Duration::from_secs(60);

pub(super) struct Board {
    entries: Mutex<HashMap<DropId, Entry>>,
    /// Counts the changes; its receivers are the subscribers.
    changes: watch::Sender<u64>,
    metrics: Metrics,
}

struct Entry {
    shown: Shown,
    since: Instant,
}

/// A subscriber's end of the board.
pub(super) struct WatchingBoard {
    pub(super) changes: watch::Receiver<u64>,
    place: Place,
}

struct Place(Arc<Board>);

impl Board {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { entries: Mutex::default(), changes: watch::Sender::new(0), metrics: metrics.clone() }
    }

    pub(super) fn watch(self: &Arc<Self>) -> WatchingBoard {
        let _entries = self.lock();
        self.metrics.subscribers.inc();
        WatchingBoard { changes: self.changes.subscribe(), place: Place(self.clone()) }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.changes.receiver_count() > 0
    }

    pub(super) fn show(&self, new: &Shown) {
        if !self.is_watched() {
            return;
        }
        let mut entries = self.lock();
        let entry = Entry { shown: new.clone(), since: Instant::now() };
        match entries.get_mut(&new.state.id) {
            Some(old) if new.is_later_reading_of(&old.shown) => {
                old.shown = new.clone();
                return;
            }
            Some(old) if !new.is_news_after(&old.shown) => return,
            Some(old) => *old = entry,
            None => {
                entries.insert(new.state.id, entry);
            }
        }
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn all(&self) -> Vec<Shown> {
        self.lock().values().map(|entry| entry.shown.clone()).collect()
    }

    pub(super) fn versions(&self) -> HashMap<DropId, i32> {
        self.lock().iter().map(|(id, entry)| (*id, entry.shown.state.version)).collect()
    }

    /// Forgets drops that have been over for a while.
    pub(super) fn forget_the_gone(&self) {
        self.lock().retain(|_, entry| {
            !matches!(entry.shown.status, DropStatus::Ended | DropStatus::Cancelled)
                || entry.since.elapsed() < KEEP_GONE
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DropId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut entries = self.0.lock();
        if !self.0.is_watched() {
            entries.clear();
        }
    }
}
