//! Executed updates, kept for reuse by other subscribers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_graphql::Response;
use lru::LruCache;
use tokio::time::Instant;

use super::Payload;
use crate::{
    drops::DropStatus,
    feed::Shown,
    graphql::{error, json},
    ids::DropId,
};

/// How long an update is reused: its usernames may be that old, and if the drop changed while its lists were read, they
/// do not quite match its version.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// How long a failed update is reused: a retry may succeed, but ten thousand subscribers must not each retry in turn.
const FAILURE_GOOD_FOR: Duration = Duration::from_millis(100);
/// Updates kept per subscription and drop: while the newest is sent, some subscribers still need the one before.
const MOST_UPDATES: usize = 3;

/// Bytes of all updates together; the least recently used are evicted. Ten documents on pages of a hundred drops need a
/// third of it. Without a bound, one client with many documents of its own and large lists could fill the memory.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// What an update takes beside its payload, roughly.
const OVERHEAD: usize = 256;

/// An executed update.
#[derive(Clone)]
pub(super) struct Rendered {
    pub(super) version: i32,
    pub(super) status: DropStatus,
    pub(super) payload: Payload,
    /// Whether a part of it failed that may succeed on a retry.
    pub(super) may_heal: bool,
    until: Instant,
}

impl Rendered {
    pub(super) fn new(version: i32, status: DropStatus, response: &Response, began: Instant) -> Self {
        let until = match response.is_ok() {
            true => began + GOOD_FOR,
            false => Instant::now() + FAILURE_GOOD_FOR,
        };
        let may_heal = response.errors.iter().any(error::may_heal);
        Self { version, status, payload: json(response).into(), may_heal, until }
    }

    fn bytes(&self) -> usize {
        self.payload.len() + OVERHEAD
    }
}

/// A subscription, by number, and a drop.
type Key = (u64, DropId);

/// The updates of all subscriptions.
pub(super) struct Updates {
    kept: Mutex<Kept>,
    most_bytes: usize,
}

struct Kept {
    updates: LruCache<Key, Vec<Rendered>>,
    bytes: usize,
}

impl Updates {
    pub(super) fn new() -> Self {
        Self::of_at_most(MOST_BYTES)
    }

    fn of_at_most(most_bytes: usize) -> Self {
        Self { kept: Mutex::new(Kept { updates: LruCache::unbounded(), bytes: 0 }), most_bytes }
    }

    /// Returns the update that shows exactly this state.
    pub(super) fn find(&self, subscription: u64, shown: &Shown) -> Option<Rendered> {
        let wanted = (shown.state.version, shown.status);
        let mut kept = self.lock();
        let updates = kept.updates.get(&(subscription, shown.state.id))?;
        let update = updates.iter().find(|update| (update.version, update.status) == wanted)?;
        (Instant::now() < update.until).then(|| update.clone())
    }

    /// Returns the update for the latest version, if that is later than this state's.
    pub(super) fn find_newer(&self, subscription: u64, shown: &Shown) -> Option<Rendered> {
        let mut kept = self.lock();
        let updates = kept.updates.get(&(subscription, shown.state.id))?;
        let newest = updates.iter().max_by_key(|update| update.version)?;
        (newest.version > shown.state.version && Instant::now() < newest.until).then(|| newest.clone())
    }

    /// Keeps an update, in place of an earlier one of the same state.
    pub(super) fn keep(&self, subscription: u64, id: DropId, update: Rendered) {
        let mut kept = self.lock();
        let kept = &mut *kept;
        kept.bytes += update.bytes();
        let updates = kept.updates.get_or_insert_mut((subscription, id), Vec::new);
        let same = updates.iter().position(|it| (it.version, it.status) == (update.version, update.status));
        updates.push(update);
        let oldest = || {
            let versions = updates.iter().map(|it| it.version).enumerate();
            let oldest = versions.min_by_key(|(_, version)| *version);
            oldest.map(|(place, _)| place).filter(|_| updates.len() > MOST_UPDATES)
        };
        if let Some(dropped) = same.or_else(oldest) {
            kept.bytes -= updates.swap_remove(dropped).bytes();
        }
        while kept.bytes > self.most_bytes
            && let Some((_, evicted)) = kept.updates.pop_lru()
        {
            kept.bytes -= evicted.iter().map(Rendered::bytes).sum::<usize>();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(version: i32, payload: &str) -> Rendered {
        let until = Instant::now() + GOOD_FOR;
        Rendered { version, status: DropStatus::Live, payload: payload.into(), may_heal: false, until }
    }

    fn versions(updates: &Updates, key: Key) -> Vec<i32> {
        let mut kept = updates.lock();
        let mut versions: Vec<i32> =
            kept.updates.get(&key).into_iter().flatten().map(|update| update.version).collect();
        versions.sort_unstable();
        versions
    }

    #[test]
    fn a_subscription_keeps_the_newest_of_a_drop_and_each_once() {
        let (updates, drop) = (Updates::new(), DropId::new());
        for version in [1, 2, 3, 3, 5, 4, 2] {
            updates.keep(1, drop, update(version, "x"));
        }
        assert_eq!(versions(&updates, (1, drop)), [3, 4, 5]);
        assert_eq!(updates.lock().bytes, 3 * (OVERHEAD + 1));
    }

    #[test]
    fn all_together_are_bounded_in_bytes_and_the_least_used_make_room() {
        let large = "x".repeat(1_000);
        let most = 4 * (large.len() + OVERHEAD);
        let (updates, drop) = (Updates::of_at_most(most), DropId::new());
        for subscription in 1..=100 {
            updates.keep(subscription, drop, update(1, &large));
            assert_eq!(versions(&updates, (1, drop)), [1], "it is used all the time");
        }
        let left: Vec<u64> = (2..=100).filter(|it| !versions(&updates, (*it, drop)).is_empty()).collect();
        assert_eq!(left, [98, 99, 100]);
        updates.keep(101, drop, update(1, &"x".repeat(most)));
        let kept = updates.lock();
        assert_eq!((kept.bytes, kept.updates.len()), (0, 0), "larger than all there is room for");
    }
}
