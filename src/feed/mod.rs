//! Publishes the stock to subscribers.
//!
//! Stock is a value, not a log: a channel holds the newest state of a drop, whole. A slow reader misses states in
//! between, never the last one. States are published after COMMIT; late, repeated and reordered ones are recognised
//! by their version. The database is the source of truth: a poll of versions finds what was not published here, and a
//! timer rereads what the clock changes. Other servers send hints about their changes (`bus`), so that nobody has to
//! wait for the poll.
//!
//! The states of open drops kept here also answer queries.

mod board;
mod channel;
mod pace;
mod shown;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use tokio::{sync::Notify, time::Instant};

pub use board::Generation;
pub use shown::Shown;

use crate::{
    bus::{Bus, Hint},
    db::DbError,
    drops::{DropState, DropStatus, Drops, ListDrops, VersionAt, Versions},
    ids::DropId,
    page::Page,
    telemetry::Metrics,
};
use board::Board;
use channel::{Channels, Watching};

/// Interval at which versions are compared with the database's, watched or not. A change by another server, or by one
/// that died before it could publish, shows after this time at most.
const POLL: Duration = Duration::from_millis(250);
/// Shortest interval between checks of what the clock has changed.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// Most drops read at once because of hints.
const MOST_HINTED: usize = 1_000;
/// Page size of the reads when somebody starts to watch the board.
const BOARD_PAGE: usize = 100;

/// The feed service. Clones are cheap and share state.
#[derive(Clone)]
pub struct Feed {
    drops: Drops,
    channels: Arc<Channels>,
    board: Arc<Board>,
    bus: Bus,
    hinted: Arc<Hinted>,
    /// Signals that something new is watched or shown, which may move the next clock change.
    changed: Arc<Notify>,
}

