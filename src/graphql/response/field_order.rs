//! Puts the fields of an answer into the order in which they were selected (GraphQL specification, October 2021,
//! 7.2.2).
//!
//! Our objects resolve their fields sequentially (`serial`), also because that takes a quarter less CPU time for a
//! page. async-graphql resolves the fields of a query, and those of an interface, concurrently, and inserts each as it
//! completes; failed fields are inserted at the end (`null_propagation.rs`).

use async_graphql::{
    Value,
    indexmap::IndexMap,
    parser::types::{ExecutableDocument, Selection, SelectionSet},
};

use crate::graphql::gate::Document;

/// Restores the order of fields in an answer to this document.
pub(super) fn restore(data: &mut Value, document: &Document, operation_name: Option<&str>) {
    let Some(operation) = document.operation(operation_name) else { return };
    let mut order = Order::default();
    order.add(&operation.selection_set.node, &document.parsed);
    order.restore(data);
}

/// The keys that an object may have, in order, and the selection below each.
#[derive(Default)]
struct Order<'a>(IndexMap<&'a str, Order<'a>>);

impl<'a> Order<'a> {
    /// Only for a measured document, which bounds the recursion.
    fn add(&mut self, selections: &'a SelectionSet, document: &'a ExecutableDocument) {
        for selection in &selections.items {
            match &selection.node {
                Selection::Field(field) => {
                    let within = self.0.entry(field.node.response_key().node.as_str()).or_default();
                    within.add(&field.node.selection_set.node, document);
                }
                Selection::InlineFragment(fragment) => self.add(&fragment.node.selection_set.node, document),
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                        self.add(&fragment.node.selection_set.node, document);
                    }
                }
            }
        }
    }

    fn restore(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.sort_by_cached_key(|key, _| self.0.get_index_of(key.as_str()));
                for (key, value) in fields {
                    if let Some(within) = self.0.get(key.as_str()) {
                        within.restore(value);
                    }
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.restore(item)),
            _ => {}
        }
    }
}
