//! The messages of graphql-transport-ws and the close codes of a socket.

use std::borrow::Cow;

use async_graphql::ServerError;
use axum::extract::ws::CloseFrame;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tungstenite::error::ProtocolError;

use crate::{graphql::json, http::graphql::Parameters};

pub(super) const ACK: &str = r#"{"type":"connection_ack"}"#;
pub(super) const PONG: &str = r#"{"type":"pong"}"#;

/// A message from a client. Anything else closes the socket with `BAD_MESSAGE`.
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

/// A close code and its reason.
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

    /// Returns the close code for a frame that cannot be read; `None`: the connection is gone. It has to be sent:
    /// clients such as graphql-ws reconnect after a socket that just ended, and would send the same again.
    pub(super) fn unreadable(error: axum::Error) -> Option<Self> {
        use tungstenite::Error;
        match *error.into_inner().downcast::<Error>().ok()? {
            Error::Capacity(_) => Some(Self::new(1009, "Message too big")),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) => Some(Self::new(1002, "Protocol error")),
            Error::Utf8(_) => Some(Self::new(1007, "Invalid UTF-8")),
            _ => None,
        }
    }

    /// Returns the close code for an id in use. A control frame has 125 bytes, two of them for the code, so a long id
    /// is cut.
    pub(super) fn already(id: &str) -> Self {
        let id: String = id.chars().take(20).collect();
        Self { code: 4409, reason: format!("Subscriber for {id} already exists").into() }
    }

    /// Whether it is sent before all of the client's message was read.
    pub(super) fn leaves_unread(&self) -> bool {
        matches!(self.code, 1002 | 1007 | 1009)
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

/// Formats a result of an operation; `payload` may be shared with other subscribers.
pub(super) fn next(id: &str, payload: &str) -> String {
    let id = json(&id);
    format!("{{\"id\":{id},\"type\":\"next\",\"payload\":{payload}}}")
}

/// Formats the errors of an operation that could not be executed, which end it.
pub(super) fn error(id: &str, errors: &[ServerError]) -> String {
    json(&ServerMessage { id, kind: "error", payload: Some(errors) })
}

/// Formats the completion of an operation.
pub(super) fn complete(id: &str) -> String {
    json(&ServerMessage::<()> { id, kind: "complete", payload: None })
}
