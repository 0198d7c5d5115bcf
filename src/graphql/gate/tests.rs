//! What the gate admits, and how async-graphql handles it.

use std::{cell::Cell, sync::Arc};

use async_graphql::{
    Response, Variables,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextExecute},
};
use futures_util::FutureExt as _;
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use super::*;
use crate::graphql;

/// A schema that only validates requests, with no service behind it.
pub(super) fn only_validating() -> graphql::Executable {
    graphql::builder().extension(OnlyValidate).finish()
}

struct OnlyValidate;

impl ExtensionFactory for OnlyValidate {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_graphql::async_trait::async_trait]
impl Extension for OnlyValidate {
    async fn execute(&self, _: &ExtensionContext<'_>, _: Option<&str>, _: NextExecute<'_>) -> Response {
        Response::default()
    }
}

/// A server survives with every limit at its highest: a test thread's stack is as large as the runtime's.
#[tokio::test]
async fn the_highest_limits_are_survived() {
    let limits = Limits::highest();
    let schema = graphql::schema(true, &limits);
    let gate = Gate::new(&limits, true);
    let [open, close] = ["[", "]"].map(|bracket| bracket.repeat(limits.brackets - 2));
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let types = nested("fields { type { ", "name", " } }", limits.brackets / 2 - 2);
    for document in [
        format!("{{ drop(id: {open}1{close}) {{ id }} }}"),
        format!("query($a: [ID] = {open}1{close}) {{ drop(id: $a) {{ id }} }}"),
        nested("{ ... on Query ", "{ x }", " }", limits.brackets - 1),
        format!("{{ __schema {{ types {{ {types} }} }} }}"),
    ] {
        let admitted = gate.admit(Request::new(&document), &Credentials::Anonymous);
        let request = admitted.unwrap_or_else(|error| panic!("{error:?}: {document}")).request;
        // There is no service behind the schema, and none of these reaches one.
        schema.whole.execute(request).await;
    }
}

#[test]
fn a_subscription_stands_by_itself_and_keeps_what_it_declares() {
    let gate = Gate::new(&Limits::default(), true);
    let admit = |document: &str| {
        let variables = Variables::from_json(serde_json::json!({ "id": "x", "more": [1, 2, 3] }));
        gate.admit(Request::new(document).variables(variables), &Credentials::Anonymous)
    };
    let admitted = admit("subscription($id: ID!) { stockUpdated(dropId: $id) { version } }").unwrap();
    assert_eq!(admitted.request.variables.keys().collect::<Vec<_>>(), ["id"]);
    for document in [
        "subscription { ... { stockUpdated(dropId: 1) { version } } }",
        "subscription { ...f } fragment f on Subscription { stockUpdated(dropId: 1) { version } }",
    ] {
        assert!(matches!(admit(document), Err(ApiError::ValidationFailed(_))), "{document}");
    }
}

#[test]
fn a_document_is_known_once_it_was_valid() {
    let gate = Gate::new(&Limits::default(), true);
    for (document, is_known) in [
        ("query($a: Int) { drops(first: $a) { nodes { id } } }", true),
        ("query A { serverTime } query B { serverTime }", false),
        ("query A($a: ID!) { nodes(ids: [$a]) { id } }", false),
    ] {
        let admit = |first: i32| {
            let mut request = Request::new(document);
            request.operation_name = document.starts_with("query A").then(|| "A".to_owned());
            let variables = serde_json::json!({ "a": first });
            let request = request.variables(Variables::from_json(variables));
            gate.admit(request, &Credentials::Anonymous).unwrap_or_else(|error| panic!("{error:?}"))
        };
        let admitted = admit(5);
        assert!(!admitted.is_surely_valid, "{document}");
        admitted.document.note_valid();
        assert_eq!(admit(6).is_surely_valid, is_known, "{document}");
    }
}

const CASES: u32 = 6_000;
/// A token with a blank on both sides may be replaced.
const DOCUMENTS: [&str; 6] = [
    r#"mutation R($a: ReserveInput! , $b: [ID!] = ["x"] ){ reserve(input: $a ){ reservation { id } } }"#,
    r#"query Q($a: Int = 3 , $b: Boolean! ){ drops(first: $a ){ nodes { ...f @include(if: $b ) } } } fragment f on Drop { id }"#,
    r#"{ node(id: "x" ){ __typename ... on Drop { sizes { size } } ... on Reservation { drop { id } } } }"#,
    r#"subscription($a: ID! = "x" ){ stockUpdated(dropId: $a ){ drop { id } } }"#,
    r#"query($a: [DropStatus!] = [LIVE] ){ drops(statuses: $a reverse: true ){ pageInfo { hasNextPage } } }"#,
    r#"mutation { createDrop(input: {name: "x" price: {amount: 1 currency: "USD" } sizes: [] } ){ drop { id } } }"#,
];
/// Replacements for a token.
const ELSE: [&str; 34] = [
    "",
    "{ id }",
    "[Nope]",
    "[[Nope!]!]!",
    "[Drop]",
    "[ReserveInput!]",
    "Nope",
    "Drop",
    "DateTime",
    "ReserveInput",
    "Float",
    "[ 1 ]",
    "[ [ $a ] ]",
    "{ name : 1 }",
    "{ dropId : $a , size : 5 }",
    "= { a : [ 1 ] }",
    "= null",
    "@skip ( if : $a )",
    "@include ( if : [ true ] )",
    "@nope ( a : $b )",
    "... f",
    "... on Nope { id }",
    "... on Query { serverTime }",
    "$a",
    "$nope",
    "nope",
    "nope ( a : $a )",
    "__schema { types { name } }",
    "__type ( name : 5 ) { name }",
    "1",
    "-9e99",
    "\"x\"",
    "null",
    "LIVE",
];

/// A mutated document is refused or valid; async-graphql must not panic on it.
#[test]
fn what_is_nearly_a_document_is_answered() {
    let (gate, schema) = (Gate::new(&Limits::default(), true), only_validating());
    let changes = vec((any::<prop::sample::Index>(), select(ELSE.to_vec())), 1..3);
    let value = select(vec!["null", "1", "\"x\"", "true", "[[1]]", "{\"dropId\":\"x\"}"]);
    let (admitted, valid) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) };
    let outcome = TestRunner::new(config).run(&(select(DOCUMENTS.to_vec()), changes, value), |input| {
        let (document, changes, value) = input;
        let mut tokens: Vec<&str> = document.split(' ').collect();
        let is_word =
            |token: &str| token.contains(|c: char| c.is_alphanumeric()) && !token.contains(['{', '(']);
        let words: Vec<usize> = (0..tokens.len()).filter(|at| is_word(tokens[*at])).collect();
        for (at, other) in changes {
            tokens[*at.get(&words)] = other;
        }
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        let variables = Variables::from_json(serde_json::json!({ "a": value, "b": value }));
        let request = Request::new(tokens.join(" ")).variables(variables);
        if let Ok(passed) = gate.admit(request, &Credentials::Anonymous) {
            admitted.set(admitted.get() + 1);
            let response = schema.execute(passed.request).now_or_never().unwrap();
            valid.set(valid.get() + usize::from(response.is_ok()));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let (admitted, valid) = (admitted.get(), valid.get());
    assert!(admitted > 5 * CASES / 100 && valid > 0, "{admitted} were admitted, {valid} were valid");
}
