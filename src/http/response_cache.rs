//! A cache of whole answers, each served while it is valid: on the day of a drop every page sends the same queries.
//!
//! The key is the request byte by byte. A client sends the same bytes each time; two that write the same request
//! differently, or accept other codings, get an entry each.

use axum::{body::Bytes, response::Response};

use super::{answer::MediaType, compress::Codings};
use crate::{cache::Cache, feed::Feed, graphql::Validity};

/// Number of cached answers, some 35 MB at most; the least recently used are evicted.
const MOST_ANSWERS: usize = 512;
const LARGEST_REQUEST: usize = 4 * 1024;
const LARGEST_ANSWER: usize = 64 * 1024;

/// A request whose answer may be cached.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct CacheKey {
    text: Bytes,
    by_get: bool,
    media_type: MediaType,
    codings: Codings,
}

impl CacheKey {
    /// Creates the key. `text` is the body, or the query string of a GET. `None`: too long to be worth caching.
    pub(super) fn new(text: Bytes, by_get: bool, media_type: MediaType, codings: Codings) -> Option<Self> {
        let length = text.len() + codings.len();
        (length <= LARGEST_REQUEST).then_some(Self { text, by_get, media_type, codings })
    }
}

/// The cache entries.
pub(super) struct ResponseCache(Cache<CacheKey, (Validity, Response<Bytes>)>);

impl ResponseCache {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST_ANSWERS))
    }

    /// Returns the cached answer if it is still valid.
    pub(super) fn find(&self, key: &CacheKey, feed: &Feed) -> Option<Response<Bytes>> {
        let (validity, answer) = self.0.get(key)?;
        (!validity.is_over(feed)).then_some(answer)
    }

    /// Caches an answer for as long as it is valid.
    pub(super) fn keep(&self, key: CacheKey, validity: Validity, answer: Response<Bytes>) {
        if answer.body().len() <= LARGEST_ANSWER {
            // The body is a slice of the connection's read buffer and would keep all of it alive.
            let text = Bytes::copy_from_slice(&key.text);
            let key = CacheKey { text, codings: key.codings.copied(), ..key };
            self.0.put(key, (validity, answer));
        }
    }
}
