//! The pace at which subscribers are told: bursts are folded into one update, the last state always arrives.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{board::WatchingBoard, channel::Watching, shown::Shown};
use crate::ids::DropId;

/// The least time between two updates, but for urgent ones: 20 a second look smooth to a person.
const BETWEEN_UPDATES: Duration = Duration::from_millis(50);

/// Wakes whoever watches. A hot drop changes hundreds of times a second: were each change to wake ten thousand
/// subscribers, only for them to see that it is too early, the server would do nothing else.
pub(super) struct Bell {
    rings: watch::Sender<()>,
    /// Where the first who listens runs. To wake ten thousand takes ten milliseconds, and they are not to be those of who
    /// changed the drop.
    runtime: OnceLock<Handle>,
    pace: Mutex<Pace>,
}

struct Pace {
    /// When it may ring again.
    due: Instant,
    /// Somebody waits for that.
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

    /// Rings for a change that was made: at once when it is urgent or the last one was long enough ago, else as soon as
    /// it was.
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
                // An urgent change may have rung since, and put off the next: this is kept waiting as well.
                bell.ring(false);
            });
        }
    }
}

/// The updates of one drop, the newest known at once.
pub(super) fn one_drop(watching: Watching) -> impl Stream<Item = Shown> + use<> {
    stream::unfold((watching, None::<Shown>), |(mut watching, told)| async move {
        loop {
            if told.is_some() {
                watching.rings.changed().await.ok()?;
            }
            match (watching.newest(), &told) {
                (Some(newest), Some(told)) if !newest.is_news_after(told) => {}
                (Some(newest), _) => return Some((newest.clone(), (watching, Some(newest)))),
                // Who watches shows the drop's state next, as the one who reads it.
                (None, _) => watching.rings.changed().await.ok()?,
            }
        }
    })
}

/// The updates of all active drops, those that started last first, and of each that leaves, once.
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

/// What the board shows and this subscriber was not told.
fn news(watching: &WatchingBoard, told: &HashMap<DropId, Shown>) -> VecDeque<Shown> {
    let mut news = watching.all();
    news.retain(|shown| match told.get(&shown.state.id) {
        Some(told) => shown.is_news_after(told),
        // A drop that is not active, and was not to this subscriber, is not on its board.
        None => shown.status.is_active(),
    });
    news.sort_unstable_by_key(|shown| std::cmp::Reverse((shown.state.catalogue.starts_at, shown.state.id)));
    news.into()
}
