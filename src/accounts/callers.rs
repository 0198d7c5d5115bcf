//! Who bears the access tokens that were sent lately: who buys sends one token with each request.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;

use super::Caller;

/// Tokens that are kept, some half a kilobyte each; the least used make room.
const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// Only tokens whose signature and claims are right, which they stay for as long as this program runs with its keys.
/// Whether the time has run out or the session has ended is asked anew each time.
pub(super) struct Callers(Mutex<LruCache<Box<str>, Caller>>);

impl Callers {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }

    pub(super) fn find(&self, token: &str) -> Option<Caller> {
        self.lock().get(token).copied()
    }

    pub(super) fn keep(&self, token: &str, caller: Caller) {
        self.lock().put(token.into(), caller);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Box<str>, Caller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
