//! What is kept in memory, a bounded number of it: the least used makes room.

use std::{
    borrow::Borrow,
    hash::Hash,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;

/// Values by their keys, shared by threads.
pub struct Cache<K, V>(Mutex<LruCache<K, V>>);

impl<K: Hash + Eq, V> Cache<K, V> {
    /// Keeps `most` at most, and one where that is zero.
    pub fn new(most: usize) -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN))))
    }

    /// The value, used now.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        self.lock().get(key).cloned()
    }

    /// Whether there is one, which does not count as a use.
    pub fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.lock().contains(key)
    }

    /// Keeps a value in place of the one before.
    pub fn put(&self, key: K, value: V) {
        self.lock().put(key, value);
    }

    /// For what has to read and write without anybody in between.
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
