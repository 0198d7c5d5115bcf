//! Automatic persisted queries, as Apollo's link speaks them: a client sends the hash of its document, and the document
//! itself once, when the server does not know it.
//!
//! Only documents that were admitted are kept, a bounded number of them; the least used make room.

use std::sync::Arc;

use aws_lc_rs::digest;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{cache::Cache, graphql::ApiError};

/// Some eight megabytes at the longest document that is admitted by default.
const MOST_DOCUMENTS: usize = 1_000;

/// The documents that are kept.
pub(super) struct Persisted(Cache<Hash, Arc<str>>);

type Hash = [u8; 32];

/// `extensions.persistedQuery`.
#[derive(Deserialize)]
struct Extension {
    version: u32,
    #[serde(rename = "sha256Hash")]
    sha256_hash: String,
}

/// A document that may be kept once it is admitted.
pub(super) struct Candidate(Hash);

impl Persisted {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST_DOCUMENTS))
    }

    /// The document of a request: its own, or the one that its hash names. A document that comes with its hash is to
    /// be [kept](Self::keep). `Ok(None)`: there is neither.
    ///
    /// # Errors
    /// The hash is unknown, no hash, or another document's.
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

    /// Keeps a document that was admitted.
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
