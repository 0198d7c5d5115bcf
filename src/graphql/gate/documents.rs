//! The cache of admitted, parsed documents: clients send the same few repeatedly, and parsing one costs more than
//! executing it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition};

use super::variables;
use crate::{cache::Cache, graphql::response};

/// Maximum number of cached documents; the least recently used is evicted.
const MOST_DOCUMENTS: usize = 256;
/// Maximum length in bytes of a cached document; longer ones are parsed each time. A parsed document takes about thirty
/// times its text, so all of them take at most 32 MB.
const LONGEST: usize = 4 * 1024;

/// An admitted document.
pub(in crate::graphql) struct Document {
    pub(in crate::graphql) parsed: ExecutableDocument,
    /// Whether filling fields were added to it.
    pub(in crate::graphql) is_filled: bool,
    /// Whether being valid with some variables means anything for others. Not with several operations: async-graphql
    /// checks the fragments of all of them against the variables of the selected one.
    can_be_known: bool,
    is_valid: AtomicBool,
}

impl Document {
    pub(super) fn new(mut parsed: ExecutableDocument) -> Self {
        let is_filled = response::fill(&mut parsed);
        let can_be_known = parsed.operations.iter().count() == 1 && variables::stand_alone(&parsed);
        Self { can_be_known, is_filled, parsed, is_valid: AtomicBool::new(false) }
    }

    /// Returns the selected operation.
    pub(in crate::graphql) fn operation(&self, name: Option<&str>) -> Option<&OperationDefinition> {
        let mut all = self.parsed.operations.iter();
        let found = match name {
            Some(name) => {
                all.find(|(named, _)| named.is_some_and(|named| named == name)).or_else(|| all.next())
            }
            None => all.next(),
        };
        found.map(|(_, operation)| &operation.node)
    }

    /// Returns whether it is known to be valid with any variables that [fit](variables::surely_fit).
    pub(super) fn is_valid(&self) -> bool {
        self.is_valid.load(Ordering::Relaxed)
    }

    /// Records that it was validated and executed without an error.
    pub(in crate::graphql) fn note_valid(&self) {
        self.is_valid.store(self.can_be_known, Ordering::Relaxed);
    }
}

/// Documents by their text.
pub(super) struct Documents(Cache<Box<str>, Arc<Document>>);

impl Documents {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST_DOCUMENTS))
    }

    pub(super) fn find(&self, text: &str) -> Option<Arc<Document>> {
        self.0.get(text)
    }

    pub(super) fn has(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    /// Caches a measured document, unless it is too long.
    pub(super) fn keep(&self, text: &str, document: &Arc<Document>) {
        if text.len() <= LONGEST {
            self.0.put(text.into(), document.clone());
        }
    }
}
