//! Documents that were admitted, parsed: a client sends the same few again and again, and to read one costs more than to
//! run it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition};

use super::variables;
use crate::{cache::Cache, graphql::response};

/// Documents that are kept; the least used make room.
const MOST_DOCUMENTS: usize = 256;
/// A longer one is read each time. Parsed, a document takes some thirty times its text, so all of them take 32 MB at the
/// most.
const LONGEST: usize = 4 * 1024;

/// A document that was admitted.
pub(in crate::graphql) struct Document {
    pub(in crate::graphql) parsed: ExecutableDocument,
    /// Whether something of ours is selected in it.
    pub(in crate::graphql) is_filled: bool,
    /// Whether that it is valid with some variables says something about others. Not where there are several operations: the
    /// library compares the fragments of all of them with the variables of the one that is asked for.
    can_be_known: bool,
    is_valid: AtomicBool,
}

impl Document {
    pub(super) fn new(mut parsed: ExecutableDocument) -> Self {
        let is_filled = response::fill(&mut parsed);
        let can_be_known = parsed.operations.iter().count() == 1 && variables::stand_alone(&parsed);
        Self { can_be_known, is_filled, parsed, is_valid: AtomicBool::new(false) }
    }

    /// The operation that was asked for.
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

    /// Whether it is known to be valid with any variables that [fit](variables::surely_fit).
    pub(super) fn is_valid(&self) -> bool {
        self.is_valid.load(Ordering::Relaxed)
    }

    /// It was validated and executed without an error.
    pub(in crate::graphql) fn note_valid(&self) {
        self.is_valid.store(self.can_be_known, Ordering::Relaxed);
    }
}

/// The documents by their text.
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

    /// Keeps a document whose text and selections were measured.
    pub(super) fn keep(&self, text: &str, document: &Arc<Document>) {
        if text.len() <= LONGEST {
            self.0.put(text.into(), document.clone());
        }
    }
}
