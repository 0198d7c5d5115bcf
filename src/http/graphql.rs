//! `/graphql` over HTTP: POST with JSON for all operations, GET for queries.
//!
//! A page can send a form or plain text to any origin without a preflight, and follow a link by GET. Neither can carry
//! a mutation, which is the defence against cross-site request forgery.

use std::{sync::Arc, time::Duration};

use async_graphql::{Request as GraphqlRequest, Variables};
use axum::{
    Extension,
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts as _, Request, State, WebSocketUpgrade},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    Site,
    accept::Accepted,
    answer::{self, MediaType, NotExecuted},
    compress::{self, Codings},
    operation::{self, Started},
    origin,
    requester::{Ready, Requester},
    response_cache::CacheKey,
    socket, stream,
};
use crate::{
    graphql::{Admitted, Answer, ApiError, Credentials},
    telemetry::Outcome,
};

/// By default a document may have 8 KiB; the rest is for variables.
pub(super) const LARGEST_REQUEST: usize = 64 * 1024;

/// Bounds how long a client can occupy a connection by sending its body slowly.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// The parameters of a request (GraphQL over HTTP, "Request Parameters").
#[derive(Deserialize)]
pub(super) struct Parameters {
    query: Option<String>,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
    variables: Option<Variables>,
    extensions: Option<Map<String, Value>>,
}

const NO_REQUEST: &str = "A request has a query, which is a string; operationName is a string, variables and extensions \
                          are objects, and each of the three may be left out.";

/// Why a request is malformed: the status and the message.
struct Malformed(StatusCode, &'static str);

/// Handles a request to `/graphql`.
pub(super) async fn serve(State(site): State<Site>, request: Request) -> Response {
    let requests = site.app.metrics.graphql_requests.clone();
    let response = receive(site, request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Operations on a socket are not requests over HTTP.
        return response;
    }
    let is_refused = response.extensions().get::<NotExecuted>().is_some();
    requests.get_or_create(&Outcome::of(if is_refused { "refused" } else { "executed" })).inc();
    response
}

async fn receive(site: Site, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Some(refusal) = origin::refuse(&site, &parts) {
        return refusal;
    }
    // Other upgrades, such as Java's to HTTP/2, are offers that may be ignored (RFC 9110, section 7.8).
    let upgrade = parts.headers.get(header::UPGRADE);
    if upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return match WebSocketUpgrade::from_request_parts(&mut parts, &site).await {
            Ok(upgrade) => socket::open(site, &parts, upgrade),
            Err(rejection) => (Extension(NotExecuted), rejection).into_response(),
        };
    }
    let accepted = Accepted::from_headers(&parts.headers);
    // A malformed request is answered in JSON, even to a client that accepts only a stream.
    let media_type = accepted.whole.unwrap_or(MediaType::Json);
    if accepted.whole.is_none() && accepted.stream.is_none() {
        let why = "The answer is application/graphql-response+json, application/json or, for a subscription, \
                   text/event-stream or multipart/mixed;subscriptionSpec=1.0; accept one of them.";
        return answer::malformed(StatusCode::NOT_ACCEPTABLE, media_type, why);
    }
    let text = match parts.method {
        Method::POST => read_body(&parts.headers, body).await,
        Method::GET => Ok(Bytes::copy_from_slice(parts.uri.query().unwrap_or_default().as_bytes())),
        _ => return not_allowed(media_type, "GET, POST", "Use POST, or GET for a query."),
    };
    match text {
        Ok(text) => respond(&site, &parts, accepted, text).await,
        Err(Malformed(status, why)) => answer::malformed(status, media_type, why),
    }
}

/// Answers from the response cache if possible.
async fn respond(site: &Site, parts: &Parts, accepted: Accepted, text: Bytes) -> Response {
    let by_get = parts.method == Method::GET;
    let requester = Requester::of(site, parts);
    // A client with an invalid token has to learn that, whatever it asks for, so it gets no cached answer.
    let media_type = accepted.whole.filter(|_| !matches!(requester.credentials, Credentials::Rejected));
    let key = media_type.and_then(|media_type| {
        CacheKey::new(text.clone(), by_get, media_type, Codings::from_headers(&parts.headers))
    });
    if let Some(key) = &key
        && let Some(answer) = site.responses.find(key, &site.app.feed)
    {
        return answer.map(Body::from);
    }
    match if by_get { read_query(&text) } else { read_json(&text) } {
        Ok(parameters) => execute(requester, parts, accepted, parameters, key).await,
        Err(Malformed(status, why)) => {
            answer::malformed(status, accepted.whole.unwrap_or(MediaType::Json), why)
        }
    }
}

