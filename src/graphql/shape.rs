//! Type information from the schema, for what async-graphql leaves to us.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use async_graphql::{
    Name,
    parser::{
        parse_schema,
        types::{BaseType, OperationType, Type, TypeDefinition, TypeKind, TypeSystemDefinition},
    },
};

struct Shape {
    /// The type of each field, by the names of its parent type and itself.
    fields: HashMap<(Name, Name), Type>,
    objects: HashSet<Name>,
}

static SHAPE: LazyLock<Shape> = LazyLock::new(|| {
    let mut shape = Shape { fields: HashMap::new(), objects: HashSet::new() };
    for definition in type_definitions() {
        let name = definition.name.node;
        let fields = match definition.kind {
            TypeKind::Object(object) => {
                shape.objects.insert(name.clone());
                object.fields
            }
            TypeKind::Interface(interface) => interface.fields,
            _ => continue,
        };
        let typed =
            fields.into_iter().map(|field| ((name.clone(), field.node.name.node), field.node.ty.node));
        shape.fields.extend(typed);
    }
    shape
});

/// Returns every type definition of the schema.
pub(super) fn type_definitions() -> impl Iterator<Item = TypeDefinition> {
    let schema = match parse_schema(super::sdl()) {
        Ok(schema) => schema,
        Err(error) => unreachable!("the library reads what it has written: {error}"),
    };
    schema.definitions.into_iter().filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => Some(definition.node),
        TypeSystemDefinition::Schema(_) | TypeSystemDefinition::Directive(_) => None,
    })
}

/// Reads the schema now, not at the first document.
pub(super) fn prepare() {
    LazyLock::force(&SHAPE);
}

/// Returns the type of `field` on the type `on`.
pub(super) fn type_of(on: &Name, field: &Name) -> Option<&'static Type> {
    SHAPE.fields.get(&(on.clone(), field.clone()))
}

/// Returns whether this is an object type. Any fragment that is valid in one applies to it.
pub(super) fn is_object(name: &Name) -> bool {
    SHAPE.objects.contains(name)
}

pub(super) fn root(operation: OperationType) -> Name {
    Name::new(match operation {
        OperationType::Query => "Query",
        OperationType::Mutation => "Mutation",
        OperationType::Subscription => "Subscription",
    })
}

/// Returns the type's name without the lists around it.
pub(super) fn innermost(base: &BaseType) -> Name {
    match base {
        BaseType::Named(name) => name.clone(),
        BaseType::List(item) => innermost(&item.base),
    }
}
