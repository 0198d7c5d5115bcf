//! The schema: committed, as agreed, described, and closed to strangers.

use std::collections::BTreeMap;

use async_graphql_parser::{
    parse_schema,
    types::{InputValueDefinition, ServiceDocument, TypeDefinition, TypeKind, TypeSystemDefinition},
};
use serde_json::{Value, json};

use crate::harness::drive_still;

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

/// Mutations that a stranger may use. `logout` is not among them: without a token of either kind it is refused.
const PUBLIC: [&str; 3] = ["signup", "login", "refresh"];

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_refuses_a_stranger_or_is_on_the_public_list() {
    drive_still(async |app| {
        let document = parse_schema(sneaker_drop::graphql::sdl()).unwrap();
        let types: BTreeMap<String, TypeDefinition> = document
            .definitions
            .into_iter()
            .filter_map(|definition| match definition {
                TypeSystemDefinition::Type(definition) => {
                    Some((definition.node.name.node.to_string(), definition.node))
                }
                _ => None,
            })
            .collect();
        let TypeKind::Object(mutations) = &types["Mutation"].kind else { panic!("no mutations") };
        assert!(mutations.fields.len() >= 9);
        for field in &mutations.fields {
            let name = field.node.name.node.as_str();
            let mut variables = serde_json::Map::new();
            let (mut declared, mut passed) = (Vec::new(), Vec::new());
            for argument in &field.node.arguments {
                let argument = &argument.node;
                declared.push(format!("${}: {}", argument.name.node, argument.ty.node));
                passed.push(format!("{0}: ${0}", argument.name.node));
                variables
                    .insert(argument.name.node.to_string(), sample(&types, &argument.ty.node.to_string()));
            }
            let query = format!(
                "mutation({}) {{ {name}({}) {{ __typename }} }}",
                declared.join(", "),
                passed.join(", ")
            );
            let answer = app.ask(None, &query, Value::Object(variables)).await;
            let code = answer["errors"][0]["extensions"]["code"].as_str();
            let wanted = if PUBLIC.contains(&name) { None } else { Some("UNAUTHENTICATED") };
            assert_eq!(code, wanted, "{name} to a stranger: {answer}");
        }
    })
    .await;
}

/// A value of an input type, with what is required in it.
fn sample(types: &BTreeMap<String, TypeDefinition>, of: &str) -> Value {
    let Some(required) = of.strip_suffix('!') else { return Value::Null };
    match required {
        "ID" | "String" => json!("x"),
        "Int" => json!(1),
        name => {
            let Some(TypeKind::InputObject(input)) = types.get(name).map(|definition| &definition.kind)
            else {
                panic!("no sample of {name}")
            };
            let field = |field: &InputValueDefinition| {
                (field.name.node.to_string(), sample(types, &field.ty.node.to_string()))
            };
            Value::Object(input.fields.iter().map(|it| field(&it.node)).collect())
        }
    }
}
