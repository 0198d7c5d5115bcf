//! The schema: committed, as agreed, described.

use std::collections::BTreeMap;

use async_graphql_parser::{
    parse_schema,
    types::{InputValueDefinition, ServiceDocument, TypeDefinition, TypeKind, TypeSystemDefinition},
};
/// Elements of a schema by their path, each with its type and default, and whether it is described.
type Elements = BTreeMap<String, (String, bool)>;

#[test]
fn the_committed_schema_is_the_one_that_the_code_has() {
    let committed = std::fs::read_to_string("schema.graphql").unwrap_or_default();
    assert!(
        committed == sneaker_drop::graphql::sdl(),
        "schema.graphql is out of date: run `cargo run -- schema > schema.graphql`"
    );
}

#[test]
fn the_schema_has_all_of_the_contract() {
    let ours = elements(&sneaker_drop::graphql::sdl());
    let contract = elements(include_str!("contract.graphql"));
    assert!(contract.len() > 250, "the contract was not read: {}", contract.len());
    let missing: Vec<String> = contract
        .iter()
        .filter(|(path, (agreed, _))| ours.get(*path).is_none_or(|(found, _)| found != agreed))
        .map(|(path, (agreed, _))| {
            format!("{path}: agreed {agreed:?}, found {:?}", ours.get(path).map(|it| &it.0))
        })
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_element_of_the_schema_is_described() {
    let bare: Vec<String> = elements(&sneaker_drop::graphql::sdl())
        .into_iter()
        .filter(|(path, (_, described))| !described && !path.contains('&'))
        .map(|(path, _)| path)
        .collect();
    assert!(bare.is_empty(), "without a description: {bare:?}");
}

fn elements(sdl: &str) -> Elements {
    let document: ServiceDocument = parse_schema(sdl).unwrap();
    let mut elements = Elements::new();
    for definition in &document.definitions {
        if let TypeSystemDefinition::Type(definition) = definition {
            add_type(&mut elements, &definition.node);
        }
    }
    elements
}

fn add_type(elements: &mut Elements, definition: &TypeDefinition) {
    let name = &definition.name.node;
    let kind = match &definition.kind {
        TypeKind::Scalar => "scalar",
        TypeKind::Object(object) => {
            for interface in &object.implements {
                elements.insert(format!("{name}&{}", interface.node), ("implements".to_owned(), false));
            }
            object.fields.iter().for_each(|field| add_field(elements, name, &field.node));
            "object"
        }
        TypeKind::Interface(interface) => {
            interface.fields.iter().for_each(|field| add_field(elements, name, &field.node));
            "interface"
        }
        TypeKind::Union(_) => "union",
        TypeKind::Enum(values) => {
            for value in &values.values {
                let path = format!("{name}.{}", value.node.value.node);
                elements.insert(path, ("value".to_owned(), value.node.description.is_some()));
            }
            "enum"
        }
        TypeKind::InputObject(input) => {
            input.fields.iter().for_each(|field| add_input(elements, name, &field.node));
            "input"
        }
    };
    elements.insert(name.to_string(), (kind.to_owned(), definition.description.is_some()));
}

fn add_field(elements: &mut Elements, parent: &str, field: &async_graphql_parser::types::FieldDefinition) {
    let path = format!("{parent}.{}", field.name.node);
    field.arguments.iter().for_each(|argument| add_input(elements, &path, &argument.node));
    elements.insert(path, (field.ty.node.to_string(), field.description.is_some()));
}

fn add_input(elements: &mut Elements, parent: &str, input: &InputValueDefinition) {
    let default = input.default_value.as_ref().map(|value| format!(" = {}", value.node)).unwrap_or_default();
    let path = format!("{parent}.{}", input.name.node);
    elements.insert(path, (format!("{}{default}", input.ty.node), input.description.is_some()));
}
