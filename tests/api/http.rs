//! HTTP, from the outside.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{Socket, drive_still, global};
use sneaker_drop::telemetry::Outcome;

#[tokio::test(flavor = "multi_thread")]
async fn the_method_and_the_content_type_are_the_defence_against_forged_requests() {
    drive_still(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 1)]).await);
        let id = global(drop);
        let mutation = format!("mutation {{ reserve(input: {{ dropId: \"{id}\" }}) {{ serverTime }} }}");
        let body = json!({ "query": mutation }).to_string();
        let post = |content_type: &str| {
            app.client()
                .post(app.url("/graphql"))
                .bearer_auth(&buyer.token)
                .header("content-type", content_type)
        };
        for content_type in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
        {
            let answer = post(content_type).body(body.clone()).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
        }
        for origin in ["https://evil.example", "null"] {
            let request = post("application/json").header("origin", origin).body(body.clone());
            assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN, "{origin}");
        }
        let get =
            app.client().get(app.url("/graphql")).bearer_auth(&buyer.token).query(&[("query", &mutation)]);
        assert_eq!(get.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
        let put = app.client().request(Method::PUT, app.url("/graphql")).body(body.clone());
        assert_eq!(put.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(app.counts(drop).await, [1, 0, 0]);
        let own = post("application/json; charset=utf-8").header("origin", "https://shop.example").body(body);
        assert_eq!(own.send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(app.counts(drop).await, [0, 1, 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_told_so() {
    drive_still(async |app| {
        let post = |body: String| {
            app.client()
                .post(app.url("/graphql"))
                .header("content-type", "application/json")
                .body(body)
                .send()
        };
        for body in [
            "",
            "{",
            "null",
            "[]",
            "[{\"query\":\"{serverTime}\"}]",
            "{}",
            "{\"query\":null}",
            "{\"query\":1}",
            "{\"query\":\"{serverTime}\",\"variables\":1}",
            "{\"query\":\"{serverTime}\",\"operationName\":1}",
            "{\"query\":\"{serverTime}\",\"extensions\":[]}",
        ] {
            let answer = post(body.to_owned()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{body}");
        }
        let huge = json!({ "query": " ".repeat(1 << 17) }).to_string();
        assert_eq!(post(huge).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        let coded = |coding| {
            let request = app.client().post(app.url("/graphql")).json(&json!({ "query": "{ serverTime }" }));
            request.header("content-encoding", coding).send()
        };
        assert_eq!(coded("gzip").await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(coded("identity").await.unwrap().status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_not_spoken() {
    drive_still(async |app| {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut answer = Vec::new();
        // It may be cut off with what it sent unread.
        drop(stream.read_to_end(&mut answer).await);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_was_sent_once_is_known_by_its_hash() {
    drive_still(async |app| {
        let document = "{ drops { nodes { id } } }";
        let hash = |document: &str| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, document.as_bytes());
            digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let ask = async |document: Option<&str>, hash: &str, version: u32| {
            let extensions = json!({ "persistedQuery": { "version": version, "sha256Hash": hash } });
            let body = json!({ "query": document, "extensions": extensions });
            let answer = app.client().post(app.url("/graphql")).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let answer: Value = answer.json().await.unwrap();
            answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned)
        };
        let unknown = Some("PERSISTED_QUERY_NOT_FOUND".to_owned());
        assert_eq!(ask(None, &hash(document), 1).await, unknown);
        assert_eq!(ask(Some(document), &hash(document), 1).await, None);
        assert_eq!(ask(None, &hash(document), 1).await, None);
        // What was refused is not kept, and nobody puts a document under another's hash.
        assert_eq!(ask(Some("{"), &hash("{"), 1).await, Some("GRAPHQL_PARSE_FAILED".to_owned()));
        assert_eq!(ask(None, &hash("{"), 1).await, unknown);
        for (document, bad, version) in [
            (Some("{ serverTime }"), hash(document), 1),
            (None, "zz".to_owned(), 1),
            (None, "é".repeat(32), 1),
            (None, hash(document), 2),
        ] {
            assert_eq!(ask(document, &bad, version).await, Some("BAD_USER_INPUT".to_owned()));
        }
        let by_get = [(
            "extensions",
            json!({ "persistedQuery": { "version": 1, "sha256Hash": hash(document) } }).to_string(),
        )];
        let answer: Value =
            app.client().get(app.url("/graphql")).query(&by_get).send().await.unwrap().json().await.unwrap();
        assert!(answer["data"]["drops"].is_object(), "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_as_the_client_accepts_them() {
    drive_still(async |app| {
        let ask = async |accept: &str, query: &str| {
            let request = app
                .client()
                .get(app.url("/graphql"))
                .query(&[("query", query)])
                .header(header::ACCEPT, accept);
            let answer = request.send().await.unwrap();
            let media_type = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
            (answer.status().as_u16(), media_type)
        };
        let new = "application/graphql-response+json; charset=utf-8".to_owned();
        let old = "application/json; charset=utf-8".to_owned();
        assert_eq!(ask("*/*", "{ serverTime }").await, (200, old.clone()));
        assert_eq!(ask("application/json", "{ nonsense }").await, (200, old.clone()));
        assert_eq!(ask("application/graphql-response+json", "{ serverTime }").await, (200, new.clone()));
        assert_eq!(ask("application/graphql-response+json", "{ nonsense }").await, (400, new));
        assert_eq!(ask("text/html", "{ serverTime }").await, (406, old));
        let request = app.client().get(app.url("/graphql")).query(&[("query", "{ serverTime }")]);
        let request = request.header(header::ACCEPT, "application/graphql-response+json");
        let answer = request.bearer_auth("nonsense").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_find_health_readiness_and_figures() {
    drive_still(async |app| {
        let get = async |path: &str| app.client().get(app.url(path)).send().await.unwrap();
        assert_eq!(get("/healthz").await.status(), 200);
        assert_eq!(get("/readyz").await.status(), 200);
        let figures = get("/metrics").await.text().await.unwrap();
        assert!(figures.contains("sneaker_drop_stock_transaction_seconds_bucket") && figures.ends_with("# EOF\n"));
        assert!(figures.contains("sneaker_drop_pool_connections{pool=\"sales\",state=\"idle\"} "), "{figures}");
        let told = include_str!("../../docs/operations.md");
        let names: Vec<&str> = figures
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP sneaker_drop_")?.split(' ').next())
            .collect();
        assert!(names.len() >= 15, "{names:?}");
        for name in names {
            assert!(told.contains(&format!("`{name}`")) || told.contains(&format!("`{name}_total`")), "{name}");
        }
        // By what was executed, and not by the status: as JSON a refusal is a 200.
        let counted = |outcome| app.app.metrics.graphql_requests.get_or_create(&Outcome::of(outcome)).get();
        let before = [counted("executed"), counted("refused")];
        for query in ["{ serverTime }", "{ drop(id: \"none\") { id } nonsense }", "{ drops(first: 51) { nodes { id } } }"] {
            let body = json!({ "query": query });
            assert_eq!(app.client().post(app.url("/graphql")).json(&body).send().await.unwrap().status(), 200);
        }
        let foreign = app.client().post(app.url("/graphql")).header("origin", "https://other.example");
        assert_eq!(foreign.json(&json!({ "query": "{ serverTime }" })).send().await.unwrap().status(), 403);
        assert_eq!([counted("executed"), counted("refused")], [before[0] + 2, before[1] + 2]);
        // A refused upgrade and a refused stream are refused; a socket is no request.
        drop(Socket::ready(app.address, Value::Null).await);
        let upgrade = app.client().get(app.url("/graphql")).header("upgrade", "websocket");
        assert_eq!(upgrade.send().await.unwrap().status(), 400);
        let stream = app.client().post(app.url("/graphql")).header("accept", "text/event-stream");
        let body = stream.json(&json!({ "query": "{ nonsense" })).send().await.unwrap().text().await.unwrap();
        assert!(body.contains("GRAPHQL_PARSE_FAILED"), "{body}");
        assert_eq!([counted("executed"), counted("refused")], [before[0] + 2, before[1] + 4]);
        assert_eq!(get("/graphiql").await.status(), 200);
        app.sql("DELETE FROM __diesel_schema_migrations WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)").await;
        assert_eq!(get("/readyz").await.status(), 503, "a schema that is not this version's");
        assert_eq!(get("/healthz").await.status(), 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_for_clients_that_ask() {
    drive_still(async |app| {
        let sizes: Vec<String> = (1..=30).map(|size| format!("US {size}")).collect();
        let sizes: Vec<(&str, i32)> = sizes.iter().map(|size| (size.as_str(), 1)).collect();
        let id = global(app.drop(&sizes).await);
        let ask = async |query: &str, encoding: &str| {
            let body = json!({ "query": query, "variables": { "id": id } });
            let request =
                app.client().post(app.url("/graphql")).header("accept-encoding", encoding).json(&body);
            request.send().await.unwrap()
        };
        let query = "query($id: ID!) { drop(id: $id) { sizes { id size totalStock availableStock } } }";
        let plain = ask(query, "identity").await;
        assert!(plain.headers().get(header::CONTENT_ENCODING).is_none());
        let plain = plain.bytes().await.unwrap();
        let packed = ask(query, "gzip, br").await;
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(packed.headers()[header::VARY], "accept-encoding");
        let packed = packed.bytes().await.unwrap();
        assert!(
            packed.starts_with(&[0x1f, 0x8b]) && packed.len() * 3 < plain.len(),
            "{} bytes",
            packed.len()
        );
        let small = ask("{ serverTime }", "gzip").await;
        assert!(small.headers().get(header::CONTENT_ENCODING).is_none());
    })
    .await;
}

/// The usual room is for 128, and who comes after them waits for a second or for nothing.
#[tokio::test]
async fn a_crowd_that_connects_at_once_waits_in_line() {
    let listener = sneaker_drop::http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody is let in yet.
    let crowd = (0..300).map(|_| tokio::net::TcpStream::connect(address));
    let crowd = futures_util::future::try_join_all(crowd);
    let in_line = tokio::time::timeout(std::time::Duration::from_secs(20), crowd).await;
    assert_eq!(in_line.unwrap().unwrap().len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_that_scanners_look_for() {
    drive_still(async |app| {
        let get = async |path: &str| app.client().get(app.url(path)).send().await.unwrap();
        let query = app.client().post(app.url("/graphql")).json(&json!({ "query": "{ __typename }" }));
        let mut answers = vec![query.send().await.unwrap()];
        for path in
            ["/graphiql", "/graphiql/page.js", "/healthz", "/readyz", "/metrics", "/graphql", "/nothing"]
        {
            answers.push(get(path).await);
        }
        for answer in &answers {
            let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("x-content-type-options"), Some("nosniff"), "{answer:?}");
            assert!(header("server").is_none() && header("x-powered-by").is_none(), "{answer:?}");
        }
        let header = |place: usize, name: &str| answers[place].headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header(0, "cache-control"), "no-store");
        assert!(header(1, "content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(
            (header(1, "x-frame-options"), header(1, "referrer-policy")),
            ("DENY".into(), "no-referrer".into())
        );
    })
    .await;
}
