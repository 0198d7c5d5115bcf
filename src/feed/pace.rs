//! The pace at which a subscriber is told: bursts are folded into one update, the last state always arrives.

use std::{collections::HashMap, time::Duration};

use futures_util::{Stream, stream};
use tokio::time::Instant;

use super::{board::WatchingBoard, channel::Watching, shown::Shown};
use crate::ids::DropId;

/// The least time between two updates of a drop to one subscriber: 25 a second look smooth to a person.
const BETWEEN_UPDATES: Duration = Duration::from_millis(40);

/// What a subscriber was told last of a drop, and when.
struct Told {
    shown: Shown,
    when: Instant,
}

impl Told {
    fn now(shown: Shown) -> Self {
        Self { shown, when: Instant::now() }
    }

    /// When `next` may be told; `None` when it is no news.
    fn due(&self, next: &Shown) -> Option<Instant> {
        let due = if next.is_urgent_after(&self.shown) { self.when } else { self.when + BETWEEN_UPDATES };
        next.is_news_after(&self.shown).then_some(due)
    }
}

/// The updates of one drop. Ends when its channel closes.
pub(super) fn one_drop(watching: Watching) -> impl Stream<Item = Shown> + use<> {
    stream::unfold((watching, None::<Told>), |(mut watching, told)| async move {
        loop {
            let next = watching.receiver.borrow_and_update().clone();
            let due = match (&told, &next) {
                (Some(told), Some(next)) => told.due(next),
                (None, Some(_)) => Some(Instant::now()),
                (_, None) => None,
            };
            match (due, next) {
                (Some(due), Some(next)) if due <= Instant::now() => {
                    return Some((next.clone(), (watching, Some(Told::now(next)))));
                }
                // A newer one may come meanwhile, and may be urgent.
                (Some(due), _) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    changed = watching.receiver.changed() => changed.ok()?,
                },
                (None, _) => watching.receiver.changed().await.ok()?,
            }
        }
    })
}

/// The updates of all active drops, those that started last first, and of each that leaves, once.
pub(super) fn board(watching: WatchingBoard) -> impl Stream<Item = Shown> + use<> {
    stream::unfold((watching, HashMap::<DropId, Told>::new()), |(mut watching, mut told)| async move {
        loop {
            watching.changes.mark_unchanged();
            let mut pending: Vec<(Instant, Shown)> = Vec::new();
            for shown in watching.all() {
                let due = match told.get(&shown.state.id) {
                    Some(told) => told.due(&shown),
                    // A drop that is not active, and was not to this subscriber, is not on its board.
                    None => shown.status.is_active().then(Instant::now),
                };
                pending.extend(due.map(|due| (due, shown)));
            }
            let now = Instant::now();
            let starts_at = |shown: &Shown| (shown.state.catalogue.starts_at, shown.state.id);
            let ready = pending.iter().filter(|(due, _)| *due <= now).map(|(_, shown)| shown);
            if let Some(next) = ready.max_by_key(|shown| starts_at(shown)).cloned() {
                match next.status.is_active() {
                    true => told.insert(next.state.id, Told::now(next.clone())),
                    false => told.remove(&next.state.id),
                };
                return Some((next, (watching, told)));
            }
            match pending.iter().map(|(due, _)| *due).min() {
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    changed = watching.changes.changed() => changed.ok()?,
                },
                None => watching.changes.changed().await.ok()?,
            }
        }
    })
}
