//! Turns async-graphql's responses into what the GraphQL specification requires and clients rely on.

mod empty_selection;
mod field_order;
mod null_propagation;

use async_graphql::Response;

use super::gate::Document;
pub(super) use empty_selection::{fill, is_filling};

/// An executed operation.
#[derive(Clone, Copy)]
pub(super) struct Executed<'a> {
    pub(super) document: &'a Document,
    pub(super) operation_name: Option<&'a str>,
    /// Maximum cost of an answer.
    pub(super) most_cost: usize,
    /// Whether fields may have been resolved in an order other than that of selection.
    pub(super) may_be_disordered: bool,
}

/// Inserts nulls for failed fields, restores the order of fields, and adds codes to async-graphql's own errors.
pub(super) fn finish(mut response: Response, executed: Executed<'_>) -> Response {
    let Executed { document, operation_name, most_cost, may_be_disordered } = executed;
    if response.is_err() {
        null_propagation::put(&mut response, document, operation_name);
    }
    if may_be_disordered || response.is_err() {
        field_order::restore(&mut response.data, document, operation_name);
    }
    if document.is_filled {
        empty_selection::empty(&mut response.data);
    }
    for error in &mut response.errors {
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("code").is_none() {
            // An invalid argument is reported at its field; any other error arose before a field ran.
            let code = if error.path.is_empty() { "GRAPHQL_VALIDATION_FAILED" } else { "BAD_USER_INPUT" };
            extensions.set("code", code);
        }
        // The only limit that async-graphql enforces. Only the message identifies it.
        if error.message == "Query is too complex." {
            extensions.set("limit", "QUERY_MAX_COST");
            error.message = format!(
                "The answer may have more than {most_cost} fields, every list at its fullest: ask for shorter lists, or \
                 for less of what is in them."
            );
        }
    }
    response
}
