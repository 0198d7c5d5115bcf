//! Subscriptions over plain HTTP, for clients without a WebSocket: server-sent events as in graphql-sse (distinct
//! connections mode), and Apollo's multipart subscriptions.
//!
//! When the server stops, a stream breaks off as in a network failure: clients then reconnect, whereas they take a
//! regular end for completion. When the session of its token ends, a stream ends with UNAUTHENTICATED and without a
//! completion, so a client that signs in again resumes.
//! Nothing is queued for a client that does not read: the next update is made when there is room for it.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, Interval, interval_at};

use super::{
    answer::Refusal,
    connection_limit::ConnectionPermit,
    credentials::CHECK_TOKEN_EVERY,
    operation::{Event, Started},
    requester::Requester,
};
use crate::graphql::{ApiError, json};

/// Proxies close a connection that is idle, often after 30 or 60 seconds.
const HEARTBEAT: Duration = Duration::from_secs(12);

/// The wire format of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// `text/event-stream`.
    EventStream,
    /// `multipart/mixed;subscriptionSpec=1.0`.
    Multipart,
}

impl Framing {
    fn content_type(self) -> &'static str {
        match self {
            Self::EventStream => "text/event-stream; charset=utf-8",
            Self::Multipart => "multipart/mixed;boundary=\"graphql\";subscriptionSpec=1.0",
        }
    }

    fn heartbeat(self) -> String {
        match self {
            Self::EventStream => ":\n\n".to_owned(),
            Self::Multipart => part("{}"),
        }
    }

    /// Returns what precedes the first event.
    fn opening(self) -> &'static str {
        match self {
            Self::EventStream => ":\n\n",
            Self::Multipart => "\r\n--graphql",
        }
    }

    /// Returns the last message to a client whose token is no longer valid. Multipart has transport errors for that.
    fn signed_out(self) -> String {
        let errors = ApiError::Unauthenticated.into_response().errors;
        let errors = json(&errors);
        match self {
            Self::EventStream => format!("event: next\ndata: {{\"errors\":{errors}}}\n\n"),
            Self::Multipart => part(&format!("{{\"payload\":null,\"errors\":{errors}}}")) + "--\r\n",
        }
    }

    /// Formats an event; these protocols send a refusal as a result.
    fn frame(self, event: &Event) -> String {
        let payload = match event {
            Event::Next(payload) => payload.as_ref(),
            Event::Error(errors) => &json(&Refusal { errors }),
            Event::Complete => "",
        };
        match (self, event) {
            (Self::EventStream, Event::Complete) => "event: complete\ndata:\n\n".to_owned(),
            // A refusal ends its operation, and this protocol ends with `complete`.
            (Self::EventStream, Event::Error(_)) => {
                format!("event: next\ndata: {payload}\n\nevent: complete\ndata:\n\n")
            }
            (Self::EventStream, Event::Next(_)) => format!("event: next\ndata: {payload}\n\n"),
            (Self::Multipart, Event::Complete) => "--\r\n".to_owned(),
            (Self::Multipart, Event::Error(_)) => part(&format!("{{\"payload\":{payload}}}")) + "--\r\n",
            (Self::Multipart, Event::Next(_)) => part(&format!("{{\"payload\":{payload}}}")),
        }
    }
}

/// Formats a part, followed by the boundary that closes it. Clients wait for that boundary: if it were sent with the
/// next part, each update would arrive one late.
fn part(body: &str) -> String {
    format!("\r\ncontent-type: application/json\r\n\r\n{body}\r\n--graphql")
}

/// Ends the body of an operation that is not complete.
#[derive(Debug, thiserror::Error)]
#[error("the server stops")]
struct Stopping;

struct Writer {
    framing: Framing,
    started: Started,
    heartbeat: Interval,
    check_token: Interval,
    requester: Requester,
    done: bool,
    _permit: ConnectionPermit,
}

/// Responds with the events of an operation until it completes.
pub(super) fn respond(
    framing: Framing,
    requester: Requester,
    started: Started,
    permit: ConnectionPermit,
) -> Response {
    let every = |period| interval_at(Instant::now() + period, period);
    let writer = Writer {
        framing,
        started,
        heartbeat: every(HEARTBEAT),
        check_token: every(CHECK_TOKEN_EVERY),
        requester,
        done: false,
        _permit: permit,
    };
    let frames = stream::unfold(writer, |mut writer| async move {
        let frame = writer.next().await?;
        Some((frame, writer))
    });
    let opening = stream::once(async move { Ok(framing.opening().to_owned()) });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(framing.content_type())),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Keeps nginx from buffering the response.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(opening.chain(frames))).into_response()
}

impl Writer {
    async fn next(&mut self) -> Option<Result<String, Stopping>> {
        if self.done {
            return None;
        }
        let mut closing = self.requester.site.closing.clone();
        loop {
            tokio::select! {
                event = self.started.next() => {
                    let event = event?;
                    self.done = !matches!(event, Event::Next(_));
                    return Some(Ok(self.framing.frame(&event)));
                }
                _ = self.heartbeat.tick() => return Some(Ok(self.framing.heartbeat())),
                _ = self.check_token.tick(), if self.requester.is_signed_in() => {
                    if self.requester.was_signed_out() {
                        self.done = true;
                        return Some(Ok(self.framing.signed_out()));
                    }
                }
                () = super::begun(&mut closing), if !self.started.ends => return Some(Err(Stopping)),
            }
        }
    }
}
