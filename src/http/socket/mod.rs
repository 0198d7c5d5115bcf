//! `/graphql` over a WebSocket: graphql-transport-ws, as specified in the graphql-ws project's PROTOCOL.md.
//!
//! One task per socket reads and writes; operations run in tasks of their own. The number of answers waiting for a
//! client is bounded, and a write that takes too long ends the socket.

mod protocol;

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tokio_stream::StreamMap;

use super::{
    Site,
    answer::{self, MediaType, NotExecuted},
    begun,
    credentials::{self, CHECK_TOKEN_EVERY},
    graphql::LARGEST_REQUEST,
    operation::{Event, Started},
    requester::Requester,
};
use crate::{
    graphql::{ApiError, Credentials},
    telemetry::Metrics,
};
use protocol::{ClientMessage, Goodbye};

const PROTOCOL: &str = "graphql-transport-ws";
/// Deadline for `connection_init`, the graphql-ws server's default.
const INIT_WITHIN: Duration = Duration::from_secs(3);
/// Interval of pings.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client that sent nothing for this long, not even a pong, is considered gone.
const SILENT_FOR: Duration = Duration::from_secs(50);
/// A client that stalls a write for this long is disconnected.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How long a close frame has to reach the client, and the client to answer it.
const GOODBYE_WITHIN: Duration = Duration::from_millis(500);
/// Queries and mutations that run at once; their answers stay in memory until the client has read them.
const ANSWERS: usize = 8;
/// The longest operation id, in bytes; clients use counters or UUIDs.
const LONGEST_ID: usize = 256;
/// Buffer size. The library's default reserves 128 KiB for reading on each socket.
const BUFFER: usize = 4 * 1024;

