//! Measures what a document selects once its fragments are expanded, without expanding them.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, Selection, SelectionSet};

use crate::graphql::error::ApiError;

/// Fields and inline fragments after expansion. Introspection has some 150.
const MOST_NODES: u64 = 1_000;
/// Levels of selection after expansion. Introspection has 13.
const DEEPEST_SELECTION: u64 = 20;

/// The size of a selection after expansion.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: u64,
    depth: u64,
}

/// Refuses an operation that grows too large, and fragments that contain themselves.
pub(super) fn measure(
    document: &ExecutableDocument,
    operation: &OperationDefinition,
) -> Result<(), ApiError> {
    let mut scale = Scale { document, known: HashMap::new(), open: HashSet::new() };
    let mut size = scale.weigh(&operation.selection_set.node)?;
    // The validator walks the fragments that no operation uses as well.
    for fragment in document.fragments.values() {
        let unused = scale.weigh(&fragment.node.selection_set.node)?;
        size.nodes = size.nodes.max(unused.nodes);
        size.depth = size.depth.max(unused.depth);
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
            let (size, own) = match &selection.node {
                Selection::Field(field) => (self.weigh(&field.node.selection_set.node)?, 1),
                Selection::InlineFragment(fragment) => (self.weigh(&fragment.node.selection_set.node)?, 1),
                Selection::FragmentSpread(spread) => {
                    (self.weigh_fragment(&spread.node.fragment_name.node)?, 0)
                }
            };
            sum.nodes = sum.nodes.saturating_add(size.nodes).saturating_add(own);
            sum.depth = sum.depth.max(size.depth.saturating_add(own));
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

/// The names of the operation's own fields, those in its fragments included, each as often as it stands there.
pub(super) fn root_fields<'a>(
    document: &'a ExecutableDocument,
    operation: &'a OperationDefinition,
) -> Vec<&'a str> {
    let mut fields = Vec::new();
    let mut spread: HashSet<&str> = HashSet::new();
    let mut open = vec![&operation.selection_set.node];
    while let Some(selections) = open.pop() {
        for selection in &selections.items {
            match &selection.node {
                Selection::Field(field) => {
                    fields.push(field.node.name.node.as_str());
                }
                Selection::InlineFragment(fragment) => open.push(&fragment.node.selection_set.node),
                Selection::FragmentSpread(fragment) => {
                    let name = fragment.node.fragment_name.node.as_str();
                    if spread.insert(name) {
                        open.extend(document.fragments.get(name).map(|it| &it.node.selection_set.node));
                    }
                }
            }
        }
    }
    fields
}
