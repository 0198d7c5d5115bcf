//! Stands before the schema, on every transport: nothing reaches it that was not admitted here.
//!
//! The parser recurses and the validator expands fragments before any limit of theirs is asked, so a document of a
//! few hundred bytes can overflow the stack or burn seconds of a processor. The text is measured before it is parsed,
//! and the fragments are measured before they are expanded. A document is parsed once, and not again when it comes again.

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
    /// With its document parsed.
    pub request: Request,
    /// What kind of operation it is.
    pub kind: OperationType,
    pub(super) document: Arc<Document>,
    /// Whether validation could find nothing: the document was found valid before, and the variables are of the types
    /// that it declares, whatever they are this time.
    pub(super) is_surely_valid: bool,
}

/// What to do without a good token: how to get one, or be rid of it.
const OPEN_TO_BAD_TOKENS: [&str; 5] = ["signup", "login", "refresh", "logout", "__typename"];

const INTROSPECTION: [&str; 2] = ["__schema", "__type"];

/// Mutations in one request.
const MOST_MUTATIONS: usize = 10;
/// Each of these hashes a password.
const COSTLY: [&str; 2] = ["signup", "login"];

/// The gate. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    limits: Limits,
    introspection: bool,
    documents: Documents,
}

impl Gate {
    /// One that lets nothing past that is larger than `limits`, and questions about the schema only with `introspection`.
    pub fn new(limits: &Limits, introspection: bool) -> Self {
        variables::prepare();
        shape::prepare();
        Self(Arc::new(Inner { limits: *limits, introspection, documents: Documents::new() }))
    }

    /// Whether the document was read before.
    pub fn knows(&self, text: &str) -> bool {
        self.0.documents.has(text)
    }

    /// Parses and measures the request.
    ///
    /// # Errors
    /// `ParseFailed`, `ValidationFailed`, `LimitPassed`, or `Unauthenticated` for a token that is not
    /// good: but signing in, refreshing and logging out disregard it, or a client that sends its old token with
    /// everything could never get a new one.
    pub fn admit(&self, mut request: Request, credentials: &Credentials) -> Result<Admitted, ApiError> {
        let document = self.read(&request.query)?;
        let parsed = &document.parsed;
        let operation = chosen(parsed, request.operation_name.as_deref())?;
        let kind = operation.ty;
        let roots = selection::root_fields(parsed, operation);
        // The library would answer with null, and no reason.
        if !self.0.introspection && roots.iter().any(|field| INTROSPECTION.contains(field)) {
            return Err(ApiError::ValidationFailed("This server answers no introspection.".to_owned()));
        }
        if kind == OperationType::Mutation {
            check_mutation(&roots)?;
        }
        if kind == OperationType::Subscription && roots.len() != 1 {
            // GraphQL, section 5.2.3.1.
            return Err(ApiError::ValidationFailed("A subscription has one field at its root.".to_owned()));
        }
        if kind == OperationType::Subscription
            && !operation.selection_set.node.items.iter().all(|it| matches!(it.node, Selection::Field(_)))
        {
            // The library does not look into fragments there, and would have nothing to watch.
            return Err(ApiError::ValidationFailed(
                "A subscription's field stands at its root by itself, and not in a fragment.".to_owned(),
            ));
        }
        let open = roots.iter().all(|field| OPEN_TO_BAD_TOKENS.contains(field));
        if matches!(credentials, Credentials::Rejected) && !open {
            return Err(ApiError::Unauthenticated);
        }
        check_variables(operation, &request)?;
        // What is of no use is not kept either, for as long as a subscription lasts.
        let declared = |name: &Name| {
            operation.variable_definitions.iter().any(|definition| definition.node.name.node == *name)
        };
        request.variables.retain(|name, _| declared(name));
        request.set_parsed_query(parsed.clone());
        let is_surely_valid = document.is_valid() && variables::surely_fit(operation, &request.variables);
        Ok(Admitted { request, kind, document, is_surely_valid })
    }

    /// The document, within the limits.
    fn read(&self, text: &str) -> Result<Arc<Document>, ApiError> {
        if let Some(known) = self.0.documents.find(text) {
            return Ok(known);
        }
        text::measure(text, &self.0.limits)?;
        let parsed = parse_query(text)?;
        selection::measure(&parsed, &self.0.limits)?;
        if let Some((name, of)) = variables::find_unknown(&parsed) {
            let why = format!("The variable ${name} is a {of}, and there is no such input type.");
            return Err(ApiError::ValidationFailed(why));
        }
        let document = Arc::new(Document::new(parsed));
        self.0.documents.keep(text, &document);
        Ok(document)
    }
}

/// The document passed this limit.
fn passed(limit: &'static str, why: String) -> Result<(), ApiError> {
    Err(ApiError::LimitPassed { limit, why })
}

/// A request is one try at a password, or limits on tries would count requests in vain.
fn check_mutation(roots: &[&str]) -> Result<(), ApiError> {
    let tries = roots.iter().filter(|field| COSTLY.contains(field)).count();
    if roots.len() > MOST_MUTATIONS || tries > 1 {
        return Err(ApiError::ValidationFailed(format!(
            "A request has at most {MOST_MUTATIONS} mutations, and one sign-up or sign-in."
        )));
    }
    Ok(())
}

/// Refuses variables that are not of their types. The library would refuse some only when it comes to the field, when an
/// earlier field of a mutation has been done.
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

/// The operation that the request is for.
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
