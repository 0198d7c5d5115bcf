//! The access token of a request.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use serde_json::Value;

use crate::{accounts::Accounts, graphql::Credentials};

/// How often it is asked on a connection that stays open whether its token is still good.
pub(super) const CHECK_TOKEN_EVERY: Duration = Duration::from_millis(500);

/// What the `Authorization` header says. Anything there that is not a good bearer token is rejected, not ignored.
pub(super) fn from_headers(accounts: &Accounts, headers: &HeaderMap) -> Credentials {
    match headers.get(header::AUTHORIZATION) {
        None => Credentials::Anonymous,
        Some(value) => value.to_str().map_or(Credentials::Rejected, |text| from_text(accounts, text)),
    }
}

/// What the payload of `connection_init` says, under `authorization` or `Authorization`, by itself or among `headers`: the
/// protocol leaves that open, and clients have both habits. `None`: it says nothing, or null.
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