async fn execute(
    requester: Requester,
    parts: &Parts,
    accepted: Accepted,
    mut parameters: Parameters,
    key: Option<CacheKey>,
) -> Response {
    let media_type = accepted.whole.unwrap_or(MediaType::Json);
    let persisted = &requester.site.persisted;
    let ready = match persisted.resolve(parameters.query.take(), parameters.extensions.as_ref()) {
        Ok(Some((document, candidate))) => {
            let ready = requester.admit(parameters.into_request(document)).await;
            if let (Ok(ready), Some(candidate)) = (&ready, candidate) {
                persisted.keep(candidate, &ready.admitted().request.query);
            }
            ready
        }
        Ok(None) => return answer::malformed(StatusCode::BAD_REQUEST, media_type, NO_REQUEST),
        Err(error) => Err(error),
    };
    if matches!(ready, Ok(Ready::Mutation(_))) && parts.method == Method::GET {
        return not_allowed(media_type, "POST", "Mutations require POST.");
    }
    // A client that accepts both gets a stream only for a subscription.
    let wants_stream = accepted.whole.is_none() || matches!(ready, Ok(Ready::Subscription(_)));
    if let Some(framing) = accepted.stream.filter(|_| wants_stream) {
        return match requester.site.take_permit(parts) {
            Ok(permit) => {
                let alone = Arc::new(Semaphore::new(1));
                let is_refused = ready.is_err();
                let started = ready.map_or_else(Started::refused, |ready| requester.start(ready, &alone));
                let mut response = stream::respond(framing, requester, started, permit);
                if is_refused {
                    response.extensions_mut().insert(NotExecuted);
                }
                response
            }
            Err(error) => answer::turned_away(media_type, &error.into_response()),
        };
    }
    match ready {
        Err(error @ ApiError::RateLimited { .. }) => answer::turned_away(media_type, &error.into_response()),
        Err(error) => answer::executed(media_type, &error.into_response()),
        Ok(Ready::Subscription(_)) => {
            let why = "A subscription needs a WebSocket (graphql-transport-ws on this path), or an Accept header with \
                       text/event-stream or multipart/mixed;subscriptionSpec=1.0.";
            answer::malformed(StatusCode::BAD_REQUEST, media_type, why)
        }
        Ok(Ready::Mutation(admitted)) => {
            answer::executed(media_type, &requester.execute(admitted).await.response)
        }
        Ok(Ready::Query(admitted, payment)) => {
            let readers = requester.site.readers.clone();
            let codings = Codings::from_headers(&parts.headers);
            let answered = answer_query(requester, admitted, media_type, codings, key);
            match operation::by_itself(&readers, payment.pay_for(answered)).await {
                Some(answer) => answer.map(Body::from),
                None => {
                    answer::executed(media_type, &ApiError::internal("a query broke off").into_response())
                }
            }
        }
    }
}

/// Does all the expensive work of an answer: executes the query, serializes the result and compresses it.
async fn answer_query(
    requester: Requester,
    admitted: Admitted,
    media_type: MediaType,
    codings: Codings,
    key: Option<CacheKey>,
) -> Response<Bytes> {
    let Answer { response, good } = requester.execute(admitted).await;
    let answer = compress::whole(answer::executed(media_type, &response), codings).await;
    if let Some((key, validity)) = key.zip(good) {
        requester.site.responses.keep(key, validity, answer.clone());
    }
    answer
}

fn not_allowed(media_type: MediaType, allowed: &'static str, why: &str) -> Response {
    let mut response = answer::malformed(StatusCode::METHOD_NOT_ALLOWED, media_type, why);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

impl Parameters {
    /// Returns the request of a client that does not use persisted queries; `None` if it has no document.
    pub(super) fn into_whole_request(mut self) -> Option<GraphqlRequest> {
        let document = self.query.take()?;
        Some(self.into_request(document))
    }

    fn into_request(self, document: String) -> GraphqlRequest {
        let mut request = GraphqlRequest::new(document);
        // Some clients send an empty name instead of none.
        request.operation_name = self.operation_name.filter(|name| !name.is_empty());
        if let Some(variables) = self.variables {
            request = request.variables(variables);
        }
        request
    }
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Malformed> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_utf8_json(content_type) {
        return Err(Malformed(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body must be application/json in UTF-8.",
        ));
    }
    let coding = headers.get(header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Malformed(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Encoding is not supported: send the body as it is.",
        ));
    }
    match timeout(BODY_WITHIN, to_bytes(body, LARGEST_REQUEST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(match error.into_inner().is::<LengthLimitError>() {
            true => Malformed(StatusCode::PAYLOAD_TOO_LARGE, "The body has more than 64 KiB."),
            false => Malformed(StatusCode::BAD_REQUEST, "The body broke off, or its chunks are malformed."),
        }),
        Err(_) => Err(Malformed(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time.")),
    }
}

fn read_json(body: &[u8]) -> Result<Parameters, Malformed> {
    // Fast path for nearly all requests; the slow path finds out what is wrong with the others.
    if body.starts_with(b"{")
        && let Ok(parameters) = serde_json::from_slice(body)
    {
        return Ok(parameters);
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|_| Malformed(StatusCode::BAD_REQUEST, "The body is not JSON."))?;
    parameters(value)
}

fn is_utf8_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    parts.next().as_deref() == Some("application/json")
        && parts.all(|part| match part.strip_prefix("charset=") {
            Some(charset) => charset.trim_matches('"') == "utf-8",
            None => true,
        })
}

fn read_query(query: &[u8]) -> Result<Parameters, Malformed> {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(query) {
        let value = match &*name {
            "variables" | "extensions" => serde_json::from_str(&value)
                .map_err(|_| Malformed(StatusCode::BAD_REQUEST, "variables or extensions is not JSON."))?,
            _ => Value::String(value.into_owned()),
        };
        fields.insert(name.into_owned(), value);
    }
    parameters(Value::Object(fields))
}

fn parameters(value: Value) -> Result<Parameters, Malformed> {
    if value.is_array() {
        return Err(Malformed(
            StatusCode::BAD_REQUEST,
            "Batches are not supported: send one request at a time.",
        ));
    }
    serde_json::from_value(value).map_err(|_| Malformed(StatusCode::BAD_REQUEST, NO_REQUEST))
}
