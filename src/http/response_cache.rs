//! Answers, kept for whoever asks the same while they are right: on the day of a drop every page asks the same.
//!
//! The key is the request as it came, byte by byte. A client sends the same bytes each time, and two that write the same
//! request differently, or take other codings, have an answer each.

use axum::{body::Bytes, response::Response};

use super::{answer::MediaType, compress::Codings};
use crate::{cache::Cache, feed::Feed, graphql::Validity};

/// Answers that are kept, some 35 MB at the largest; the least used make room.
const MOST_ANSWERS: usize = 512;
const LARGEST_REQUEST: usize = 4 * 1024;
const LARGEST_ANSWER: usize = 64 * 1024;

/// A request to which an answer may be kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct CacheKey {
    text: Bytes,
    by_get: bool,
    media_type: MediaType,
    codings: Codings,
}

impl CacheKey {
    /// `text` is the body, or of a GET what stands behind the path. `None`: it is too long to be worth it.
    pub(super) fn new(text: Bytes, by_get: bool, media_type: MediaType, codings: Codings) -> Option<Self> {
        let length = text.len() + codings.len();
        (length <= LARGEST_REQUEST).then_some(Self { text, by_get, media_type, codings })
    }
}

/// The answers.
pub(super) struct ResponseCache(Cache<CacheKey, (Validity, Response<Bytes>)>);

impl ResponseCache {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST_ANSWERS))
    }

    /// The answer, if there is one and it is right.
    pub(super) fn find(&self, key: &CacheKey, feed: &Feed) -> Option<Response<Bytes>> {
        let (validity, answer) = self.0.get(key)?;
        (!validity.is_over(feed)).then_some(answer)
    }

    /// Keeps an answer for as long as it is right.
    pub(super) fn keep(&self, key: CacheKey, validity: Validity, answer: Response<Bytes>) {
        if answer.body().len() <= LARGEST_ANSWER {
            // What came is a part of all that was read from the connection, and would keep the rest with it.
            let text = Bytes::copy_from_slice(&key.text);
            let key = CacheKey { text, codings: key.codings.copied(), ..key };
            self.0.put(key, (validity, answer));
        }
    }
}
