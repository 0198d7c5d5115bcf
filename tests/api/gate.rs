//! What the gate refuses before the schema sees it.

use serde_json::{Value, json};

use crate::harness::{Socket, codes, drive, drive_still, global};

/// What overflows the parser's stack, or expands to more than anybody could walk, in a stock server.
fn killers() -> Vec<String> {
    let deep = "[".repeat(1_600);
    let closed = format!("{deep}{}", "]".repeat(1_600));
    let objects = "{a:".repeat(1_600);
    let mixed = "[{a:".repeat(800);
    let chain = |last: &str| {
        let links = (0..20).map(|n| format!(" fragment f{n} on Query {{ ...f{} ...f{} }}", n + 1, n + 1));
        format!("{{ ...f0 }}{} {last}", links.collect::<String>())
    };
    let mut documents = Vec::new();
    for value in [deep, closed, objects, mixed] {
        documents.extend([
            format!("{{ drop(id: {value}) {{ id }} }}"),
            format!("query($a: [ID] = {value}) {{ serverTime }}"),
            format!("{{ serverTime @include(if: {value}) }}"),
            format!("query @a(b: {value}) {{ serverTime }}"),
            format!("fragment f on Query @a(b: {value}) {{ serverTime }} {{ ...f }}"),
            format!("subscription {{ stockUpdated(dropId: {value}) {{ version }} }}"),
            format!("mutation {{ purchase(input: {{ reservationId: {value} }}) {{ serverTime }} }}"),
            format!("{{ a(b: \"\n{value}"),
            value,
        ]);
    }
    documents.extend([
        format!("query($a: {}ID) {{ serverTime }}", "[".repeat(1_600)),
        "{a".repeat(2_000),
        "{...on Query".repeat(500),
        "(".repeat(3_000),
        chain("fragment f20 on Query { serverTime }"),
        // The last fragment is not there.
        chain(""),
        chain("fragment f20 on Query { ...f0 }"),
        "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }".to_owned(),
        "{ serverTime } fragment a on Query { ...a }".to_owned(),
        format!("{{ {} }}", "serverTime ".repeat(1_000)),
        " ".repeat(9_000),
    ]);
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_kill_a_stock_server_are_refused_on_every_transport() {
    drive_still(async |app| {
        let mut socket = Socket::ready(app.address, Value::Null).await;
        for (number, query) in killers().into_iter().enumerate() {
            let answer = app.ask(None, &query, Value::Null).await;
            let code = &answer["errors"][0]["extensions"]["code"];
            assert_eq!(code, "GRAPHQL_VALIDATION_FAILED", "{query:.60}: {answer}");
            assert!(answer.get("data").is_none(), "{answer}");

            let id = number.to_string();
            socket.subscribe(&id, &query, Value::Null).await;
            let told = socket.hear().await;
            assert_eq!((&told["type"], &told["id"]), (&json!("error"), &json!(id)), "{told}");
            assert_eq!(&told["payload"][0]["extensions"]["code"], code, "{told}");

            for accept in ["text/event-stream", "multipart/mixed;subscriptionSpec=1.0"] {
                let request = app.client().post(app.url("/graphql")).header("accept", accept);
                let answer = request.json(&json!({ "query": query })).send().await.unwrap();
                let text = answer.text().await.unwrap();
                assert!(text.contains("\"code\":\"GRAPHQL_VALIDATION_FAILED\""), "{accept}: {text}");
            }
        }
        assert_eq!(app.error_code(None, "{", Value::Null).await, "GRAPHQL_PARSE_FAILED");
        let answer = app.ask(None, "{ drops {\n  }", Value::Null).await;
        assert_eq!(answer["errors"][0]["message"], "Syntax error: expected selection.");
        assert_eq!(answer["errors"][0]["locations"], json!([{ "line": 2, "column": 3 }]));
        assert_eq!(app.error_code(None, "{ nonsense }", Value::Null).await, "GRAPHQL_VALIDATION_FAILED");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_limit_that_was_passed() {
    drive_still(async |app| {
        let typenames = (0..51).map(|n| format!("a{n}: __typename ")).collect::<String>();
        let spread = "{ ...f ...f ...f } fragment f on Query { ".to_owned()
            + &(0..20).map(|n| format!("a{n}: serverTime ")).collect::<String>()
            + "}";
        let holds = "activeReservations(first: 50) { nodes { drop { id } } }";
        let holds = format!("activeReservations(first: 50) {{ nodes {{ drop {{ {holds} }} }} }}");
        let everything = format!("{{ drops(first: 50) {{ nodes {{ {holds} }} }} }}");
        let deep =
            "{ node(id: \"x\") ".to_owned() + &"{ ... on Drop ".repeat(25) + "{ id }" + &"}".repeat(26);
        let directives = "@include(if: true) ".repeat(9);
        for (query, limit) in [
            (" ".repeat(8_193), "QUERY_MAX_BYTES"),
            ("a ".repeat(1_001), "QUERY_MAX_TOKENS"),
            ("{".repeat(33), "QUERY_MAX_BRACKETS"),
            (
                format!("{{ {} }}", "...f ".repeat(300))
                    + &format!(" fragment f on Query {{ {} }}", "a b c d ".repeat(3)),
                "QUERY_MAX_SELECTIONS",
            ),
            (deep, "QUERY_MAX_DEPTH"),
            (format!("{{ {typenames} }}"), "QUERY_MAX_ALIASES"),
            (spread, "QUERY_MAX_ALIASES"),
            (format!("{{ {} }}", "__typename ".repeat(12)), "QUERY_MAX_REPEATS"),
            (format!("{{ {} }}", "a: serverTime ".repeat(12)), "QUERY_MAX_REPEATS"),
            (format!("{{ serverTime {directives} }}"), "QUERY_MAX_DIRECTIVES"),
            (format!("{{ ... {directives} {{ serverTime }} }}"), "QUERY_MAX_DIRECTIVES"),
            (format!("query {directives} {{ serverTime }}"), "QUERY_MAX_DIRECTIVES"),
            (everything, "QUERY_MAX_COST"),
            (
                format!(
                    "{{ nodes(ids: [{}]) {{ ... on Drop {{ {} }} }} }}",
                    "\"x\" ".repeat(50),
                    (0..40).map(|n| format!("a{n}: sizes {{ id size }} ")).collect::<String>()
                ),
                "QUERY_MAX_COST",
            ),
            (
                format!(
                    "{{ drops(first: 50) {{ nodes {{ {} }} }} }}",
                    (0..17).map(|n| format!("a{n}: description ")).collect::<String>()
                ),
                "QUERY_MAX_COST",
            ),
        ] {
            let answer = app.ask(None, &query, Value::Null).await;
            let extensions = &answer["errors"][0]["extensions"];
            assert_eq!(
                *extensions,
                json!({ "code": "GRAPHQL_VALIDATION_FAILED", "limit": limit }),
                "{query:.60}"
            );
            let message = answer["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains(|c: char| c.is_ascii_digit()), "how much is allowed: {message}");
        }
        // What the gate adds itself, it passes by.
        for query in [
            "{ __filling: viewer { email } }",
            "mutation { a: logout { endedSessions } ... on Mutation { __filling: logout { endedSessions } } }",
            "{ drops { nodes { ...f } } } fragment f on Drop { __filling: id }",
        ] {
            let answer = app.ask(Some("nonsense"), query, Value::Null).await;
            assert_eq!(answer["errors"][0]["message"], "This alias is reserved.", "{query}");
            assert!(answer.get("data").is_none(), "{answer}");
        }
        let enough = format!("{{ {} }}", (0..50).map(|n| format!("a{n}: __typename ")).collect::<String>());
        assert_eq!(app.data(None, &enough, Value::Null).await["a49"], "Query");
        let enough = format!("{{ {} }}", "__typename ".repeat(11));
        assert_eq!(app.data(None, &enough, Value::Null).await, json!({ "__typename": "Query" }));
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
        for query in [
            holds_of_drops_of_holds,
            format!("mutation {{ {many_logins} }}"),
            hidden,
            spread_again.to_owned(),
            format!("{{ drops(first: 50) {{ nodes {{ {overflows} }} }} }}"),
            of_nothing,
            format!("mutation {{ {many_mutations} }}"),
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

/// A document that was valid once is not validated whole again; its variables can still be anything.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_variables_of_a_known_document_are_refused_before_anything_is_done() {
    const TWO: &str = "mutation($a: ReserveInput!, $b: ReserveInput!) {
        a: reserve(input: $a) { userErrors { code } } b: reserve(input: $b) { userErrors { code } } }";
    drive(async |app| {
        let (first, second, drop) = (app.buyer().await, app.buyer().await, app.drop(&[("US 9", 9)]).await);
        let good = || json!({ "dropId": global(drop), "size": "US 9" });
        let both = json!({ "a": good(), "b": good() });
        for expected in [json!([]), json!([{ "code": "LIMIT_REACHED" }])] {
            let data = app.data(Some(&first.token), TWO, both.clone()).await;
            assert_eq!(data["a"]["userErrors"], expected, "{data}");
        }
        let counts = app.counts(drop).await;
        for (number, wrong) in [
            json!(null),
            json!("x"),
            json!([]),
            json!([[good()]]),
            json!({}),
            json!({ "dropId": null }),
            json!({ "dropId": true }),
            json!({ "dropId": global(drop), "size": 9 }),
            json!({ "dropId": global(drop), "size": ["US 9"] }),
            json!({ "dropId": global(drop), "colour": "red" }),
        ]
        .into_iter()
        .enumerate()
        {
            let variables = json!({ "a": good(), "b": wrong });
            let known = app.ask(Some(&second.token), TWO, variables.clone()).await;
            let never_seen = app.ask(Some(&second.token), &format!("{TWO} # {number}"), variables).await;
            assert_eq!(known, never_seen, "{wrong}");
            assert!(known["errors"].is_array() && known.get("data").is_none(), "{wrong}: {known}");
        }
        // Valid as far as its first operation goes.
        let document = "query A { serverTime } mutation B($a: ReserveInput!, $id: ID!) {
            a: reserve(input: $a) { serverTime } b: reserve(input: { dropId: $id, size: 9 }) { serverTime } }";
        for (operation, is_answered) in [("A", true), ("A", true), ("B", false)] {
            let variables = if is_answered { json!({}) } else { json!({ "a": good(), "id": global(drop) }) };
            let body = json!({ "query": document, "operationName": operation, "variables": variables });
            let request = app.client().post(app.url("/graphql")).bearer_auth(&second.token).json(&body);
            let answer: Value = request.send().await.unwrap().json().await.unwrap();
            assert_eq!(answer.get("data").is_some(), is_answered, "{answer}");
        }
        assert_eq!(app.counts(drop).await, counts);
        assert_eq!(app.data(Some(&second.token), TWO, both).await["a"]["userErrors"], json!([]));
    })
    .await;
}

/// The library asks a type that is not there about a default, and panics.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_of_an_unknown_type_is_refused() {
    drive_still(async |app| {
        for declared in ["$a: Nope", "$a: [Nope] = [1]", "$a: [[Nope!]!]! = [[1]]", "$a: [Drop] = [1]"] {
            let query = format!("query({declared}) {{ serverTime @skip(if: $a) }}");
            assert_eq!(app.error_code(None, &query, json!({})).await, "GRAPHQL_VALIDATION_FAILED", "{query}");
        }
    })
    .await;
}
