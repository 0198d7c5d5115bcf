//! Notifies the other servers on the same database of changes.
//!
//! A hint says where to look, never what is there: its receiver reads the database. So a hint that is lost, late,
//! repeated, out of order or forged does no harm; each server polls as well, and the poll is the guarantee. Hints are
//! coalesced and sent a few times a second, never by a stock transaction: PostgreSQL's NOTIFY takes a server-wide lock
//! when it commits.

mod in_process;
mod nats;
mod postgres;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::Notify, time::Instant};

pub use in_process::InProcess;
pub use nats::Nats;
pub use postgres::Postgres;

use crate::{
    db::ConnectError,
    ids::DropId,
    telemetry::{Metrics, Outcome},
};

/// Shortest time between two messages: a hot drop changes hundreds of times a second.
const BETWEEN_MESSAGES: Duration = Duration::from_millis(25);
/// Number of drops in one message, which PostgreSQL limits to 8,000 bytes.
const MOST_DROPS: usize = 100;
/// Delay before a broken link is replaced.
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// Shortest time between two warnings that there is no link.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Deadline for a link to be made, or to send a message. After that it counts as broken: the other end may have
/// vanished.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// How long a command waits for its hints to be sent before it exits.
const DELIVERED_WITHIN: Duration = Duration::from_secs(2);

/// What a server should read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// This drop, which has at least this version.
    Drop(DropId, i32),
    /// The sessions that ended.
    Sessions,
}

/// A failure to make or keep a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The transport failed.
    #[error("{0}")]
    Broken(String),
    /// PostgreSQL could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Carries short messages between servers.
pub trait Transport: Send + Sync + 'static {
    /// Makes a link over which this server sends and receives.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>>;
}

/// One server's end of the transport. A broken link is replaced by a new one.
pub trait Link: Send {
    /// Sends to all receivers; completes when the message has left this process. The sender may receive it as well.
    fn send(&mut self, text: String) -> BoxFuture<'_, Result<(), LinkError>>;

    /// Returns the next message. Cancel safe: dropping the future loses none.
    fn receive(&mut self) -> BoxFuture<'_, Result<String, LinkError>>;
}

/// The bus. Clones are cheap and share it.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    transport: Box<dyn Transport>,
    outbox: Mutex<Outbox>,
    filled: Notify,
    metrics: Metrics,
}

/// Hints that are not sent yet.
#[derive(Default)]
struct Outbox {
    drops: HashMap<DropId, i32>,
    sessions: bool,
}

