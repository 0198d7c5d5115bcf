//! Compares what counts as sure with async-graphql's own validation.

use std::cell::Cell;

use async_graphql::{Request, parser::parse_query};
use futures_util::FutureExt as _;
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};
use serde_json::{Value as Json, json};

use super::*;
use crate::graphql::gate::{check_variables, tests::only_validating};

const RESERVE: &str = "mutation($a: ReserveInput!, $b: PurchaseInput!) {
    reserve(input: $a) { serverTime } purchase(input: $b) { drop { id } } }";
const CREATE: &str = "mutation($a: CreateDropInput!) { createDrop(input: $a) { drop { id } } }";
const LIST: &str = "query($a: Int = 3, $b: String) { drops(first: $a, after: $b) { nodes { id } } }";
const OF_STATUS: &str = "query($a: [DropStatus!]) { drops(statuses: $a) { nodes { id } } }";
const DROP: &str = "query($a: ID!, $b: Boolean!) { drop(id: $a) { id name @include(if: $b) } }";
const SPREAD: &str = "query($a: Int, $b: ID!) { ...f } fragment f on Query { drop(id: $b) { ...g } }
    fragment g on Drop { activeReservations(first: $a) { nodes { id } } }";
const NODES: &str = "query($a: [ID!]!) { nodes(ids: $a) { id } }";

fn operation(document: &ExecutableDocument) -> &OperationDefinition {
    &document.operations.iter().next().unwrap().1.node
}

fn are_sure(document: &str, variables: &Json) -> bool {
    surely_fit(operation(&parse_query(document).unwrap()), &Variables::from_json(variables.clone()))
}

#[test]
fn what_clients_send_is_sure() {
    for (document, variables) in [
        (
            RESERVE,
            json!({ "a": { "dropId": "x", "size": "US 9", "admissionToken": null }, "b": { "reservationId": "y" } }),
        ),
        (
            CREATE,
            json!({ "a": { "name": "x", "price": { "amount": 1, "currency": "USD" }, "sizes": [{ "size": "x", "stock": 1 }] } }),
        ),
        (LIST, json!({})),
        (LIST, json!({ "a": 20, "b": "x", "c": 1.5 })),
        (OF_STATUS, json!({ "a": ["LIVE", "ENDED"] })),
        (DROP, json!({ "a": "x", "b": true })),
        (NODES, json!({ "a": [] })),
    ] {
        assert!(are_sure(document, &variables), "{document} {variables}");
    }
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let whole = |name: &str, value: Json| {
        let mut drop = json!({ "name": "x", "price": { "amount": 1, "currency": "USD" } });
        drop[name] = value;
        drop
    };
    for (document, value, expected) in [
        (RESERVE, json!({ "dropId": 5 }), None),
        (
            RESERVE,
            json!({ "dropId": "x", "colour": [] }),
            Some("$a has a field `colour`, and there is none of that name."),
        ),
        (RESERVE, json!({}), Some("$a.dropId is required and was not given.")),
        (RESERVE, json!({ "dropId": null }), Some("$a.dropId is null, and must not be.")),
        (RESERVE, json!({ "dropId": 1.5 }), Some("$a.dropId is no string.")),
        (RESERVE, json!([]), Some("$a is no object.")),
        (CREATE, whole("price", json!(5)), Some("$a.price is no object.")),
        (CREATE, whole("sizes", json!({ "size": "US 9", "stock": 1 })), None),
        (
            CREATE,
            whole("sizes", json!([{ "size": "US 9", "stock": 1 }, "US 9"])),
            Some("$a.sizes[1] is no object."),
        ),
        (CREATE, whole("sizes", json!({ "size": 5, "stock": 1 })), Some("$a.sizes.size is no string.")),
        (CREATE, whole("stock", json!(-3_000_000_000_i64)), Some("$a.stock is no integer of 32 bits.")),
        (CREATE, whole("stock", json!("5")), Some("$a.stock is no integer of 32 bits.")),
        (
            CREATE,
            whole("admissionRequired", json!("yes")),
            Some("$a.admissionRequired is neither true nor false."),
        ),
        (CREATE, whole("startsAt", json!("2026-11-26T18:00:00+01:00")), None),
        (CREATE, whole("startsAt", json!("2026-11-26")), Some(NO_INSTANT)),
        (CREATE, whole("startsAt", json!(5)), Some(NO_INSTANT)),
        (LIST, json!(2_147_483_647), None),
        (LIST, json!(2_147_483_648_u32), Some("$a is no integer of 32 bits.")),
        (
            OF_STATUS,
            json!(["LIVE", "live"]),
            Some("$a[1] is none of CANCELLED, ENDED, LIVE, SCHEDULED, SOLD_OUT."),
        ),
        (NODES, json!(["x", 5, null]), Some("$a[2] is null, and must not be.")),
    ] {
        let document = parse_query(document).unwrap();
        let expected_type = &operation(&document).variable_definitions.first().unwrap().node.var_type.node;
        let found = find_misfit(expected_type, &Value::from_json(value.clone()).unwrap());
        assert_eq!(found.map(|misfit| misfit.tell("a")).as_deref(), expected, "{value}");
    }
}

