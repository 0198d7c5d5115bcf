//! Measures what a document selects once its fragments are expanded, without expanding them.

use std::collections::{HashMap, HashSet};

use async_graphql::{
    Positioned,
    parser::types::{ExecutableDocument, OperationDefinition, Selection, SelectionSet},
};

use super::{Limits, passed};
use crate::graphql::{error::ApiError, response};

/// The size of a selection after expansion, which may be huge, so all sums saturate.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    depth: usize,
    aliases: usize,
    repeats: usize,
    /// The maximum at one place.
    directives: usize,
}

impl Size {
    fn add(&mut self, part: Self) {
        self.nodes = self.nodes.saturating_add(part.nodes);
        self.depth = self.depth.max(part.depth);
        self.aliases = self.aliases.saturating_add(part.aliases);
        self.repeats = self.repeats.saturating_add(part.repeats);
        self.directives = self.directives.max(part.directives);
    }
}

/// Refuses a document that expands too far, and fragments that contain themselves. The validator walks the whole
/// document, so operations that are not selected and unused fragments count too.
pub(super) fn measure(document: &ExecutableDocument, limits: &Limits) -> Result<(), ApiError> {
    let mut scale = Scale { document, known: HashMap::new(), open: HashSet::new() };
    let mut size = Size::default();
    let at_one_place = |directives: usize| Size { directives, ..Size::default() };
    for (_, operation) in document.operations.iter() {
        let operation = &operation.node;
        size.add(at_one_place(operation.directives.len()));
        for variable in &operation.variable_definitions {
            size.add(at_one_place(variable.node.directives.len()));
        }
        size.add(scale.weigh(&operation.selection_set.node)?);
    }
    for fragment in document.fragments.values() {
        size.add(at_one_place(fragment.node.directives.len()));
        size.add(scale.weigh(&fragment.node.selection_set.node)?);
    }
    for (limit, most, found, what) in [
        ("QUERY_MAX_SELECTIONS", limits.selections, size.nodes, "fields once its fragments are expanded"),
        ("QUERY_MAX_DEPTH", limits.depth, size.depth, "levels once its fragments are expanded"),
        ("QUERY_MAX_ALIASES", limits.aliases, size.aliases, "aliases"),
        ("QUERY_MAX_REPEATS", limits.repeats, size.repeats, "repeated fields"),
        ("QUERY_MAX_DIRECTIVES", limits.directives, size.directives, "directives in one place"),
    ] {
        if found > most {
            return passed(limit, format!("The document has more than {most} {what}."));
        }
    }
    Ok(())
}

struct Scale<'a> {
    document: &'a ExecutableDocument,
    /// The sizes of fragments: each is measured once.
    known: HashMap<&'a str, Size>,
    /// The fragments being measured: one that recurs contains itself.
    open: HashSet<&'a str>,
}

impl<'a> Scale<'a> {
    /// Returns the size of `selections`. The text's nesting and number of tokens bound the recursion.
    fn weigh(&mut self, selections: &'a SelectionSet) -> Result<Size, ApiError> {
        let mut sum = Size::default();
        let mut keys = HashSet::new();
        for selection in &selections.items {
            let (inner, directives) = match &selection.node {
                Selection::Field(Positioned { node: field, .. }) => {
                    if response::is_filling(field) {
                        // `root_fields` skips this alias, so a client could hide a field behind it.
                        let why = "This alias is reserved.".to_owned();
                        return Err(ApiError::ValidationFailed(why));
                    }
                    sum.aliases = sum.aliases.saturating_add(field.alias.iter().len());
                    let is_new = keys.insert(field.response_key().node.as_str());
                    sum.repeats = sum.repeats.saturating_add(usize::from(!is_new));
                    (self.weigh(&field.selection_set.node)?, &field.directives)
                }
                Selection::InlineFragment(Positioned { node: fragment, .. }) => {
                    (self.weigh(&fragment.selection_set.node)?, &fragment.directives)
                }
                Selection::FragmentSpread(Positioned { node: spread, .. }) => {
                    (self.weigh_fragment(&spread.fragment_name.node)?, &spread.directives)
                }
            };
            // A spread counts itself: the validator walks one of a missing fragment like any other.
            let itself = Size { nodes: 1, directives: directives.len(), ..Size::default() };
            sum.add(Size { depth: inner.depth.saturating_add(1), ..inner });
            sum.add(itself);
        }
        Ok(sum)
    }

    fn weigh_fragment(&mut self, name: &'a str) -> Result<Size, ApiError> {
        if let Some(size) = self.known.get(name) {
            return Ok(*size);
        }
        // The validator reports a missing fragment.
        let Some(fragment) = self.document.fragments.get(name) else { return Ok(Size::default()) };
        if !self.open.insert(name) {
            return Err(ApiError::ValidationFailed(format!("The fragment {name} contains itself.")));
        }
        let size = self.weigh(&fragment.node.selection_set.node)?;
        self.open.remove(name);
        self.known.insert(name, size);
        Ok(size)
    }
}

/// Returns the names of the operation's root fields, as often as they are executed: a fragment spread twice counts
/// twice. Only for a measured document, which bounds the work.
pub(super) fn root_fields<'a>(
    document: &'a ExecutableDocument,
    operation: &'a OperationDefinition,
) -> Vec<&'a str> {
    let mut fields = Vec::new();
    let mut open = vec![&operation.selection_set.node];
    while let Some(selections) = open.pop() {
        for selection in &selections.items {
            match &selection.node {
                Selection::Field(field) if response::is_filling(&field.node) => {}
                Selection::Field(field) => fields.push(field.node.name.node.as_str()),
                Selection::InlineFragment(fragment) => open.push(&fragment.node.selection_set.node),
                Selection::FragmentSpread(spread) => {
                    let fragment = document.fragments.get(&spread.node.fragment_name.node);
                    open.extend(fragment.map(|fragment| &fragment.node.selection_set.node));
                }
            }
        }
    }
    fields
}
