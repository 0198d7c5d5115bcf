//! Automatic persisted queries, compatible with Apollo's link: a client sends the hash of its document, and the
//! document itself once, if the server does not know it.
//!
//! Only admitted documents are kept, in a bounded LRU cache.

use std::sync::Arc;

use aws_lc_rs::digest;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{cache::Cache, graphql::ApiError};

/// About eight megabytes if each document has the default maximum size.
const MOST_DOCUMENTS: usize = 1_000;

/// The cached documents.
pub(super) struct Persisted(Cache<Hash, Arc<str>>);

type Hash = [u8; 32];

/// `extensions.persistedQuery`.
#[derive(Deserialize)]
struct Extension {
    version: u32,
    #[serde(rename = "sha256Hash")]
    sha256_hash: String,
}

/// A document to keep once it is admitted.
pub(super) struct Candidate(Hash);

impl Persisted {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST_DOCUMENTS))
    }

    /// Returns the document of a request: its own, or the one that its hash names. A document that comes with its hash
    /// should be [kept](Self::keep). `Ok(None)`: the request has neither.
    ///
    /// # Errors
    /// The hash is unknown, malformed, or does not match the document.
    pub(super) fn resolve(
        &self,
        document: Option<String>,
        extensions: Option<&Map<String, Value>>,
    ) -> Result<Option<(String, Option<Candidate>)>, ApiError> {
        let Some(extension) = extensions.and_then(|extensions| extensions.get("persistedQuery")) else {
            return Ok(document.map(|document| (document, None)));
        };
        let bad = |why: &str| ApiError::BadUserInput(format!("extensions.persistedQuery: {why}."));
        let extension =
            Extension::deserialize(extension).map_err(|_| bad("it has a version and a sha256Hash"))?;
        let hash = decode(&extension.sha256_hash).filter(|_| extension.version == 1);
        let hash = hash.ok_or_else(|| bad("version is 1, sha256Hash has 64 hexadecimal digits"))?;
        match document {
            Some(document) if digest::digest(&digest::SHA256, document.as_bytes()).as_ref() == hash => {
                Ok(Some((document, Some(Candidate(hash)))))
            }
            Some(_) => Err(bad("the hash is another document's")),
            None => {
                let known = self.0.get(&hash).map(|document| document.to_string());
                known.map(|document| Some((document, None))).ok_or(ApiError::PersistedQueryNotFound)
            }
        }
    }

    /// Keeps an admitted document.
    pub(super) fn keep(&self, candidate: Candidate, document: &str) {
        self.0.put(candidate.0, document.into());
    }
}

fn decode(hex: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if hex.len() != 2 * hash.len() {
        return None;
    }
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}