const NO_INSTANT: &str =
    "$a.startsAt is no instant as in RFC 3339, with a time and an offset, such as 2026-11-22T18:00:00Z.";

#[test]
fn an_argument_of_both_makes_a_document_unsure() {
    for (document, expected) in [
        ("query($a: ID!) { drop(id: $a) { id } }", true),
        ("{ drop(id: \"$a\") { id } nodes(ids: [\"$a\", \"b\"]) { id } }", true),
        ("query($a: ID!) { nodes(ids: [$a]) { id } }", false),
        ("mutation($a: ID!) { reserve(input: { dropId: $a }) { serverTime } }", false),
        ("{ ...f } fragment f on Query { ... { nodes(ids: [$a]) { id } } }", false),
        ("query($a: Boolean!) { serverTime @include(if: $a) }", true),
        ("query($a: Boolean!) { ... @include(if: [$a]) { serverTime } }", false),
        ("query @x(y: [$a]) { serverTime }", false),
        ("{ ...f @x(y: {z: $a}) } fragment f on Query { serverTime }", false),
        ("{ serverTime } fragment f on Query @x(y: [$a]) { serverTime }", false),
    ] {
        assert_eq!(stand_alone(&parse_query(document).unwrap()), expected, "{document}");
    }
}

fn values() -> impl Strategy<Value = Json> {
    let leaves = prop_oneof![
        select(vec![json!(null), json!(true), json!(5), json!(3_000_000_000_i64), json!(1.5)]),
        select(vec![json!("x"), json!("LIVE"), json!("NOWHERE"), json!("2026-11-26T18:00:00Z")]),
    ];
    let names = select(vec![
        "dropId",
        "size",
        "idempotencyKey",
        "reservationId",
        "name",
        "price",
        "amount",
        "currency",
        "sizes",
        "stock",
        "startsAt",
        "else",
    ]);
    leaves.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Json::Array),
            vec((names.clone(), inner), 0..6).prop_map(|fields| {
                Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// Values that often fit, unlike most random ones.
fn likely() -> impl Strategy<Value = Json> {
    let text = || prop_oneof![4 => select(vec![json!("x"), json!("US 9")]), 1 => values()];
    let price = prop_oneof![
        (text(), values()).prop_map(|(currency, amount)| json!({ "currency": currency, "amount": amount })),
        select(vec![json!({ "currency": "USD", "amount": 1 })]),
    ];
    prop_oneof![
        text(),
        vec(text(), 0..3).prop_map(Json::Array),
        (text(), text()).prop_map(|(drop, size)| json!({ "dropId": drop, "size": size })),
        text().prop_map(|id| json!({ "reservationId": id })),
        (text(), price, values())
            .prop_map(|(name, price, stock)| json!({ "name": name, "price": price, "stock": stock })),
        values(),
    ]
}

/// async-graphql finds no errors in what counts as sure.
#[test]
fn what_is_sure_is_valid() {
    let schema = only_validating();
    let sure = Cell::new(0);
    let documents = select(vec![RESERVE, CREATE, LIST, OF_STATUS, DROP, NODES, SPREAD]);
    let inputs = (documents, option::weighted(0.9, likely()), option::weighted(0.9, likely()));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3_000) };
    let outcome = TestRunner::new(config).run(&inputs, |(document, a, b)| {
        let given =
            [("a", a), ("b", b)].into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let variables = Json::Object(given.collect());
        let request = Request::new(document).variables(Variables::from_json(variables.clone()));
        let parsed = parse_query(document).unwrap();
        if check_variables(operation(&parsed), &request).is_ok() && are_sure(document, &variables) {
            sure.set(sure.get() + 1);
            let response = schema.execute(request).now_or_never().unwrap();
            prop_assert!(response.is_ok(), "{document} {variables}: {response:?}");
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(sure.get() > 100, "{} were sure", sure.get());
}
