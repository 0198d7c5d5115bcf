//! The messages of graphql-transport-ws and the codes with which a socket closes.

use std::borrow::Cow;

use async_graphql::ServerError;
use axum::extract::ws::CloseFrame;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{graphql::json, http::graphql::Parameters};

pub(super) const ACK: &str = r#"{"type":"connection_ack"}"#;
pub(super) const PONG: &str = r#"{"type":"pong"}"#;

/// What a client says. Anything else is a bad message.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ClientMessage {
    ConnectionInit {
        payload: Option<Value>,
    },
    Ping {
        #[serde(rename = "payload")]
        _payload: Option<Value>,
    },
    Pong {
        #[serde(rename = "payload")]
        _payload: Option<Value>,
    },
    Subscribe {
        id: String,
        payload: Parameters,
    },
    Complete {
        id: String,
    },
}

/// A close code with its reason.
#[derive(Debug)]
pub(super) struct Goodbye {
    code: u16,
    reason: Cow<'static, str>,
}

impl Goodbye {
    pub(super) const RESTART: Self = Self::new(1012, "Service restart");
    pub(super) const BAD_MESSAGE: Self = Self::new(4400, "Bad message");
    pub(super) const UNAUTHORIZED: Self = Self::new(4401, "Unauthorized");
    pub(super) const FORBIDDEN: Self = Self::new(4403, "Forbidden");
    pub(super) const INIT_TIMEOUT: Self = Self::new(4408, "Connection initialisation timeout");
    pub(super) const SECOND_INIT: Self = Self::new(4429, "Too many initialisation requests");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// An id is in use. A control frame has 125 bytes, two of them for the code: a long id is cut.
    pub(super) fn already(id: &str) -> Self {
        let id: String = id.chars().take(20).collect();
        Self { code: 4409, reason: format!("Subscriber for {id} already exists").into() }
    }

    pub(super) fn frame(&self) -> CloseFrame {
        CloseFrame { code: self.code, reason: self.reason.as_ref().into() }
    }
}

#[derive(Serialize)]
struct ServerMessage<'a, T> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<T>,
}

/// A result of an operation, which others may have written down.
pub(super) fn next(id: &str, payload: &str) -> String {
    let id = json(&id);
    format!("{{\"id\":{id},\"type\":\"next\",\"payload\":{payload}}}")
}

/// An operation that could not be executed; it ends with this.
pub(super) fn error(id: &str, errors: &[ServerError]) -> String {
    json(&ServerMessage { id, kind: "error", payload: Some(errors) })
}

/// An operation that is done.
pub(super) fn complete(id: &str) -> String {
    json(&ServerMessage::<()> { id, kind: "complete", payload: None })
}
