//! Makes a failed field null or, if it is non-null, its nearest nullable ancestor (GraphQL specification, October 2021,
//! 6.4.4). async-graphql omits a failed field, whatever its type, and a client that was generated from the schema
//! relies on its presence.

use async_graphql::{
    Name, PathSegment, Response, Value,
    parser::types::{BaseType, ExecutableDocument, Field, Selection, SelectionSet, Type},
};

use crate::graphql::{gate::Document, shape};

/// Inserts nulls into an answer with errors to this document.
pub(super) fn put(response: &mut Response, document: &Document, operation_name: Option<&str>) {
    let Response { data, errors, .. } = response;
    // An error that arose before a field ran has no path, and no data.
    let paths: Vec<&[PathSegment]> =
        errors.iter().map(|error| error.path.as_slice()).filter(|path| !path.is_empty()).collect();
    // Insert all failed fields first: an object of which every field failed is omitted as a whole.
    for path in &paths {
        fill(data, path);
    }
    for path in paths {
        match may_be_null(document, operation_name, path).iter().rposition(|may_be| *may_be) {
            Some(last) => clear(data, path.get(..=last).unwrap_or_default()),
            None => *data = Value::Null,
        }
    }
}

/// Inserts null for a missing field, and creates the missing objects around it.
fn fill(value: &mut Value, path: &[PathSegment]) {
    match path.split_first() {
        Some((PathSegment::Field(key), rest)) => {
            if *value == Value::Null {
                *value = Value::Object(Default::default());
            }
            if let Value::Object(fields) = value {
                fill(fields.entry(Name::new(key)).or_default(), rest);
            }
        }
        Some((PathSegment::Index(index), rest)) => {
            if let Value::List(items) = value
                && let Some(item) = items.get_mut(*index)
            {
                fill(item, rest);
            }
        }
        None => {}
    }
}

fn clear(value: &mut Value, path: &[PathSegment]) {
    let mut place = Some(value);
    for segment in path {
        place = match (segment, place) {
            (PathSegment::Field(key), Some(Value::Object(fields))) => fields.get_mut(key.as_str()),
            (PathSegment::Index(index), Some(Value::List(items))) => items.get_mut(*index),
            // An ancestor was already cleared.
            _ => return,
        };
    }
    if let Some(place) = place {
        *place = Value::Null;
    }
}

/// Returns for each segment of the path whether its type is nullable.
fn may_be_null(document: &Document, operation_name: Option<&str>, path: &[PathSegment]) -> Vec<bool> {
    let Some(operation) = document.operation(operation_name) else { return Vec::new() };
    let mut around = vec![(shape::root(operation.ty), &operation.selection_set.node)];
    let mut reached: Option<&Type> = None;
    let mut nullable = Vec::new();
    for segment in path {
        reached = match segment {
            PathSegment::Field(key) => {
                let mut fields = Vec::new();
                for (name, selections) in &around {
                    collect(&document.parsed, name, selections, key, &mut fields);
                }
                let typed: Vec<(&Type, &Field)> = fields
                    .into_iter()
                    .filter_map(|(name, field)| Some((shape::type_of(&name, &field.name.node)?, field)))
                    .collect();
                around = typed
                    .iter()
                    .map(|(found, field)| (shape::innermost(&found.base), &field.selection_set.node))
                    .collect();
                // Fragments may have fields of different types under one key. The specification requires the same
                // nullability of them, but async-graphql does not check it: so null appears only where all of them
                // allow it.
                let strictest = typed.iter().find(|(found, _)| !found.nullable).or(typed.first());
                strictest.map(|(found, _)| *found)
            }
            PathSegment::Index(_) => match reached.map(|list| &list.base) {
                Some(BaseType::List(item)) => Some(item),
                _ => None,
            },
        };
        nullable.push(reached.is_some_and(|reached| reached.nullable));
    }
    nullable
}

/// Collects the fields with this key, and the types that have them.
fn collect<'a>(
    document: &'a ExecutableDocument,
    on: &Name,
    selections: &'a SelectionSet,
    key: &str,
    found: &mut Vec<(Name, &'a Field)>,
) {
    for selection in &selections.items {
        match &selection.node {
            Selection::Field(field) if field.node.response_key().node == key => {
                found.push((on.clone(), &field.node));
            }
            Selection::Field(_) => {}
            Selection::InlineFragment(fragment) => {
                let condition = fragment.node.type_condition.as_ref();
                let on = condition.map_or(on, |condition| &condition.node.on.node);
                collect(document, on, &fragment.node.selection_set.node, key, found);
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                    let on = &fragment.node.type_condition.node.on.node;
                    collect(document, on, &fragment.node.selection_set.node, key, found);
                }
            }
        }
    }
}
