//! Documents that were admitted, parsed: a client sends the same few again and again, and to read one costs more than to
//! run it.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_graphql::parser::types::ExecutableDocument;
use lru::LruCache;

/// Documents that are kept; the least used make room.
const MOST_DOCUMENTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
/// A longer one is read each time. Parsed, a document takes some thirty times its text, so all of them take 32 MB at the
/// most.
const LONGEST: usize = 4 * 1024;

/// The documents by their text.
pub(super) struct Documents(Mutex<LruCache<Box<str>, Arc<ExecutableDocument>>>);

impl Documents {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MOST_DOCUMENTS)))
    }

    pub(super) fn find(&self, text: &str) -> Option<Arc<ExecutableDocument>> {
        self.lock().get(text).cloned()
    }

    /// Keeps a document whose text and selections were measured.
    pub(super) fn keep(&self, text: &str, document: &Arc<ExecutableDocument>) {
        if text.len() <= LONGEST {
            self.lock().put(text.into(), document.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Box<str>, Arc<ExecutableDocument>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
