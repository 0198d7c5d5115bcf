//! Cache of the first entries of a drop's lists, which every page of a shop shows.
//!
//! All holds and purchases of a drop change together with its version. So entries read at a version stay valid while
//! the drop has it, until the first of the holds expires.
//!
//! After each change of a drop, everybody who watches or queries it asks for new entries at once. They share reads: a
//! caller that arrives during one gets the result of the next.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use diesel::sql_types::{Array, Integer, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use uuid::Uuid;

use super::{PageKey, Purchase, Reservation, Stock, lists};
use crate::{
    cache::Cache,
    clock::Timestamp,
    db::{DbError, statement},
    drops::DropState,
    ids::DropId,
    page::Page,
};

/// Entries kept per list; no list returns more at once.
const ENTRIES: usize = 50;
/// Drops whose pages are kept, at most some 20 KB each; the least recently used is evicted.
const MOST_DROPS: usize = 1_000;

/// The first entries of a drop's lists.
#[derive(Debug)]
pub struct FirstPages {
    /// The drop's version when they were read. `None` if it changed meanwhile: the lists may be of different
    /// versions.
    version: Option<i32>,
    active: Page<Reservation>,
    active_count: i64,
    buyers: Page<Purchase>,
}

statement!(
    ListVersions -> (SqlUuid, Integer),
    "SELECT id, stock_version FROM drops WHERE id = ANY($1)",
    { ids: Array<SqlUuid> => Vec<Uuid> }
);

/// The cached pages of many drops.
pub(super) struct PageCache {
    pages: Cache<DropId, Arc<FirstPages>>,
    turns: Mutex<HashMap<DropId, Weak<SingleFlight>>>,
}

/// Held by the caller that reads the pages of a drop. Contains the last result, for those who waited for it.
type SingleFlight = AsyncMutex<Option<Read>>;

struct Read {
    began: Instant,
    /// `None` if the drop does not exist.
    pages: Option<Arc<FirstPages>>,
}

impl FirstPages {
    /// Returns the active holds, earliest deadline first.
    pub fn active(&self, first: usize) -> Page<Reservation> {
        self.active.shortened(first)
    }

    /// Returns the number of active holds.
    pub fn active_count(&self) -> i64 {
        self.active_count
    }

    /// Returns the purchases, newest first.
    pub fn buyers(&self, first: usize) -> Page<Purchase> {
        self.buyers.shortened(first)
    }

    /// Returns when the first of the holds expires, which makes these pages stale.
    pub fn lapse(&self) -> Option<Timestamp> {
        self.active.items.as_slice().first().map(|hold| hold.expires_at)
    }

    /// Returns whether these are the lists of `state`, now.
    pub fn are_of(&self, state: &DropState) -> bool {
        self.version == Some(state.version) && self.lapse().is_none_or(|lapse| state.read.now() < lapse)
    }
}

impl PageCache {
    pub(super) fn new() -> Self {
        Self { pages: Cache::new(MOST_DROPS), turns: Mutex::default() }
    }

    fn turn(&self, drop_id: DropId) -> Arc<SingleFlight> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&drop_id).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= MOST_DROPS {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(SingleFlight::default());
        turns.insert(drop_id, Arc::downgrade(&turn));
        turn
    }
}

impl Stock {
    /// Returns the cached first pages of a drop, if they are valid for `state`.
    pub fn kept_first_pages(&self, state: &DropState) -> Option<Arc<FirstPages>> {
        self.first_pages.pages.get(&state.id).filter(|pages| pages.are_of(state))
    }

    /// Reads the current first pages of these drops and caches them. Each drop comes with the version last seen.
    ///
    /// # Errors
    /// A database error.
    pub async fn load_first_pages(
        &self,
        drops: &[(DropId, i32)],
    ) -> Result<HashMap<DropId, Arc<FirstPages>>, DbError> {
        let asked = Instant::now();
        // In a fixed order, so that callers cannot deadlock.
        let wanted: BTreeMap<DropId, i32> = drops.iter().copied().collect();
        // Holding these keeps the results of reads that begin from now on.
        let waiting: Vec<_> =
            wanted.into_iter().map(|(id, version)| (id, version, self.first_pages.turn(id))).collect();
        let (mut found, mut missing, mut turns) = (HashMap::new(), Vec::new(), Vec::new());
        for (id, version, turn) in waiting {
            let turn = turn.lock_owned().await;
            match &*turn {
                Some(read) if read.began >= asked => {
                    found.extend(read.pages.iter().map(|pages| (id, pages.clone())));
                }
                _ => {
                    missing.push((id, version));
                    turns.push((id, turn));
                }
            }
        }
        if !missing.is_empty() {
            let began = Instant::now();
            found.extend(self.read_first_pages(&missing).await?);
            for (id, mut turn) in turns {
                *turn = Some(Read { began, pages: found.get(&id).cloned() });
            }
        }
        Ok(found)
    }

    async fn read_first_pages(
        &self,
        drops: &[(DropId, i32)],
    ) -> Result<HashMap<DropId, Arc<FirstPages>>, DbError> {
        let keys: Vec<PageKey> =
            drops.iter().map(|(id, _)| PageKey { drop_id: *id, first: ENTRIES, after: None }).collect();
        let versions = ListVersions { ids: drops.iter().map(|(id, _)| id.0).collect() };
        let (mut active, mut buyers, counts, versions) = self
            .db
            .run(async |connection| {
                let mut shared: &AsyncPgConnection = connection;
                let (active, buyers) = lists::list_first(shared, &keys).await?;
                let long = active.iter().filter(|(_, page)| page.has_next).map(|(key, _)| key.drop_id);
                let counts = lists::count_active(shared, &long.collect::<Vec<_>>()).await?;
                let versions: Vec<(DropId, i32)> = versions.load(&mut shared).await?;
                Ok((active, buyers, counts, versions))
            })
            .await?;
        // If the drop had this version before the lists were read and has it afterwards, it is theirs too. Otherwise
        // they are returned once and not cached.
        let is_still = |id: &DropId, version: i32| versions.contains(&(*id, version));
        let mut found = HashMap::new();
        for (key, (id, version)) in keys.iter().zip(drops) {
            let Some((active, buyers)) = active.remove(key).zip(buyers.remove(key)) else { continue };
            let on_the_page = i64::try_from(active.items.len()).unwrap_or(i64::MAX);
            let active_count = counts.get(id).copied().unwrap_or(on_the_page);
            let version = is_still(id, *version).then_some(*version);
            let pages = Arc::new(FirstPages { version, active, active_count, buyers });
            if version.is_some() {
                self.first_pages.pages.put(*id, pages.clone());
            }
            found.insert(*id, pages);
        }
        Ok(found)
    }
}
