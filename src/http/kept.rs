//! Answers, kept for whoever asks the same while they are right: on the day of a drop every page asks the same.
//!
//! The key is the request as it came, byte by byte. A client sends the same bytes each time, and two that write the same
//! request differently have an answer each.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;
use lru::LruCache;

use super::answer::MediaType;
use crate::{feed::Feed, graphql::Shelf};

/// Answers that are kept, some 35 MB at the largest; the least used make room.
const MOST_ANSWERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(511);
const LARGEST_REQUEST: usize = 4 * 1024;
const LARGEST_ANSWER: usize = 64 * 1024;

/// A request to which an answer may be kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    text: Bytes,
    by_get: bool,
    media_type: MediaType,
}

impl Asked {
    /// `text` is the body, or of a GET what stands behind the path. `None`: it is too long to be worth it.
    pub(super) fn new(text: Bytes, by_get: bool, media_type: MediaType) -> Option<Self> {
        (text.len() <= LARGEST_REQUEST).then_some(Self { text, by_get, media_type })
    }

    pub(super) fn media_type(&self) -> MediaType {
        self.media_type
    }
}

/// The answers.
#[derive(Clone)]
pub(super) struct Kept(Arc<Mutex<LruCache<Asked, (Shelf, Bytes)>>>);

impl Kept {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MOST_ANSWERS))))
    }

    /// The answer, if there is one and it is right.
    pub(super) fn find(&self, asked: &Asked, feed: &Feed) -> Option<Bytes> {
        let (shelf, answer) = self.lock().get(asked).cloned()?;
        (!shelf.is_over(feed)).then_some(answer)
    }

    /// Keeps an answer for as long as it is right.
    pub(super) fn keep(&self, asked: Asked, shelf: Shelf, answer: Bytes) {
        if answer.len() <= LARGEST_ANSWER {
            // What came is a part of all that was read from the connection, and would keep the rest with it.
            let asked = Asked { text: Bytes::copy_from_slice(&asked.text), ..asked };
            self.lock().put(asked, (shelf, answer));
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Asked, (Shelf, Bytes)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
