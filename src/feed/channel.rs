//! One channel per watched drop, created for its first subscriber and removed with its last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{pace::Bell, shown::Shown};
use crate::{ids::DropId, telemetry::Metrics};

pub(super) struct Channels {
    open: Mutex<HashMap<DropId, Arc<Channel>>>,
    metrics: Metrics,
}

struct Channel {
    newest: Mutex<Option<Shown>>,
    bell: Arc<Bell>,
}

/// A subscriber's end of a channel.
pub(super) struct Watching {
    pub(super) rings: watch::Receiver<()>,
    channel: Arc<Channel>,
    _place: Place,
}

struct Place {
    channels: Arc<Channels>,
    id: DropId,
}

impl Channel {
    fn new() -> Arc<Self> {
        Arc::new(Self { newest: Mutex::default(), bell: Bell::new() })
    }

    fn show(&self, new: Shown) {
        let mut newest = self.lock();
        let is_urgent = match &*newest {
            Some(shown) if new.is_news_after(shown) => Some(new.is_urgent_after(shown)),
            Some(shown) if new.is_later_reading_of(shown) => None,
            Some(_) => return,
            None => Some(true),
        };
        *newest = Some(new);
        drop(newest);
        if let Some(is_urgent) = is_urgent {
            self.bell.ring(is_urgent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Shown>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channels {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { open: Mutex::default(), metrics: metrics.clone() }
    }

    pub(super) fn watch(self: &Arc<Self>, id: DropId) -> Watching {
        let mut open = self.lock();
        let channel = open.entry(id).or_insert_with(Channel::new).clone();
        // Before the lock is released: a channel without listeners is removed.
        let rings = channel.bell.listen();
        drop(open);
        self.metrics.subscribers.inc();
        Watching { rings, channel, _place: Place { channels: self.clone(), id } }
    }

    pub(super) fn is_watched(&self, id: DropId) -> bool {
        self.lock().contains_key(&id)
    }

    pub(super) fn show(&self, new: Shown) {
        let channel = self.lock().get(&new.state.id).cloned();
        if let Some(channel) = channel {
            channel.show(new);
        }
    }

    /// Returns what each channel shows now.
    pub(super) fn all(&self) -> Vec<Shown> {
        self.lock().values().filter_map(|channel| channel.lock().clone()).collect()
    }

    pub(super) fn version(&self, id: DropId) -> Option<i32> {
        Some(self.lock().get(&id)?.lock().as_ref()?.state.version)
    }

    /// Returns the version that each channel shows; 0 if it shows nothing yet.
    pub(super) fn versions(&self) -> HashMap<DropId, i32> {
        let version = |channel: &Channel| channel.lock().as_ref().map_or(0, |shown| shown.state.version);
        self.lock().iter().map(|(id, channel)| (*id, version(channel))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DropId, Arc<Channel>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// Returns the newest known state.
    pub(super) fn newest(&self) -> Option<Shown> {
        self.channel.lock().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.channels.metrics.subscribers.dec();
        let mut open = self.channels.lock();
        // The receiver was dropped before this: fields are dropped in declaration order.
        if open.get(&self.id).is_some_and(|channel| !channel.bell.is_heard()) {
            open.remove(&self.id);
        }
    }
}