/// Upgrades to graphql-transport-ws; refuses other protocols, the older `graphql-ws` included.
pub(super) fn open(site: Site, parts: &Parts, upgrade: WebSocketUpgrade) -> Response {
    let requester = Requester::of(&site, parts);
    let upgrade = upgrade.protocols([PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let refusal = (StatusCode::BAD_REQUEST, "The WebSocket subprotocol must be graphql-transport-ws.\n");
        return (Extension(NotExecuted), refusal).into_response();
    }
    let permit = match site.take_permit(parts) {
        Ok(permit) => permit,
        Err(error) => return answer::turned_away(MediaType::Json, &error.into_response()),
    };
    upgrade
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(LARGEST_REQUEST)
        .max_frame_size(LARGEST_REQUEST)
        .on_upgrade(async move |socket| {
            let readers = site.readers.clone();
            readers.spawn(async move {
                let _held = (permit, site.socket_alive.clone(), Counted::new(site.app.metrics.clone()));
                let (operations, answers) = (StreamMap::new(), Arc::new(Semaphore::new(ANSWERS)));
                Session { requester, socket, ready: false, operations, answers }.run().await;
            });
        })
}

/// Counts an open socket in the metrics.
struct Counted(Metrics);

impl Counted {
    fn new(metrics: Metrics) -> Self {
        metrics.sockets.inc();
        Self(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sockets.dec();
    }
}

/// One socket.
struct Session {
    requester: Requester,
    socket: WebSocket,
    /// Whether `connection_init` was acknowledged.
    ready: bool,
    operations: StreamMap<String, Started>,
    answers: Arc<Semaphore>,
}

/// The client is gone or was disconnected: no close frame can be sent.
struct Gone;

impl Session {
    async fn run(mut self) {
        if let Ok(goodbye) = self.talk().await {
            // The close frame must not wait for a client that does not read either.
            drop(timeout(SEND_WITHIN, self.socket.send(Message::Close(Some(goodbye.frame())))).await);
            if goodbye.leaves_unread() {
                return sleep(GOODBYE_WITHIN).await;
            }
        }
        // To the end, which also sends the answer to the client's close frame. Closing a connection with unread data
        // resets it, and the reset may overtake the close frame.
        let unread = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        drop(timeout(GOODBYE_WITHIN, unread).await);
    }

    /// Runs until one side ends the socket. `Ok`: the close frame to send.
    async fn talk(&mut self) -> Result<Goodbye, Gone> {
        let mut closing = self.requester.site.closing.clone();
        // Created once and not for each event: ten thousand sockets would contend for the channel's list of waiters.
        let mut closing = pin!(begun(&mut closing));
        let mut init_deadline = pin!(sleep(INIT_WITHIN));
        let mut last_heard = Instant::now();
        let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut check_token = tokio::time::interval(CHECK_TOKEN_EVERY);
        loop {
            tokio::select! {
                message = self.socket.recv() => {
                    last_heard = Instant::now();
                    let goodbye = match message.ok_or(Gone)? {
                        Ok(message) => self.hear(message).await?,
                        Err(error) => return Goodbye::unreadable(error).ok_or(Gone),
                    };
                    if let Some(goodbye) = goodbye {
                        return Ok(goodbye);
                    }
                }
                Some((id, event)) = self.operations.next(), if !self.operations.is_empty() => {
                    self.tell(id, event).await?;
                }
                _ = ping.tick() => {
                    if last_heard.elapsed() > SILENT_FOR {
                        return Err(Gone);
                    }
                    self.send(Message::Ping(Default::default())).await?;
                }
                _ = check_token.tick(), if self.requester.is_signed_in() => {
                    if self.requester.was_signed_out() {
                        return Ok(Goodbye::FORBIDDEN);
                    }
                }
                () = &mut init_deadline, if !self.ready => return Ok(Goodbye::INIT_TIMEOUT),
                () = &mut closing, if self.operations.values().all(|started| !started.ends) => return Ok(Goodbye::RESTART),
            }
        }
    }

    /// Handles a message. `Some`: the client broke the protocol.
    async fn hear(&mut self, message: Message) -> Result<Option<Goodbye>, Gone> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Ok(Some(Goodbye::BAD_MESSAGE)),
            Message::Ping(_) | Message::Pong(_) => return Ok(None),
            Message::Close(_) => return Err(Gone),
        };
        let Ok(message) = serde_json::from_str::<ClientMessage>(&text) else {
            return Ok(Some(Goodbye::BAD_MESSAGE));
        };
        match message {
            ClientMessage::ConnectionInit { .. } if self.ready => return Ok(Some(Goodbye::SECOND_INIT)),
            ClientMessage::ConnectionInit { payload } => {
                let Requester { site, credentials, .. } = &mut self.requester;
                let told =
                    payload.and_then(|payload| credentials::from_payload(&site.app.accounts, &payload));
                *credentials = told.unwrap_or(*credentials);
                if matches!(credentials, Credentials::Rejected) {
                    return Ok(Some(Goodbye::FORBIDDEN));
                }
                self.ready = true;
                self.send_text(protocol::ACK.to_owned()).await?;
            }
            ClientMessage::Ping { .. } => self.send_text(protocol::PONG.to_owned()).await?,
            ClientMessage::Pong { .. } => {}
            ClientMessage::Subscribe { .. } if !self.ready => return Ok(Some(Goodbye::UNAUTHORIZED)),
            // Each message of the operation repeats its id.
            ClientMessage::Subscribe { id, .. } if id.len() > LONGEST_ID => {
                return Ok(Some(Goodbye::BAD_MESSAGE));
            }
            ClientMessage::Subscribe { id, .. } if self.operations.contains_key(&id) => {
                return Ok(Some(Goodbye::already(&id)));
            }
            ClientMessage::Subscribe { id, .. }
                if self.operations.len() >= self.requester.site.limits.socket_operations =>
            {
                let limit = "SOCKET_MAX_OPERATIONS";
                let error = ApiError::TooManyOpen { limit, retry_after: Duration::from_secs(1) };
                self.send_text(protocol::error(&id, &error.into_response().errors)).await?;
            }
            ClientMessage::Subscribe { id, payload } => {
                let Some(request) = payload.into_whole_request() else {
                    return Ok(Some(Goodbye::BAD_MESSAGE));
                };
                // Boxed, or each of ten thousand sockets would reserve room for it while idle.
                let started = Box::pin(self.requester.start_at_once(request, &self.answers)).await;
                self.operations.insert(id, started);
            }
            ClientMessage::Complete { id } => drop(self.operations.remove(&id)),
        }
        Ok(None)
    }

    async fn tell(&mut self, id: String, event: Event) -> Result<(), Gone> {
        match event {
            Event::Next(payload) => self.send_text(protocol::next(&id, &payload)).await,
            Event::Error(errors) => {
                self.operations.remove(&id);
                self.send_text(protocol::error(&id, &errors)).await
            }
            Event::Complete => {
                self.operations.remove(&id);
                self.send_text(protocol::complete(&id)).await
            }
        }
    }

    async fn send_text(&mut self, text: String) -> Result<(), Gone> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        match timeout(SEND_WITHIN, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}
