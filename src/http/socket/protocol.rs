//! The messages of graphql-transport-ws and the codes with which a socket closes.

use std::borrow::Cow;

use async_graphql::ServerError;
use axum::extract::ws::CloseFrame;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tungstenite::error::ProtocolError;

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

    /// What came was no message. `None`: the connection is gone, and there is nobody to say it to. Clients such as graphql-ws
    /// come back after a socket that just ended, and would send the same again.
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

    /// An id is in use. A control frame has 125 bytes, two of them for the code: a long id is cut.
    pub(super) fn already(id: &str) -> Self {
        let id: String = id.chars().take(20).collect();
        Self { code: 4409, reason: format!("Subscriber for {id} already exists").into() }
    }

    /// Whether it is said in the middle of what came.
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
