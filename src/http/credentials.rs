//! The access token of a request.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use serde_json::Value;

use crate::{accounts::Accounts, graphql::Credentials};

/// How often the token of a long-lived connection is checked.
pub(super) const CHECK_TOKEN_EVERY: Duration = Duration::from_millis(500);

/// Reads the `Authorization` header. Anything but a valid bearer token is rejected, not ignored.
pub(super) fn from_headers(accounts: &Accounts, headers: &HeaderMap) -> Credentials {
    match headers.get(header::AUTHORIZATION) {
        None => Credentials::Anonymous,
        Some(value) => value.to_str().map_or(Credentials::Rejected, |text| from_text(accounts, text)),
    }
}

/// Reads the payload of `connection_init`: `authorization` or `Authorization`, at the top level or within `headers`.
/// The protocol leaves that open, and clients do both. `None`: it is absent or null.
pub(super) fn from_payload(accounts: &Accounts, payload: &Value) -> Option<Credentials> {
    let value = authorization(payload).or_else(|| authorization(payload.get("headers")?))?;
    match value {
        Value::String(text) => Some(from_text(accounts, text)),
        _ => Some(Credentials::Rejected),
    }
}

fn authorization(object: &Value) -> Option<&Value> {
    ["authorization", "Authorization"]
        .iter()
        .filter_map(|name| object.get(name))
        .find(|value| !value.is_null())
}

fn from_text(accounts: &Accounts, text: &str) -> Credentials {
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let caller = token.and_then(|(_, token)| accounts.authenticate(token.trim()).ok());
    caller.map_or(Credentials::Rejected, Credentials::SignedIn)
}
