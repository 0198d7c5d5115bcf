//! Tells whoever watches how the stock stands.
//!
//! Stock is a value, not a log: a channel holds the newest state of a drop, whole, and a slow reader misses the
//! states between, never the last one. Who publishes does so after COMMIT; late, repeated and reordered states are
//! told by their version. The database is the truth: a poll of versions finds what nobody published here, and a
//! timer reads again what the clock changes. Other servers say what they have changed (`bus`), so that the poll need not
//! be waited for.
//!
//! What it keeps of the open drops also answers whoever asks for them.

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

/// How often versions are compared with the database's, watched or not: what happened through another server, or was
/// committed by one that died before it could tell, shows this much later at most.
const POLL: Duration = Duration::from_millis(250);
/// Between two looks at what the clock has changed.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// Drops that are read because another server said so, at once.
const MOST_HINTED: usize = 1_000;
/// Drops that the board reads at once when somebody begins to watch it.
const BOARD_PAGE: usize = 100;

/// The service. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Feed {
    drops: Drops,
    channels: Arc<Channels>,
    board: Arc<Board>,
    bus: Bus,
    hinted: Arc<Hinted>,
    /// Something new is watched or shown: the next instant at which the clock changes it may be another.
    changed: Arc<Notify>,
}

impl Feed {
    /// The service over `drops`. [`run`](Self::run) has to run beside it.
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

    /// Shows what this server has committed, and tells the others.
    pub fn announce(&self, state: Arc<DropState>) {
        let hint = Hint::Drop(state.id, state.version);
        if self.publish(state) {
            self.bus.tell(hint);
        }
    }

    /// Shows a state to whoever watches its drop, unless a newer one was shown. Returns whether it is news.
    fn publish(&self, state: Arc<DropState>) -> bool {
        let shown = Shown::new(state);
        let is_news = self.board.show(&shown);
        self.channels.show(shown);
        self.changed.notify_one();
        is_news
    }

    /// Hears from another server that a drop has this version.
    pub fn hear(&self, id: DropId, version: i32) {
        let known = self.board.version(id).max(self.channels.version(id));
        if known < Some(version) {
            self.hinted.add(id);
        }
    }

    /// The states of one drop, the current one at once. `None`: there is no such drop.
    ///
    /// # Errors
    /// The database.
    pub async fn watch_drop(&self, id: DropId) -> Result<Option<impl Stream<Item = Shown> + use<>>, DbError> {
        // Watching first and reading second leaves no gap between the two.
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

    /// How the drop stands, where that is known: a drop brings ten thousand pages in its first minute, and were each to
    /// read it, they would wait for each other until some are turned away.
    fn known(&self, id: DropId, watching: &Watching) -> Option<Shown> {
        // While the poll succeeds, it keeps what is watched as right as what is open.
        let shown = self.board.shown(id).or_else(|| self.board.generation().and(watching.newest()))?;
        // The clock has changed it: it is about to be read again.
        let is_due = shown.next_clock_change().is_some_and(|moment| moment <= Instant::now());
        (!is_due).then_some(shown)
    }

    /// The states of every active drop, the current ones at once, and the last one of each that leaves.
    ///
    /// # Errors
    /// The database.
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

    /// Whether anyone watches this drop, or the board.
    pub fn is_watched(&self, id: DropId) -> bool {
        self.channels.is_watched(id) || self.board.is_watched()
    }

    /// What the open drops stand at. `None`: it is not known well enough; the database knows.
    pub fn generation(&self) -> Option<Generation> {
        self.board.generation()
    }

    /// An open drop at its newest version known here. `None`: the database has to be asked.
    pub fn find(&self, id: DropId) -> Option<Arc<DropState>> {
        Some(self.board.shown(id)?.state)
    }

    /// A page of open drops, each at its newest version known here. `None`: the database has to be asked.
    pub fn list(&self, list: &ListDrops) -> Option<Page<Arc<DropState>>> {
        self.board.list(list)
    }

    /// Polls and times for as long as it is polled. Errors are logged and tried again.
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
                tracing::warn!(%error, "cannot read what the feed should show; trying again");
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// Reads the drops whose version is not the one shown, open drops that are not shown yet, and those that are shown by
    /// another clock than the database has now.
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

    /// Reads the drops whose status the clock has changed. The database clock decides: where this machine's runs
    /// ahead of it, the status is as before and the new reading sets the timer anew.
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

/// Drops of which another server said that they have changed.
#[derive(Default)]
struct Hinted {
    ids: Mutex<HashSet<DropId>>,
    wake: Notify,
}

impl Hinted {
    fn add(&self, id: DropId) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        // What is too much for now, the poll finds.
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
