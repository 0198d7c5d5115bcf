//! Measures what a document selects once its fragments are expanded, without expanding them.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, Selection, SelectionSet};

use crate::graphql::error::ApiError;

/// Fields, inline fragments and spreads after expansion. Introspection has some 150.
const MOST_NODES: u64 = 1_000;
/// Levels of selection after expansion, spreads among them. Introspection has 17.
const DEEPEST_SELECTION: u64 = 24;

/// The size of a selection after expansion.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: u64,
    depth: u64,
}

/// Refuses a document that grows too large, and fragments that contain themselves. The validator walks all of it, so
/// all of it counts: operations that are not chosen and fragments that nobody uses as well.
pub(super) fn measure(document: &ExecutableDocument) -> Result<(), ApiError> {
    let mut scale = Scale { document, known: HashMap::new(), open: HashSet::new() };
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    let mut size = Size::default();
    for selections in operations.chain(fragments) {
        let part = scale.weigh(selections)?;
        size.nodes = size.nodes.saturating_add(part.nodes);
        size.depth = size.depth.max(part.depth);
    }
    if size.nodes > MOST_NODES {
        return refuse(format!(
            "The document selects more than {MOST_NODES} fields once its fragments are expanded."
        ));
    }
    if size.depth > DEEPEST_SELECTION {
        return refuse(format!("The document selects deeper than {DEEPEST_SELECTION} levels."));
    }
    Ok(())
}

fn refuse<T>(why: String) -> Result<T, ApiError> {
    Err(ApiError::ValidationFailed(why))
}

struct Scale<'a> {
    document: &'a ExecutableDocument,
    /// Each fragment is weighed once.
    known: HashMap<&'a str, Size>,
    /// The fragments being weighed: one that comes up again contains itself.
    open: HashSet<&'a str>,
}

impl<'a> Scale<'a> {
    /// Recursion is bounded by the text's nesting and number of tokens.
    fn weigh(&mut self, selections: &'a SelectionSet) -> Result<Size, ApiError> {
        let mut sum = Size::default();
        for selection in &selections.items {
            let size = match &selection.node {
                Selection::Field(field) => self.weigh(&field.node.selection_set.node)?,
                Selection::InlineFragment(fragment) => self.weigh(&fragment.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => self.weigh_fragment(&spread.node.fragment_name.node)?,
            };
            // A spread counts itself: one of a fragment that is not there is walked like any other.
            sum.nodes = sum.nodes.saturating_add(size.nodes).saturating_add(1);
            sum.depth = sum.depth.max(size.depth.saturating_add(1));
        }
        Ok(sum)
    }

    fn weigh_fragment(&mut self, name: &'a str) -> Result<Size, ApiError> {
        if let Some(size) = self.known.get(name) {
            return Ok(*size);
        }
        // The validator complains of a fragment that is not there.
        let Some(fragment) = self.document.fragments.get(name) else { return Ok(Size::default()) };
        if !self.open.insert(name) {
            return refuse(format!("The fragment {name} contains itself."));
        }
        let size = self.weigh(&fragment.node.selection_set.node)?;
        self.open.remove(name);
        self.known.insert(name, size);
        Ok(size)
    }
}

/// The names of the operation's own fields, as often as they are executed: a fragment that is spread twice counts
/// twice. Only for a document that was measured, which bounds this.
pub(super) fn root_fields<'a>(
    document: &'a ExecutableDocument,
    operation: &'a OperationDefinition,
) -> Vec<&'a str> {
    let mut fields = Vec::new();
    let mut open = vec![&operation.selection_set.node];
    while let Some(selections) = open.pop() {
        for selection in &selections.items {
            match &selection.node {
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
