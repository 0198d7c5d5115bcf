//! Tells the other servers on the same database that there is something to look at.
//!
//! A hint says where to look, never what is there: whoever hears it reads the database. So a hint that is lost, late,
//! repeated, out of order or forged does no harm; each server polls as well, and the poll is the guarantee. Hints are
//! folded and sent a few times a second, and never by a stock transaction: PostgreSQL's NOTIFY takes a lock of the whole
//! server when it commits.

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

/// The least time between two messages: a hot drop changes hundreds of times a second.
const BETWEEN_MESSAGES: Duration = Duration::from_millis(25);
/// Drops in one message, which PostgreSQL limits to 8,000 bytes.
const MOST_DROPS: usize = 100;
/// How long after a link broke another is tried.
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// How often it is logged that there is none.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A link that takes longer for a message, or to be made, is taken for broken: the other end may be gone without a word.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// How long a program that ends waits for what it has to tell.
const DELIVERED_WITHIN: Duration = Duration::from_secs(2);

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// At this drop, which has at least this version.
    Drop(DropId, i32),
    /// At the sessions that ended.
    Sessions,
}

/// A link broke, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// By whoever carries the messages.
    #[error("{0}")]
    Broken(String),
    /// On the way to PostgreSQL.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Carries short texts between servers.
pub trait Transport: Send + Sync + 'static {
    /// A link over which this server sends and hears.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>>;
}

/// One server's end. What breaks is replaced by another.
pub trait Link: Send {
    /// Sends to all that listen; done when the text has left this process. Whether the sender hears it as well does not
    /// matter.
    fn send(&mut self, text: String) -> BoxFuture<'_, Result<(), LinkError>>;

    /// The next text. The future may be dropped and asked for again; nothing is lost by that.
    fn receive(&mut self) -> BoxFuture<'_, Result<String, LinkError>>;
}

/// The bus. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    transport: Box<dyn Transport>,
    outbox: Mutex<Outbox>,
    filled: Notify,
    metrics: Metrics,
}

/// What is to be told.
#[derive(Default)]
struct Outbox {
    drops: HashMap<DropId, i32>,
    sessions: bool,
}

impl Bus {
    /// A bus over `transport`. Nothing is carried before [`run`](Self::run) is.
    pub fn over(transport: impl Transport, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            transport: Box::new(transport),
            outbox: Mutex::default(),
            filled: Notify::new(),
            metrics: metrics.clone(),
        }))
    }

    /// Tells the other servers, soon. Waits for nothing.
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

    /// Carries hints for as long as it is polled, and tells `hear` of each. Errors are logged and another link is made.
    pub async fn run(self, hear: impl Fn(Hint)) {
        let mut warned: Option<Instant> = None;
        loop {
            let error = match answered(self.0.transport.connect()).await {
                Ok(link) => {
                    if warned.take().is_some() {
                        tracing::info!("the bus is back");
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
                tracing::warn!(%error, "no bus: what other servers do shows when the poll has found it");
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            // Whoever listens now has polled since.
            *self.outbox() = Outbox::default();
        }
    }

    /// Sends what there is to tell over a link of its own, and hears nothing: for a program that does its work and ends.
    ///
    /// # Errors
    /// The link cannot be made or breaks; what was not sent is gone.
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

    /// A message, in words apart by spaces; what does not fit stays.
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

/// The hints of a message. Words that nobody here knows are of another version, or not ours.
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