impl Feed {
    /// Creates the service over `drops`. [`run`](Self::run) has to run beside it.
    pub fn new(drops: &Drops, bus: &Bus, metrics: &Metrics) -> Self {
        Self {
            drops: drops.clone(),
            channels: Arc::new(Channels::new(metrics)),
            board: Arc::new(Board::new(metrics)),
            bus: bus.clone(),
            hinted: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Publishes what this server has committed, and sends a hint to the others.
    pub fn announce(&self, state: Arc<DropState>) {
        let hint = Hint::Drop(state.id, state.version);
        if self.publish(state) {
            self.bus.tell(hint);
        }
    }

    /// Publishes a state to the drop's subscribers, unless a newer one was published. Returns whether it is news.
    fn publish(&self, state: Arc<DropState>) -> bool {
        let shown = Shown::new(state);
        let is_news = self.board.show(&shown);
        self.channels.show(shown);
        self.changed.notify_one();
        is_news
    }

    /// Handles a hint from another server that a drop has this version.
    pub fn hear(&self, id: DropId, version: i32) {
        let known = self.board.version(id).max(self.channels.version(id));
        if known < Some(version) {
            self.hinted.add(id);
        }
    }

    /// Returns the states of one drop, the current one at once. `None` if the drop does not exist.
    ///
    /// # Errors
    /// A database error.
    pub async fn watch_drop(&self, id: DropId) -> Result<Option<impl Stream<Item = Shown> + use<>>, DbError> {
        // Subscribing first and reading second leaves no gap between the two.
        let watching = self.channels.watch(id);
        match self.known(id, &watching) {
            Some(shown) => self.channels.show(shown),
            None => {
                let Some(state) = self.drops.find(id).await? else { return Ok(None) };
                self.publish(Arc::new(state));
            }
        }
        Ok(Some(pace::one_drop(watching)))
    }

    /// Returns the state of the drop, if it is known. A drop brings ten thousand pages in its first minute: if each
    /// read it, they would wait for each other until some are rejected.
    fn known(&self, id: DropId, watching: &Watching) -> Option<Shown> {
        // While the poll succeeds, watched drops are as current as open ones.
        let shown = self.board.shown(id).or_else(|| self.board.generation().and(watching.newest()))?;
        // The clock has changed it, so it is about to be reread.
        let is_due = shown.next_clock_change().is_some_and(|moment| moment <= Instant::now());
        (!is_due).then_some(shown)
    }

    /// Returns the states of all active drops, the current ones at once, and the last one of each that leaves.
    ///
    /// # Errors
    /// A database error.
    pub async fn watch_board(&self) -> Result<impl Stream<Item = Shown> + use<>, DbError> {
        let watching = self.board.watch();
        if self.board.generation().is_none() {
            self.read_the_active().await?;
        }
        Ok(pace::board(watching).boxed())
    }

    async fn read_the_active(&self) -> Result<(), DbError> {
        let mut after = None;
        loop {
            let statuses = vec![DropStatus::Live, DropStatus::SoldOut];
            let page =
                self.drops.list(&ListDrops { first: BOARD_PAGE, after, statuses, reverse: false }).await?;
            after = page.items.last().map(DropState::cursor);
            for state in page.items {
                self.publish(Arc::new(state));
            }
            if !page.has_next {
                return Ok(());
            }
        }
    }

    /// Returns whether anyone watches this drop, or the board.
    pub fn is_watched(&self, id: DropId) -> bool {
        self.channels.is_watched(id) || self.board.is_watched()
    }

    /// Returns the version of the open drops as a whole. `None` if it is not known well enough: ask the database.
    pub fn generation(&self) -> Option<Generation> {
        self.board.generation()
    }

    /// Returns an open drop at its newest version known here. `None`: ask the database.
    pub fn find(&self, id: DropId) -> Option<Arc<DropState>> {
        Some(self.board.shown(id)?.state)
    }

    /// Returns a page of open drops, each at its newest version known here. `None`: ask the database.
    pub fn list(&self, list: &ListDrops) -> Option<Page<Arc<DropState>>> {
        self.board.list(list)
    }

    /// Runs the poll and the timer for as long as the future is polled. Errors are logged and retried.
    pub async fn run(self) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // A clock that disagrees must not make this spin.
        let mut earliest = Instant::now();
        loop {
            let looked = tokio::select! {
                _ = poll.tick() => self.look_for_new().await,
                () = sleep_until(self.next_clock_change().map(|moment| moment.max(earliest))) => {
                    earliest = Instant::now() + BETWEEN_LOOKS;
                    self.look_at_the_clock().await
                }
                () = self.hinted.wake.notified() => self.read(&self.hinted.take()).await,
                () = self.changed.notified() => Ok(()),
            };
            if let Err(error) = looked {
                tracing::warn!(%error, "the feed cannot read the drops; trying again");
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// Reads drops with a newer version than the one shown, open drops that are not shown yet, and drops whose status
    /// or clock reading no longer agrees with the database clock.
    async fn look_for_new(&self) -> Result<(), DbError> {
        let began = Instant::now();
        self.board.forget_the_gone(began);
        let mut shown = self.channels.versions();
        shown.extend(self.board.versions());
        let ids: Vec<DropId> = shown.keys().copied().collect();
        let Versions { clock, drops } = self.drops.list_versions(&ids).await?;
        let is_new = |at: &&VersionAt| shown.get(&at.id).is_none_or(|shown| *shown < at.version);
        let mut to_read: HashSet<DropId> = drops.iter().filter(is_new).map(|at| at.id).collect();
        if let Some(clock) = clock {
            let all = self.channels.all().into_iter().chain(self.board.all());
            to_read.extend(all.filter(|shown| shown.is_off(&clock)).map(|shown| shown.state.id));
        }
        self.read(&to_read.into_iter().collect::<Vec<_>>()).await?;
        let open = drops.iter().filter(|at| at.is_open).map(|at| at.id);
        self.board.compared(began, &open.collect::<Vec<_>>());
        Ok(())
    }

    /// Reads the drops whose status the clock has changed. The database clock decides: if the local clock runs ahead,
    /// the status is unchanged and the new reading resets the timer.
    async fn look_at_the_clock(&self) -> Result<(), DbError> {
        let now = Instant::now();
        let due = |shown: &Shown| {
            shown.next_clock_change().is_some_and(|moment| moment <= now).then_some(shown.state.id)
        };
        let ids: Vec<DropId> = self.channels.all().iter().chain(&self.board.all()).filter_map(due).collect();
        self.read(&ids).await
    }

    async fn read(&self, ids: &[DropId]) -> Result<(), DbError> {
        if ids.is_empty() {
            return Ok(());
        }
        for state in self.drops.list_by_ids(ids).await? {
            self.publish(Arc::new(state));
        }
        Ok(())
    }

    fn next_clock_change(&self) -> Option<Instant> {
        let watched = self.channels.all().iter().filter_map(Shown::next_clock_change).min();
        watched.into_iter().chain(self.board.next_clock_change()).min()
    }
}

/// Drops that have changed, according to hints from other servers.
#[derive(Default)]
struct Hinted {
    ids: Mutex<HashSet<DropId>>,
    wake: Notify,
}

impl Hinted {
    fn add(&self, id: DropId) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        // The poll finds those beyond the limit.
        if ids.len() < MOST_HINTED {
            ids.insert(id);
        }
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<DropId> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
