//! What the gate refuses before the schema sees it.

use serde_json::{Value, json};

use crate::harness::{codes, drive, drive_still, global};

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_kill_a_stock_server_are_refused() {
    drive_still(async |app| {
        let deep = "[".repeat(1_600);
        let mut chain = "{ ...f0 }".to_owned();
        for index in 0..20 {
            chain.push_str(&format!(" fragment f{index} on Query {{ ...f{} ...f{} }}", index + 1, index + 1));
        }
        chain.push_str(" fragment f20 on Query { serverTime }");
        let cycle = "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }";
        let unused = "{ serverTime } fragment a on Query { ...a }";
        for query in [
            format!("{{ drop(id: {deep}) {{ id }} }}"),
            format!("query($a: [ID] = {deep}) {{ serverTime }}"),
            format!("{{ serverTime @include(if: {deep}) }}"),
            "{a".repeat(2_000),
            chain,
            cycle.to_owned(),
            unused.to_owned(),
            format!("{{ {} }}", "serverTime ".repeat(1_000)),
            " ".repeat(9_000),
        ] {
            let answer = app.ask(None, &query, Value::Null).await;
            let code = &answer["errors"][0]["extensions"]["code"];
            assert_eq!(code, "GRAPHQL_VALIDATION_FAILED", "{query:.60}: {answer}");
            assert!(answer.get("data").is_none(), "{answer}");
        }
        assert_eq!(app.error_code(None, "{", Value::Null).await, "GRAPHQL_PARSE_FAILED");
        assert_eq!(app.error_code(None, "{ nonsense }", Value::Null).await, "GRAPHQL_VALIDATION_FAILED");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_documents_that_ask_for_too_much_are_refused() {
    drive_still(async |app| {
        let turn =
            |inner: &str| format!("activeReservations(first: 50) {{ nodes {{ drop {{ {inner} }} }} }}");
        let holds_of_drops_of_holds =
            format!("{{ drops(first: 50) {{ nodes {{ {} }} }} }}", turn(&turn(&turn("id"))));
        let many_logins: String = (0..2)
            .map(|n| format!("a{n}: login(input: {{ email: \"a\", password: \"b\" }}) {{ __typename }} "))
            .collect();
        let hidden = format!("mutation {{ ...f }} fragment f on Mutation {{ {many_logins} }}");
        let many_mutations: String = (0..11).map(|n| format!("a{n}: logout {{ endedSessions }} ")).collect();
        let spread_again = "fragment f on Mutation { login(input: { email: \"a\", password: \"b\" }) { __typename } } \
                            mutation { ...f ...f }";
        // Ten factors of fifty and more: more than a 64-bit sum can hold.
        let buyers = |inner: &str| format!("recentBuyers(first: 50) {{ drop {{ {inner} }} }}");
        let overflows = (0..10).fold("id ".repeat(190), |inner, _| buyers(&inner));
        let not_chosen = format!(
            "query A {{ __typename }} query B {{ {} }} fragment f on Query {{ {} }}",
            "...f".repeat(300),
            "serverTime ".repeat(300)
        );
        let of_nothing = "{ ...f0 } ".to_owned()
            + &(0..20).map(|n| format!("fragment f{n} on Query {{ ...f{} ...f{} }} ", n + 1, n + 1)).collect::<String>();
        let directives = "@include(if: true) ".repeat(9);
        for query in [
            holds_of_drops_of_holds,
            format!("mutation {{ {many_logins} }}"),
            hidden,
            spread_again.to_owned(),
            format!("{{ drops(first: 50) {{ nodes {{ {overflows} }} }} }}"),
            of_nothing,
            format!("mutation {{ {many_mutations} }}"),
            format!("{{ serverTime {directives} }}"),
        ] {
            let code = app.error_code(None, &query, Value::Null).await;
            assert_eq!(code, "GRAPHQL_VALIDATION_FAILED", "{query:.60}");
        }
        let body = json!({ "query": not_chosen, "operationName": "A" });
        let answer = app.client().post(app.url("/graphql")).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{answer}");
        let by_variable =
            "query($n: Int) { drops(first: $n) { nodes { activeReservations(first: $n) { nodes {
            drop { activeReservations(first: $n) { nodes { id } } } } } } } }";
        assert_eq!(app.error_code(None, by_variable, json!({ "n": 50 })).await, "GRAPHQL_VALIDATION_FAILED");
        assert!(app.data(None, by_variable, json!({ "n": 5 })).await["drops"].is_object());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_introspection_of_graphiql_and_generators_gets_through() {
    drive_still(async |app| {
        let of_type = "kind name ".to_owned() + &"ofType { kind name ".repeat(9) + &"}".repeat(9);
        let query = format!(
            "query IntrospectionQuery {{ __schema {{ description queryType {{ name kind }} mutationType {{ name kind }}
               subscriptionType {{ name kind }} types {{ ...FullType }}
               directives {{ name description isRepeatable locations args(includeDeprecated: true) {{ ...InputValue }} }} }} }}
             fragment FullType on __Type {{ kind name description specifiedByURL
               fields(includeDeprecated: true) {{ name description args(includeDeprecated: true) {{ ...InputValue }}
                 type {{ ...TypeRef }} isDeprecated deprecationReason }}
               inputFields(includeDeprecated: true) {{ ...InputValue }} interfaces {{ ...TypeRef }}
               enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }}
               possibleTypes {{ ...TypeRef }} }}
             fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue isDeprecated deprecationReason }}
             fragment TypeRef on __Type {{ {of_type} }}"
        );
        let answer = app.data(None, &query, Value::Null).await;
        assert!(answer["__schema"]["types"].as_array().unwrap().len() > 40);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_variable_that_is_missing_stops_the_first_field_too() {
    drive_still(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let query = "mutation($id: ID!, $hold: ID!) {
            reserve(input: { dropId: $id }) { serverTime }
            purchase(input: { reservationId: $hold }) { userErrors { code } }
        }";
        for variables in [json!({ "id": global(drop) }), json!({ "id": global(drop), "hold": null })] {
            assert_eq!(app.error_code(Some(&buyer.token), query, variables).await, "BAD_USER_INPUT");
        }
        assert_eq!(app.counts(drop).await, [2, 0, 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_is_no_anonymous_request() {
    drive(async |app| {
        let bad = Some("nonsense");
        for query in
            ["{ viewer { email } }", "{ serverTime }", "query { ...f } fragment f on Query { serverTime }"]
        {
            assert_eq!(app.error_code(bad, query, Value::Null).await, "UNAUTHENTICATED", "{query}");
        }
        assert!(app.data(None, "{ viewer { email } }", Value::Null).await["viewer"].is_null());
        let query =
            "mutation { login(input: { email: \"a@b.co\", password: \"x\" }) { userErrors { code } } }";
        assert_eq!(codes(&app.data(bad, query, Value::Null).await["login"]), ["INVALID_CREDENTIALS"]);
        let mixed = "mutation { refresh(input: { refreshToken: \"x\" }) { userErrors { code } }
                                purchase(input: { reservationId: \"x\" }) { userErrors { code } } }";
        assert_eq!(app.error_code(bad, mixed, Value::Null).await, "UNAUTHENTICATED");
    })
    .await;
}
