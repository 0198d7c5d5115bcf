//! Compares variables with the types that their operation declares.
//!
//! If they certainly fit, a document that was valid before needs no validation: of GraphQL's rules for a request only
//! one depends on the values, that an argument gets what it accepts, and the use of a variable was compared with its
//! declared type. Anything not plain counts as unsure, and async-graphql validates all of it again and reports errors.
//!
//! If they do not fit, the request is refused, whatever the document: async-graphql reads some values only at the
//! field, after the mutations before it, and does not report the place within a value.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use async_graphql::{
    Name, Number, Positioned, ScalarType as _, Value, Variables,
    parser::types::{
        BaseType, Directive, ExecutableDocument, OperationDefinition, Selection, Type, TypeKind,
    },
};

use crate::graphql::{date_time::DateTime, shape};

/// Maximum length, in characters, of an unknown field's name in a message.
const LONGEST_TOLD: usize = 40;

/// What an input type of our schema accepts.
enum Input {
    Scalar,
    Enum(HashSet<String>),
    /// All fields, and the names of the required ones.
    Object(HashMap<String, Type>, Vec<String>),
}

static INPUTS: LazyLock<HashMap<String, Input>> = LazyLock::new(|| {
    let inputs = shape::type_definitions().filter_map(|definition| {
        let input = match definition.kind {
            TypeKind::Enum(of) => {
                Input::Enum(of.values.into_iter().map(|value| value.node.value.node.to_string()).collect())
            }
            TypeKind::InputObject(of) => {
                let fields = of.fields.into_iter().map(|field| field.node);
                let mut required = Vec::new();
                let fields = fields.map(|field| {
                    if !field.ty.node.nullable && field.default_value.is_none() {
                        required.push(field.name.node.to_string());
                    }
                    (field.name.node.to_string(), field.ty.node)
                });
                Input::Object(fields.collect(), required)
            }
            TypeKind::Scalar => Input::Scalar,
            _ => return None,
        };
        Some((definition.name.node.to_string(), input))
    });
    let built_in = ["String", "ID", "Int", "Float", "Boolean"].map(|name| (name.to_owned(), Input::Scalar));
    inputs.chain(built_in).collect()
});

/// Reads the schema now, not at the first request.
pub(super) fn prepare() {
    LazyLock::force(&INPUTS);
}

/// Returns whether the given variables certainly fit what `operation` declares. A missing required one was refused
/// before.
pub(super) fn surely_fit(operation: &OperationDefinition, variables: &Variables) -> bool {
    operation.variable_definitions.iter().map(|definition| &definition.node).all(|definition| {
        match variables.get(&definition.name.node) {
            // A nullable variable with a default may be used where null is not accepted.
            Some(Value::Null) => false,
            Some(value) => fits(&definition.var_type.node, value),
            None => true,
        }
    })
}

fn fits(expected: &Type, value: &Value) -> bool {
    match (&expected.base, value) {
        (_, Value::Null) => expected.nullable,
        (BaseType::List(expected), Value::List(values)) => values.iter().all(|value| fits(expected, value)),
        (BaseType::List(_), _) => false,
        (BaseType::Named(name), value) => match (name.as_str(), value) {
            ("String" | "ID", Value::String(_)) | ("Boolean", Value::Boolean(_)) => true,
            ("Int", Value::Number(number)) => is_int(number),
            (name, value) => match (INPUTS.get(name), value) {
                (Some(Input::Enum(names)), Value::String(value)) => names.contains(value),
                (Some(Input::Object(fields, required)), Value::Object(values)) => {
                    values
                        .iter()
                        .all(|(name, value)| fields.get(name.as_str()).is_some_and(|it| fits(it, value)))
                        && required.iter().all(|name| values.contains_key(name.as_str()))
                }
                _ => false,
            },
        },
    }
}

/// Where and why a variable does not fit, without the value, which may be a password.
#[derive(Debug)]
pub(super) struct Misfit {
    /// The path below the variable, such as `.sizes[2].stock`.
    path: String,
    /// The rest of the message.
    why: String,
}

impl Misfit {
    fn new(why: impl Into<String>) -> Self {
        Self { path: String::new(), why: why.into() }
    }

    fn within(self, place: impl std::fmt::Display) -> Self {
        Self { path: format!("{place}{}", self.path), why: self.why }
    }

    pub(super) fn tell(&self, variable: &str) -> String {
        format!("${variable}{} {}.", self.path, self.why)
    }
}

