//! Status, headers and body of an answer, following the GraphQL-over-HTTP specification.

use async_graphql::{Response as GraphqlResponse, ServerError, Value};
use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::graphql::json;

/// The media type of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum MediaType {
    /// `application/json`: every well-formed request gets a 200, and errors are in the body.
    Json,
    /// `application/graphql-response+json`: a request that could not be executed gets a 4xx or 5xx.
    GraphqlResponse,
}

impl MediaType {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json; charset=utf-8",
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
        })
    }
}

/// An answer without `data`.
#[derive(Serialize)]
pub(super) struct Refusal<'a> {
    pub(super) errors: &'a [ServerError],
}

/// Marks the response to a request that was not executed.
#[derive(Clone, Copy)]
pub(super) struct NotExecuted;

/// Returns whether the request was refused before anything was executed.
pub(super) fn was_refused(response: &GraphqlResponse) -> bool {
    let nothing = response.data == Value::Null && !response.errors.is_empty();
    nothing && response.errors.iter().all(|error| error.path.is_empty())
}

/// Responds to a request that was executed, or refused before.
pub(super) fn executed(media_type: MediaType, response: &GraphqlResponse) -> Response {
    let refused = was_refused(response);
    let status = match (refused, media_type) {
        (false, _) | (true, MediaType::Json) => StatusCode::OK,
        (true, MediaType::GraphqlResponse) => refused_status(response),
    };
    respond(status, media_type, response, refused)
}

/// Responds to a malformed request, with its error status whatever the media type.
pub(super) fn malformed(status: StatusCode, media_type: MediaType, why: &str) -> Response {
    let error = crate::graphql::ApiError::BadUserInput(why.to_owned());
    respond(status, media_type, &error.into_response(), true)
}

/// Responds to a client that is over a limit, with 429 whatever the media type, and when to retry.
pub(super) fn turned_away(media_type: MediaType, error: &GraphqlResponse) -> Response {
    respond(StatusCode::TOO_MANY_REQUESTS, media_type, error, true)
}

/// Returns the longest `retryAfterMs` of the errors, in whole seconds.
fn retry_after(response: &GraphqlResponse) -> Option<u64> {
    let errors = response.errors.iter().filter_map(|error| error.extensions.as_ref()?.get("retryAfterMs"));
    let millis =
        errors.filter_map(|value| if let Value::Number(number) = value { number.as_u64() } else { None });
    millis.max().map(|millis| millis.div_ceil(1_000))
}

fn refused_status(response: &GraphqlResponse) -> StatusCode {
    let code = response.errors.first().and_then(|error| error.extensions.as_ref()?.get("code"));
    let Some(Value::String(code)) = code else { return StatusCode::BAD_REQUEST };
    match code.as_str() {
        "UNAUTHENTICATED" => StatusCode::UNAUTHORIZED,
        // Not the client's mistake, and worth a retry.
        "UNAVAILABLE" | "OVERLOADED" => StatusCode::SERVICE_UNAVAILABLE,
        "INTERNAL_SERVER_ERROR" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn respond(status: StatusCode, media_type: MediaType, response: &GraphqlResponse, refused: bool) -> Response {
    // The answer to a request that was not executed has no `data`, not even null.
    let body = match refused {
        true => json(&Refusal { errors: &response.errors }),
        false => json(response),
    };
    let mut dressed = dressed(status, media_type, body.into());
    if refused {
        dressed.extensions_mut().insert(NotExecuted);
    }
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110, section 15.5.2.
        dressed.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after(response) {
        dressed.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    dressed
}

/// Adds the status and the headers.
fn dressed(status: StatusCode, media_type: MediaType, body: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type.header()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}
