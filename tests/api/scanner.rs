//! What graphql-cop looks for, asked of the program with production settings. The scanner itself is in no package
//! registry; this is its list of checks, in our words.

use serde_json::{Value, json};

use crate::{
    harness::{cluster, database_url},
    program::{SECRETS, Server},
};

/// A check, and what was found of it, if anything was.
type Check = (&'static str, Option<String>);

async fn post(server: &Server, body: &Value) -> Value {
    let request = server.client().post(server.url("/graphql")).json(body);
    request.send().await.unwrap().json().await.unwrap()
}

fn ask(query: impl Into<String>) -> Value {
    json!({ "query": query.into() })
}

/// A finding where the server answered with anything but null.
fn answered(answer: &Value) -> Option<String> {
    let told = answer["data"].as_object().is_some_and(|data| data.values().any(|field| !field.is_null()));
    (told || answer.is_array()).then(|| answer.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_finds_nothing_on_a_server_with_production_settings() {
    let database = cluster().await.create_empty_database().await;
    let url = database_url(&database).await;
    let production = [
        ("DATABASE_URL", url.as_str()),
        ("GRAPHIQL", "off"),
        ("INTROSPECTION", "off"),
        SECRETS[0],
        SECRETS[1],
    ];
    let server = Server::start(&["serve"], &production).await;
    let mut checks: Vec<Check> = Vec::new();

    let aliases: String = (0..=100).map(|number| format!("alias{number}:__typename ")).collect();
    checks.push(("alias overloading", answered(&post(&server, &ask(format!("{{ {aliases} }}"))).await)));
    let batch = json!(vec![ask("{ __typename }"); 10]);
    checks.push(("array batching", answered(&post(&server, &batch).await)));
    let circle =
        "{ __schema { ...A } } fragment A on __Schema { __typename ...B } fragment B on __Schema { ...A }";
    checks.push(("circular fragments", answered(&post(&server, &ask(circle)).await)));
    let deep = "{ __schema { types { fields { type { fields { type { fields { type { fields { type { name } } } } } } } } } } }";
    checks.push(("circular introspection", answered(&post(&server, &ask(deep)).await)));
    let directives = format!("{{ __typename {} }}", "@aa".repeat(10));
    let told = post(&server, &ask(directives)).await;
    let each = told["errors"].as_array().is_some_and(|errors| errors.len() == 10);
    checks.push(("directive overloading", answered(&told).or(each.then(|| told.to_string()))));
    let repeated = format!("{{ {} }}", "__typename ".repeat(500));
    checks.push(("field duplication", answered(&post(&server, &ask(repeated)).await)));
    let told = post(&server, &ask("{ vewer { id } }")).await.to_string();
    checks.push(("field suggestions", told.contains("ou mean").then_some(told)));
    let introspection = ask("{ __schema { types { name fields { name } } } }");
    checks.push(("introspection", answered(&post(&server, &introspection).await)));
    let told = post(&server, &ask("{ qwerty { abc } }")).await;
    let exception = told.to_string().to_ascii_lowercase();
    let exception = ["exception", "stack", "src/", ".rs"].iter().any(|word| exception.contains(word));
    checks.push(("unhandled errors", exception.then(|| told.to_string())));
    checks.push(("tracing", told.pointer("/errors/0/extensions/tracing").map(Value::to_string)));

    // What a browser sends for a foreign page without asking first. That a query can be asked by GET at all is what the
    // scanner would note: it changes nothing, GraphQL over HTTP has it so, and a page elsewhere gets no answer.
    let get = async |query: &str, origin: Option<&str>| {
        let mut request = server.client().get(server.url("/graphql")).query(&[("query", query)]);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.send().await.unwrap().json::<Value>().await.unwrap_or_default()
    };
    checks.push(("mutation by GET", answered(&get("mutation { __typename }", None).await)));
    let elsewhere = get("{ __typename }", Some("https://elsewhere.example")).await;
    checks.push(("query by GET, of a page elsewhere", answered(&elsewhere)));
    let form = server.client().post(server.url("/graphql")).form(&[("query", "{ __typename }")]);
    let told: Value = form.send().await.unwrap().json().await.unwrap_or_default();
    checks.push(("POST of a form", answered(&told)));
    let address = server.client().post(server.url("/graphql")).query(&[("query", "{ __typename }")]);
    let told: Value = address.send().await.unwrap().json().await.unwrap_or_default();
    checks.push(("POST with the query in the address", answered(&told)));
    let text = server.client().post(server.url("/graphql")).header("content-type", "text/plain");
    let told = text.body(ask("{ __typename }").to_string()).send().await.unwrap();
    checks.push(("POST of a text", answered(&told.json().await.unwrap_or_default())));
    for path in ["/", "/graphiql", "/playground", "/console", "/graphql"] {
        let page = server.client().get(server.url(path)).header("accept", "text/html").send().await.unwrap();
        let page = page.text().await.unwrap().to_ascii_lowercase();
        let found = ["graphiql.min", "graphql playground", "<html"].iter().any(|word| page.contains(word));
        checks.push(("a page to explore the API", found.then(|| format!("{path}: {page}"))));
    }
    let found: Vec<Check> = checks.into_iter().filter(|(_, finding)| finding.is_some()).collect();
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(server.stop().await, Some(0));
    cluster().await.drop_database(&database).await;
}
