//! A bounded cache in memory with least-recently-used eviction.

use std::{
    borrow::Borrow,
    hash::Hash,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;

/// Values by key, shared by threads.
pub struct Cache<K, V>(Mutex<LruCache<K, V>>);

impl<K: Hash + Eq, V> Cache<K, V> {
    /// Creates a cache of at most `most` entries, and of one if that is zero.
    pub fn new(most: usize) -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN))))
    }

    /// Returns the value, which counts as a use.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        self.lock().get(key).cloned()
    }

    /// Returns whether there is a value, which does not count as a use.
    pub fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.lock().contains(key)
    }

    /// Inserts a value, replacing the previous one.
    pub fn put(&self, key: K, value: V) {
        self.lock().put(key, value);
    }

    /// Locks the cache, for reads and writes that must be atomic.
    pub fn lock(&self) -> MutexGuard<'_, LruCache<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_makes_room() {
        let cache = Cache::new(2);
        cache.put("a", 1);
        cache.put("b", 2);
        assert_eq!(cache.get("a"), Some(1));
        cache.put("c", 3);
        assert_eq!(["a", "b", "c"].map(|key| cache.contains(key)), [true, false, true]);
    }
}
