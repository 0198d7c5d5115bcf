//! One channel per watched drop, made for its first subscriber and gone with its last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::shown::Shown;
use crate::{ids::DropId, telemetry::Metrics};

pub(super) struct Channels {
    open: Mutex<HashMap<DropId, watch::Sender<Option<Shown>>>>,
    metrics: Metrics,
}

/// A subscriber's end of a channel.
pub(super) struct Watching {
    pub(super) receiver: watch::Receiver<Option<Shown>>,
    _place: Place,
}

struct Place {
    channels: Arc<Channels>,
    id: DropId,
}

impl Channels {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { open: Mutex::default(), metrics: metrics.clone() }
    }

    pub(super) fn watch(self: &Arc<Self>, id: DropId) -> Watching {
        let receiver = self.lock().entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe();
        self.metrics.subscribers.inc();
        Watching { receiver, _place: Place { channels: self.clone(), id } }
    }

    pub(super) fn is_watched(&self, id: DropId) -> bool {
        self.lock().contains_key(&id)
    }

    pub(super) fn show(&self, new: Shown) {
        let open = self.lock();
        let Some(channel) = open.get(&new.state.id) else { return };
        channel.send_if_modified(|current| match current {
            Some(shown) if new.is_news_after(shown) => {
                *shown = new;
                true
            }
            Some(shown) => {
                if new.is_later_reading_of(shown) {
                    *shown = new;
                }
                false
            }
            None => {
                *current = Some(new);
                true
            }
        });
    }

    /// What each channel shows now.
    pub(super) fn all(&self) -> Vec<Shown> {
        self.lock().values().filter_map(|channel| channel.borrow().clone()).collect()
    }

    /// The version that each channel shows; 0 where it shows nothing yet.
    pub(super) fn versions(&self) -> HashMap<DropId, i32> {
        let version = |channel: &watch::Sender<Option<Shown>>| {
            channel.borrow().as_ref().map_or(0, |shown| shown.state.version)
        };
        self.lock().iter().map(|(id, channel)| (*id, version(channel))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DropId, watch::Sender<Option<Shown>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.channels.metrics.subscribers.dec();
        let mut open = self.channels.lock();
        // The receiver was dropped before this: fields go in the order of their declaration.
        if open.get(&self.id).is_some_and(|channel| channel.receiver_count() == 0) {
            open.remove(&self.id);
        }
    }
}