/// Returns what is wrong with a variable by the specification (October 2021, 6.1.2). async-graphql reports some values
/// only at the field, and never the place.
pub(super) fn find_misfit(expected: &Type, value: &Value) -> Option<Misfit> {
    match (&expected.base, value) {
        (_, Value::Null) => (!expected.nullable).then(|| Misfit::new("is null, and must not be")),
        (BaseType::List(expected), Value::List(values)) => {
            values.iter().enumerate().find_map(|(index, value)| {
                find_misfit(expected, value).map(|misfit| misfit.within(format_args!("[{index}]")))
            })
        }
        // A single value stands for a list of one.
        (BaseType::List(expected), value) => find_misfit(expected, value),
        (BaseType::Named(name), value) => match (name.as_str(), value) {
            ("Int", Value::Number(number)) if is_int(number) => None,
            ("Int", _) => Some(Misfit::new("is no integer of 32 bits")),
            ("Boolean", Value::Boolean(_)) | ("String" | "ID", Value::String(_)) => None,
            ("Boolean", _) => Some(Misfit::new("is neither true nor false")),
            ("ID", Value::Number(number)) if number.is_i64() => None,
            ("String" | "ID", _) => Some(Misfit::new("is no string")),
            ("DateTime", value) => DateTime::parse(value.clone()).err().map(|_| {
                Misfit::new(
                    "is no instant as in RFC 3339, with a time and an offset, such as 2026-11-22T18:00:00Z",
                )
            }),
            (name, value) => find_misfit_in(INPUTS.get(name)?, value),
        },
    }
}

fn find_misfit_in(expected: &Input, value: &Value) -> Option<Misfit> {
    match (expected, value) {
        (Input::Scalar, _) => None,
        (Input::Enum(names), Value::String(name)) if names.contains(name) => None,
        (Input::Enum(names), _) => {
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.sort_unstable();
            Some(Misfit::new(format!("is none of {}", names.join(", "))))
        }
        (Input::Object(fields, required), Value::Object(values)) => {
            if let Some(missing) = required.iter().find(|name| !values.contains_key(name.as_str())) {
                return Some(Misfit::new("is required and was not given").within(format_args!(".{missing}")));
            }
            values.iter().find_map(|(name, value)| match fields.get(name.as_str()) {
                Some(expected) => {
                    find_misfit(expected, value).map(|misfit| misfit.within(format_args!(".{name}")))
                }
                None => {
                    let name: String = name.chars().take(LONGEST_TOLD).collect();
                    Some(Misfit::new(format!("has a field `{name}`, and there is none of that name")))
                }
            })
        }
        (Input::Object(..), _) => Some(Misfit::new("is no object")),
    }
}

fn is_int(number: &Number) -> bool {
    number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
}

/// Returns a variable whose type is not an input type of the schema: for its default, async-graphql would look up a
/// missing type and panic.
pub(super) fn find_unknown(document: &ExecutableDocument) -> Option<(&Name, &Type)> {
    fn named(of: &Type) -> &Name {
        match &of.base {
            BaseType::Named(name) => name,
            BaseType::List(of) => named(of),
        }
    }
    let operations = document.operations.iter().map(|(_, operation)| &operation.node);
    let mut declared = operations.flat_map(|operation| &operation.variable_definitions);
    declared.find_map(|definition| {
        let (name, of) = (&definition.node.name.node, &definition.node.var_type.node);
        (!INPUTS.contains_key(named(of).as_str())).then_some((name, of))
    })
}

/// Returns whether each argument is a variable or contains none. If it mixes both and a variable in it is missing,
/// async-graphql validates no part of it: having been valid then means little.
pub(super) fn stand_alone(document: &ExecutableDocument) -> bool {
    let (mut open, mut values) = (Vec::new(), Vec::new());
    let mut directives: Vec<&[Positioned<Directive>]> = Vec::new();
    for (_, operation) in document.operations.iter() {
        directives.push(&operation.node.directives);
        open.push(&operation.node.selection_set.node);
    }
    for fragment in document.fragments.values() {
        directives.push(&fragment.node.directives);
        open.push(&fragment.node.selection_set.node);
    }
    while let Some(selections) = open.pop() {
        for selection in &selections.items {
            match &selection.node {
                Selection::Field(field) => {
                    values.extend(field.node.arguments.iter().map(|(_, value)| &value.node));
                    directives.push(&field.node.directives);
                    open.push(&field.node.selection_set.node);
                }
                Selection::InlineFragment(fragment) => {
                    directives.push(&fragment.node.directives);
                    open.push(&fragment.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => directives.push(&spread.node.directives),
            }
        }
    }
    let arguments = directives.into_iter().flatten().flat_map(|directive| &directive.node.arguments);
    values.extend(arguments.map(|(_, value)| &value.node));
    // Only a lone variable prints with a leading `$`.
    values.into_iter().all(|value| value.to_string().starts_with('$') || value.clone().into_const().is_some())
}
