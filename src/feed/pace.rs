//! Paces the updates to subscribers: bursts are merged into one update, the last state always arrives.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{board::WatchingBoard, channel::Watching, shown::Shown};
use crate::ids::DropId;

/// Shortest interval between two updates, except urgent ones: 20 a second look smooth to a person.
const BETWEEN_UPDATES: Duration = Duration::from_millis(50);

/// Wakes subscribers. A hot drop changes hundreds of times a second: if each change woke ten thousand subscribers,
/// only for them to see that it is too early, the server would do nothing else.
pub(super) struct Bell {
    rings: watch::Sender<()>,
    /// The runtime of the first listener. Waking ten thousand takes ten milliseconds, which must not be those of the
    /// thread that changed the drop.
    runtime: OnceLock<Handle>,
    pace: Mutex<Pace>,
}

struct Pace {
    /// When it may ring again.
    due: Instant,
    /// Whether a task waits for that.
    is_awaited: bool,
}

impl Bell {
    pub(super) fn new() -> Arc<Self> {
        let pace = Pace { due: Instant::now(), is_awaited: false };
        Arc::new(Self { rings: watch::Sender::new(()), runtime: OnceLock::new(), pace: Mutex::new(pace) })
    }

    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.runtime.get_or_init(Handle::current);
        self.rings.subscribe()
    }

    pub(super) fn is_heard(&self) -> bool {
        self.rings.receiver_count() > 0
    }

    /// Rings for a change: at once if it is urgent or the last ring was long enough ago, otherwise as soon as it was.
    pub(super) fn ring(self: &Arc<Self>, is_urgent: bool) {
        let Some(runtime) = self.runtime.get() else { return };
        let now = Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if is_urgent || pace.due <= now {
            pace.due = now + BETWEEN_UPDATES;
            let bell = self.clone();
            runtime.spawn(async move { bell.rings.send_replace(()) });
        } else if !pace.is_awaited {
            pace.is_awaited = true;
            let (bell, due) = (self.clone(), pace.due);
            runtime.spawn(async move {
                tokio::time::sleep_until(due).await;
                bell.pace.lock().unwrap_or_else(PoisonError::into_inner).is_awaited = false;
                // An urgent change may have rung since and postponed the next ring: this one waits again.
                bell.ring(false);
            });
        }
    }
}

/// Returns the updates of one drop, the newest known at once.
pub(super) fn one_drop(watching: Watching) -> impl Stream<Item = Shown> + use<> {
    stream::unfold((watching, None::<Shown>), |(mut watching, told)| async move {
        loop {
            if told.is_some() {
                watching.rings.changed().await.ok()?;
            }
            match (watching.newest(), &told) {
                (Some(newest), Some(told)) if !newest.is_news_after(told) => {}
                (Some(newest), _) => return Some((newest.clone(), (watching, Some(newest)))),
                // Not published yet: `watch_drop` does that next.
                (None, _) => watching.rings.changed().await.ok()?,
            }
        }
    })
}

/// Returns the updates of all active drops, latest start first, and one of each that leaves.
pub(super) fn board(watching: WatchingBoard) -> impl Stream<Item = Shown> + use<> {
    let told = HashMap::<DropId, Shown>::new();
    let next = news(&watching, &told);
    stream::unfold((watching, told, next), |(mut watching, mut told, mut next)| async move {
        loop {
            if let Some(shown) = next.pop_front() {
                match shown.status.is_active() {
                    true => told.insert(shown.state.id, shown.clone()),
                    false => told.remove(&shown.state.id),
                };
                return Some((shown, (watching, told, next)));
            }
            watching.rings.changed().await.ok()?;
            next = news(&watching, &told);
        }
    })
}

/// Returns what the board shows and this subscriber has not received.
fn news(watching: &WatchingBoard, told: &HashMap<DropId, Shown>) -> VecDeque<Shown> {
    let mut news = watching.all();
    news.retain(|shown| match told.get(&shown.state.id) {
        Some(told) => shown.is_news_after(told),
        // A drop that is not active, and was not for this subscriber, is not on its board.
        None => shown.status.is_active(),
    });
    news.sort_unstable_by_key(|shown| std::cmp::Reverse((shown.state.catalogue.starts_at, shown.state.id)));
    news.into()
}
