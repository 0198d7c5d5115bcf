//! Rate limits per key.

use std::{hash::Hash, time::Duration};

use tokio::time::Instant;

use crate::cache::Cache;

/// Most keys tracked, some ten megabytes. The least recently used is evicted.
const MOST_KEYS: usize = 100_000;

/// A token bucket per key: so many tokens at once, and then one more each time its share of the period has passed.
/// Kept as one instant per key, at which all of its tokens will be back (the generic cell rate algorithm, ITU-T
/// I.371).
pub struct Rates<K> {
    most: u32,
    each: Duration,
    full_at: Cache<K, Instant>,
}

impl<K: Hash + Eq> Rates<K> {
    /// Allows `most` in a `period`, also all at once.
    pub fn new(most: usize, period: Duration) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        Self { most, each: period / most, full_at: Cache::new(MOST_KEYS) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// There is none: the time until there is one.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_many(key, 1)
    }

    /// Takes `count` tokens, or none.
    ///
    /// # Errors
    /// There are too few: the time until there are enough.
    pub fn take_many(&self, key: K, count: u32) -> Result<(), Duration> {
        self.take_at(Instant::now(), key, count)
    }

    fn take_at(&self, now: Instant, key: K, count: u32) -> Result<(), Duration> {
        let mut all = self.full_at.lock();
        let full_at = all.get(&key).copied().unwrap_or(now).max(now) + self.each.saturating_mul(count);
        self.earliest(full_at, now)?;
        all.put(key, full_at);
        Ok(())
    }

    /// Checks whether there is a token, without taking it.
    ///
    /// # Errors
    /// There is none: the time until there is one.
    pub fn wait(&self, key: &K) -> Result<(), Duration> {
        self.wait_at(Instant::now(), key)
    }

    fn wait_at(&self, now: Instant, key: &K) -> Result<(), Duration> {
        let full_at = self.full_at.lock().get(key).copied().unwrap_or(now).max(now) + self.each;
        self.earliest(full_at, now)
    }

    /// Takes `count` tokens, even if there are fewer. The debt delays the next token, but by twelve periods at most.
    pub fn spend(&self, key: K, count: u32) {
        self.spend_at(Instant::now(), key, count);
    }

    fn spend_at(&self, now: Instant, key: K, count: u32) {
        let mut all = self.full_at.lock();
        let full_at = all.get(&key).copied().unwrap_or(now).max(now) + self.each.saturating_mul(count);
        let latest = now + self.each.saturating_mul(self.most).saturating_mul(13);
        all.put(key, full_at.min(latest));
    }

    /// Checks whether tokens can be taken, if all will be back at `full_at`.
    fn earliest(&self, full_at: Instant, now: Instant) -> Result<(), Duration> {
        let earliest = full_at.checked_sub(self.each * self.most).unwrap_or(now);
        if earliest > now { Err(earliest - now) } else { Ok(()) }
    }

    /// Gives back `count` tokens that were taken needlessly.
    pub fn give_back(&self, key: &K, count: u32) {
        if let Some(full_at) = self.full_at.lock().get_mut(key) {
            *full_at = full_at.checked_sub(self.each.saturating_mul(count)).unwrap_or(*full_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_each_time() {
        let rates = Rates::new(3, Duration::from_secs(30));
        let began = Instant::now();
        let at = |second, key| rates.take_at(began + Duration::from_secs(second), key, 1);
        for _ in 0..3 {
            assert_eq!(at(0, "a"), Ok(()));
        }
        assert_eq!(at(0, "a"), Err(Duration::from_secs(10)));
        assert_eq!(at(0, "b"), Ok(()), "each by itself");
        assert_eq!(at(9, "a"), Err(Duration::from_secs(1)), "asking costs nothing");
        assert_eq!(at(10, "a"), Ok(()));
        assert!(at(10, "a").is_err());
        rates.give_back(&"a", 1);
        assert_eq!(at(10, "a"), Ok(()));
        for _ in 0..3 {
            assert_eq!(at(3_600, "a"), Ok(()), "no more than a burst is saved up");
        }
        assert!(at(3_600, "a").is_err());
    }

    #[test]
    fn what_was_spent_beyond_it_comes_back_first() {
        let rates = Rates::new(10, Duration::from_secs(10));
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        assert_eq!(rates.take_at(at(0), "a", 11), Err(Duration::from_secs(1)), "not so many, so none");
        rates.spend_at(at(0), "a", 9);
        assert_eq!(rates.wait_at(at(0), &"a"), Ok(()), "one is left");
        rates.spend_at(at(0), "a", 4);
        assert_eq!(rates.wait_at(at(0), &"a"), Err(Duration::from_secs(4)));
        assert_eq!(rates.wait_at(at(1), &"a"), Err(Duration::from_secs(3)), "looking costs nothing");
        assert_eq!(rates.wait_at(at(4), &"a"), Ok(()));
        assert_eq!(rates.take_at(at(4), "a", 2), Err(Duration::from_secs(1)));
        rates.give_back(&"a", 3);
        assert_eq!(rates.take_at(at(4), "a", 4), Ok(()));
        rates.spend_at(at(4), "a", u32::MAX);
        assert_eq!(rates.wait_at(at(4), &"a"), Err(Duration::from_secs(121)), "nobody is shut out for good");
        assert_eq!(rates.wait_at(at(4), &"b"), Ok(()), "each by itself");
    }
}