impl Bus {
    /// Creates a bus over `transport`. It sends and receives nothing until [`run`](Self::run) is polled.
    pub fn over(transport: impl Transport, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            transport: Box::new(transport),
            outbox: Mutex::default(),
            filled: Notify::new(),
            metrics: metrics.clone(),
        }))
    }

    /// Queues a hint for the other servers, without waiting.
    pub fn tell(&self, hint: Hint) {
        {
            let mut outbox = self.outbox();
            match hint {
                Hint::Sessions => outbox.sessions = true,
                Hint::Drop(id, version) => {
                    let newest = outbox.drops.entry(id).or_insert(version);
                    *newest = version.max(*newest);
                }
            }
        }
        self.0.filled.notify_one();
    }

    /// Sends and receives hints until it is dropped, and passes each received one to `hear`. Errors are logged, and a
    /// broken link is replaced.
    pub async fn run(self, hear: impl Fn(Hint)) {
        let mut warned: Option<Instant> = None;
        loop {
            let error = match answered(self.0.transport.connect()).await {
                Ok(link) => {
                    if warned.take().is_some() {
                        tracing::info!("the bus is connected again");
                    }
                    self.0.metrics.bus_links.set(1);
                    let error = self.carry(link, &hear).await;
                    self.0.metrics.bus_links.set(0);
                    error
                }
                Err(error) => error,
            };
            if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                warned = Some(Instant::now());
                tracing::warn!(%error, "no bus: changes by other servers are found by polling, up to 250 ms later");
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            // Drops the hints of the outage: the other servers have polled since.
            *self.outbox() = Outbox::default();
        }
    }

    /// Sends the queued hints over a link of its own and receives none: for a command that exits afterwards.
    ///
    /// # Errors
    /// The link cannot be made or breaks; unsent hints are lost.
    pub async fn deliver(&self) -> Result<(), LinkError> {
        let delivered = async {
            let mut link = None;
            loop {
                let text = match &mut *self.outbox() {
                    outbox if outbox.is_empty() => return Ok(()),
                    outbox => outbox.take(),
                };
                let link = match &mut link {
                    Some(link) => link,
                    None => link.insert(self.0.transport.connect().await?),
                };
                link.send(text).await?;
            }
        };
        let late = LinkError::Broken(format!("not sent within {DELIVERED_WITHIN:?}"));
        tokio::time::timeout(DELIVERED_WITHIN, delivered).await.unwrap_or(Err(late))
    }

    async fn carry(&self, mut link: Box<dyn Link>, hear: &impl Fn(Hint)) -> LinkError {
        let mut next = Instant::now();
        loop {
            let is_empty = self.outbox().is_empty();
            tokio::select! {
                text = link.receive() => match text {
                    Ok(text) => hints(&text).for_each(|hint| {
                        self.count("heard");
                        hear(hint);
                    }),
                    Err(error) => return error,
                },
                () = self.0.filled.notified(), if is_empty => {}
                () = tokio::time::sleep_until(next), if !is_empty => {
                    let text = self.outbox().take();
                    self.count("sent");
                    if let Err(error) = answered(link.send(text)).await {
                        return error;
                    }
                    next = Instant::now() + BETWEEN_MESSAGES;
                }
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        self.0.metrics.bus_hints.get_or_create(&Outcome::of(outcome)).inc();
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.drops.is_empty() && !self.sessions
    }

    /// Takes a message: words separated by spaces. What does not fit stays.
    fn take(&mut self) -> String {
        let mut words = Vec::new();
        if std::mem::take(&mut self.sessions) {
            words.push(SESSIONS.to_owned());
        }
        let drops: Vec<(DropId, i32)> =
            self.drops.iter().take(MOST_DROPS).map(|(id, version)| (*id, *version)).collect();
        for (id, version) in drops {
            self.drops.remove(&id);
            words.push(format!("{}:{version}", id.0.simple()));
        }
        words.join(" ")
    }
}

async fn answered<T>(asked: BoxFuture<'_, Result<T, LinkError>>) -> Result<T, LinkError> {
    let late = LinkError::Broken(format!("no answer within {ANSWERED_WITHIN:?}"));
    tokio::time::timeout(ANSWERED_WITHIN, asked).await.unwrap_or(Err(late))
}

const SESSIONS: &str = "sessions";

/// Parses the hints of a message. Unknown words are skipped: they are another version's, or not ours.
fn hints(text: &str) -> impl Iterator<Item = Hint> {
    text.split(' ').filter_map(|word| match word {
        SESSIONS => Some(Hint::Sessions),
        _ => {
            let (id, version) = word.split_once(':')?;
            Some(Hint::Drop(DropId(id.parse().ok()?), version.parse().ok()?))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_what_was_told_and_no_more_than_fits() {
        let mut outbox = Outbox { sessions: true, ..Outbox::default() };
        let told: HashMap<DropId, i32> = (1..=250).map(|version| (DropId::new(), version)).collect();
        outbox.drops.clone_from(&told);
        let mut heard = Vec::new();
        while !outbox.is_empty() {
            let text = outbox.take();
            assert!(text.len() < 8_000, "{}", text.len());
            heard.extend(hints(&text));
        }
        assert_eq!(heard.len(), 251);
        assert_eq!(heard.first(), Some(&Hint::Sessions));
        assert!(told.iter().all(|(id, version)| heard.contains(&Hint::Drop(*id, *version))));
    }

    #[test]
    fn what_is_no_hint_is_none() {
        let id = DropId::new().0.simple();
        for text in ["", " ", "x", ":", "sessions2", "0:1", &format!("{id}:x"), &format!("{id}"), "\u{0}"] {
            assert_eq!(hints(text).count(), 0, "{text:?}");
        }
        assert_eq!(hints(&format!("what {id}:7 sessions")).count(), 2);
    }
}
