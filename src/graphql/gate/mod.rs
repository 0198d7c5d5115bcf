//! The gate in front of the schema, on every transport: only admitted requests reach the schema.
//!
//! The parser recurses and the validator expands fragments before they check any limit, so a document of a few hundred
//! bytes can overflow the stack or burn seconds of CPU time. So the text is measured before it is parsed, and the
//! fragments before they are expanded. A document that is sent again is not parsed again.

mod documents;
mod selection;
#[cfg(test)]
mod tests;
mod text;
mod variables;

use std::sync::Arc;

use async_graphql::{
    Name, Request, Value as ConstValue,
    parser::{
        parse_query,
        types::{
            DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection,
            VariableDefinition,
        },
    },
};

use super::{Credentials, error::ApiError, shape};
use crate::config::Limits;
pub(super) use documents::Document;
use documents::Documents;

/// A request that may be executed.
pub struct Admitted {
    /// The request, with its document parsed.
    pub request: Request,
    /// The kind of the operation.
    pub kind: OperationType,
    pub(super) document: Arc<Document>,
    /// Whether validation would find nothing: the document was found valid before, and the variables certainly have the
    /// types that it declares.
    pub(super) is_surely_valid: bool,
}

/// Root fields allowed with an invalid token: they get a new one, or discard it.
const OPEN_TO_BAD_TOKENS: [&str; 5] = ["signup", "login", "refresh", "logout", "__typename"];

const INTROSPECTION: [&str; 2] = ["__schema", "__type"];

/// Maximum number of mutations in one request.
const MOST_MUTATIONS: usize = 10;
/// Mutations that hash a password.
const COSTLY: [&str; 2] = ["signup", "login"];

/// The gate. Clones are cheap and share their state.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    limits: Limits,
    introspection: bool,
    documents: Documents,
}

impl Gate {
    /// Creates a gate that enforces `limits`, and allows introspection only with `introspection`.
    pub fn new(limits: &Limits, introspection: bool) -> Self {
        variables::prepare();
        shape::prepare();
        Self(Arc::new(Inner { limits: *limits, introspection, documents: Documents::new() }))
    }

    /// Returns whether the document is cached.
    pub fn knows(&self, text: &str) -> bool {
        self.0.documents.has(text)
    }

    /// Parses and measures the request.
    ///
    /// # Errors
    /// `ParseFailed`, `ValidationFailed`, `LimitPassed`, `BadUserInput` for the variables, or `Unauthenticated` for an
    /// invalid token. Signing up or in, refreshing and logging out ignore the token, or a client that always sends its
    /// old one could never get a new one.
    pub fn admit(&self, mut request: Request, credentials: &Credentials) -> Result<Admitted, ApiError> {
        let document = self.read(&request.query)?;
        let parsed = &document.parsed;
        let operation = chosen(parsed, request.operation_name.as_deref())?;
        let kind = operation.ty;
        let roots = selection::root_fields(parsed, operation);
        // async-graphql would answer null, without an error.
        if !self.0.introspection && roots.iter().any(|field| INTROSPECTION.contains(field)) {
            return Err(ApiError::ValidationFailed("Introspection is disabled.".to_owned()));
        }
        if kind == OperationType::Mutation {
            check_mutation(&roots)?;
        }
        if kind == OperationType::Subscription && roots.len() != 1 {
            // GraphQL, section 5.2.3.1.
            return Err(ApiError::ValidationFailed(
                "A subscription must select exactly one root field.".to_owned(),
            ));
        }
        if kind == OperationType::Subscription
            && !operation.selection_set.node.items.iter().all(|it| matches!(it.node, Selection::Field(_)))
        {
            // async-graphql ignores fragments there, and would have nothing to watch.
            return Err(ApiError::ValidationFailed(
                "A subscription must select its root field directly, not in a fragment.".to_owned(),
            ));
        }
        let open = roots.iter().all(|field| OPEN_TO_BAD_TOKENS.contains(field));
        if matches!(credentials, Credentials::Rejected) && !open {
            return Err(ApiError::Unauthenticated);
        }
        check_variables(operation, &request)?;
        // A subscription would hold undeclared variables for as long as it lasts.
        let declared = |name: &Name| {
            operation.variable_definitions.iter().any(|definition| definition.node.name.node == *name)
        };
        request.variables.retain(|name, _| declared(name));
        request.set_parsed_query(parsed.clone());
        let is_surely_valid = document.is_valid() && variables::surely_fit(operation, &request.variables);
        Ok(Admitted { request, kind, document, is_surely_valid })
    }

    /// Returns the document, if it is within the limits.
    fn read(&self, text: &str) -> Result<Arc<Document>, ApiError> {
        if let Some(known) = self.0.documents.find(text) {
            return Ok(known);
        }
        text::measure(text, &self.0.limits)?;
        let parsed = parse_query(text)?;
        selection::measure(&parsed, &self.0.limits)?;
        if let Some((name, of)) = variables::find_unknown(&parsed) {
            let why =
                format!("The variable ${name} has the type {of}, which is no input type of this schema.");
            return Err(ApiError::ValidationFailed(why));
        }
        let document = Arc::new(Document::new(parsed));
        self.0.documents.keep(text, &document);
        Ok(document)
    }
}

/// Refuses a document that exceeds this limit.
fn passed(limit: &'static str, why: String) -> Result<(), ApiError> {
    Err(ApiError::LimitPassed { limit, why })
}

/// Allows one password attempt per request, so that a limit on requests also bounds attempts.
fn check_mutation(roots: &[&str]) -> Result<(), ApiError> {
    let tries = roots.iter().filter(|field| COSTLY.contains(field)).count();
    if roots.len() > MOST_MUTATIONS || tries > 1 {
        return Err(ApiError::ValidationFailed(format!(
            "A request may have at most {MOST_MUTATIONS} mutations, and one sign-up or sign-in."
        )));
    }
    Ok(())
}

/// Refuses variables of the wrong type. async-graphql would refuse some only at the field, after earlier fields of a
/// mutation have run.
fn check_variables(operation: &OperationDefinition, request: &Request) -> Result<(), ApiError> {
    for definition in &operation.variable_definitions {
        let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
        let (name, expected) = (&name.node, &var_type.node);
        let given = request.variables.get(name);
        let missing = match given {
            None => default_value.is_none(),
            Some(value) => *value == ConstValue::Null,
        };
        if missing && !expected.nullable {
            return Err(ApiError::BadUserInput(format!("${name} is required and was not given.")));
        }
        if let Some(misfit) = given.and_then(|given| variables::find_misfit(expected, given)) {
            return Err(ApiError::BadUserInput(misfit.tell(name)));
        }
    }
    Ok(())
}

/// Returns the operation that the request selects.
fn chosen<'a>(
    document: &'a ExecutableDocument,
    name: Option<&str>,
) -> Result<&'a OperationDefinition, ApiError> {
    let refuse = |why: &str| ApiError::ValidationFailed(why.to_owned());
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Ok(&operation.node),
        (DocumentOperations::Multiple(operations), Some(name)) => operations
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map(|(_, operation)| &operation.node)
            .ok_or_else(|| refuse("operationName names no operation of the document.")),
        (DocumentOperations::Single(_), Some(_)) => {
            Err(refuse("operationName is set, and the document's operation has no name."))
        }
        (DocumentOperations::Multiple(operations), None) => match operations.values().next() {
            Some(only) if operations.len() == 1 => Ok(&only.node),
            _ => Err(refuse("The document has several operations: set operationName.")),
        },
    }
}
