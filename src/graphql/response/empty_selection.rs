//! Objects of which nothing is selected: every field is skipped, or is in fragments of other types. By the GraphQL
//! specification (October 2021, 6.4.3) such an object is `{}`; async-graphql makes it null, whatever its type, which a
//! client that was generated from the schema takes for a missing object. So where this may happen, we also select a
//! filling field of our own, and remove it from the answer.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, Value,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, FragmentDefinition, OperationType, Selection,
        SelectionSet,
    },
};

use crate::graphql::shape;

/// Alias of the filling field. The gate refuses it from clients (`gate/selection.rs`).
const FILLING: &str = "__filling";

/// Returns whether this is the filling field.
pub(in crate::graphql) fn is_filling(field: &Field) -> bool {
    field.alias.as_ref().is_some_and(|alias| alias.node == FILLING)
}

/// Adds a filling field for each object of which the document may select nothing. Returns whether it added any. Only
/// for a measured document, which bounds the recursion.
pub(in crate::graphql) fn fill(document: &mut ExecutableDocument) -> bool {
    let ExecutableDocument { operations, fragments } = document;
    let mut filler = Filler { fragments, has_filled: false };
    let operations = match operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    for operation in operations {
        let operation = &mut operation.node;
        let root = shape::root(operation.ty);
        filler.fill_below(&mut operation.selection_set.node, Some(&root));
        // A subscription has one root field, and no events without it.
        if operation.ty != OperationType::Subscription {
            filler.fill(&mut operation.selection_set.node, Some(&root));
        }
    }
    let names: Vec<Name> = filler.fragments.keys().cloned().collect();
    for name in names {
        // No fragment contains itself, so its removal goes unnoticed.
        let Some(mut fragment) = filler.fragments.remove(&name) else { continue };
        let on = fragment.node.type_condition.node.on.node.clone();
        filler.fill_below(&mut fragment.node.selection_set.node, Some(&on));
        filler.fragments.insert(name, fragment);
    }
    filler.has_filled
}

/// Removes the filling fields from an answer.
pub(super) fn empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.shift_remove(FILLING);
            fields.values_mut().for_each(empty);
        }
        Value::List(items) => items.iter_mut().for_each(empty),
        _ => {}
    }
}

struct Filler<'a> {
    fragments: &'a mut HashMap<Name, Positioned<FragmentDefinition>>,
    has_filled: bool,
}

impl Filler<'_> {
    /// Fills the objects below `selections`; `on` is the type that these belong to, if known.
    fn fill_below(&mut self, selections: &mut SelectionSet, on: Option<&Name>) {
        for selection in &mut selections.items {
            match &mut selection.node {
                Selection::Field(field) if !field.node.selection_set.node.items.is_empty() => {
                    let found = on.and_then(|on| shape::type_of(on, &field.node.name.node));
                    let within = found.map(|found| shape::innermost(&found.base));
                    let selections = &mut field.node.selection_set.node;
                    self.fill_below(selections, within.as_ref());
                    self.fill(selections, within.as_ref());
                }
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    let on = condition.map(|condition| condition.node.on.node.clone()).or(on.cloned());
                    self.fill_below(&mut fragment.node.selection_set.node, on.as_ref());
                }
                Selection::Field(_) | Selection::FragmentSpread(_) => {}
            }
        }
    }

    fn fill(&mut self, selections: &mut SelectionSet, on: Option<&Name>) {
        if self.surely_selects(selections, on.is_some_and(shape::is_object)) {
            return;
        }
        let Some(position) = selections.items.first().map(|first| first.pos) else { return };
        let field = Field {
            alias: Some(Positioned::new(Name::new(FILLING), position)),
            name: Positioned::new(Name::new("__typename"), position),
            arguments: Vec::new(),
            directives: Vec::new(),
            selection_set: Positioned::new(SelectionSet::default(), position),
        };
        let field = Selection::Field(Positioned::new(field, position));
        selections.items.push(Positioned::new(field, position));
        self.has_filled = true;
    }

    /// Returns whether something is selected whatever the variables. In an object type, valid fragments always apply;
    /// elsewhere that depends on the object found.
    fn surely_selects(&self, selections: &SelectionSet, of_object: bool) -> bool {
        selections.items.iter().any(|selection| match &selection.node {
            Selection::Field(field) => field.node.directives.is_empty(),
            Selection::InlineFragment(fragment) => {
                let fragment = &fragment.node;
                (of_object || fragment.type_condition.is_none())
                    && fragment.directives.is_empty()
                    && self.surely_selects(&fragment.selection_set.node, of_object)
            }
            Selection::FragmentSpread(spread) => {
                of_object
                    && spread.node.directives.is_empty()
                    && self.fragments.get(&spread.node.fragment_name.node).is_some_and(|fragment| {
                        self.surely_selects(&fragment.node.selection_set.node, of_object)
                    })
            }
        })
    }
}
