//! Many open pages.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};

use crate::client::Socket;

/// Sockets that count what comes.
pub struct Watchers {
    count: usize,
    heard: Arc<AtomicUsize>,
    all: Arc<Notify>,
    wanted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// Opened at once; more would wait in the listener's queue.
const AT_ONCE: usize = 64;

impl Watchers {
    /// `count` subscriptions to a drop, each with its first update.
    pub async fn of_drop(address: SocketAddr, count: usize, drop: &str) -> Self {
        let query = "subscription Watch($dropId: ID!) { stockUpdated(dropId: $dropId) { dropId version status
            drop { id stockVersion status availableStock heldStock soldStock sizes { id size availableStock } } } }";
        let payload = json!({ "query": query, "variables": { "dropId": drop }, "operationName": "Watch" });
        let subscribe = json!({ "id": "1", "type": "subscribe", "payload": payload }).to_string();
        Self::open(address, count, "/graphql", async |socket: &mut Socket| {
            socket.say(r#"{"type":"connection_init"}"#).await;
            assert!(socket.hear().await.unwrap().contains("connection_ack"));
            socket.say(&subscribe).await;
            let first = socket.hear().await.unwrap();
            assert!(first.contains("\"next\""), "{first}");
        })
        .await
    }

    /// `count` sockets of the bare broadcast.
    pub async fn bare(address: SocketAddr, count: usize) -> Self {
        Self::open(address, count, "/ws", async |_: &mut Socket| {}).await
    }

    async fn open(address: SocketAddr, count: usize, path: &str, begin: impl AsyncFn(&mut Socket)) -> Self {
        let (heard, wanted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
        let all = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        for begun in (0..count).step_by(AT_ONCE) {
            let opening = (begun..count.min(begun + AT_ONCE)).map(async |_| {
                let mut socket = Socket::open(address, path).await;
                begin(&mut socket).await;
                socket
            });
            for mut socket in futures_util::future::join_all(opening).await {
                let (heard, wanted, all) = (heard.clone(), wanted.clone(), all.clone());
                tasks.spawn(async move {
                    while socket.hear().await.is_some() {
                        if heard.fetch_add(1, Ordering::Relaxed) + 1 == wanted.load(Ordering::Relaxed) {
                            all.notify_one();
                        }
                    }
                });
            }
        }
        Self { count, heard, all, wanted, _tasks: tasks }
    }

    /// How long it takes from before `change` until each socket has heard of it.
    pub async fn last_hears(&self, change: impl Future<Output = ()>) -> Duration {
        self.heard.store(0, Ordering::Relaxed);
        self.wanted.store(self.count, Ordering::Relaxed);
        let began = Instant::now();
        change.await;
        self.all.notified().await;
        began.elapsed()
    }

    /// Messages a second while something else goes on.
    pub async fn rate(&self, time: Duration) -> f64 {
        self.wanted.store(usize::MAX, Ordering::Relaxed);
        self.heard.store(0, Ordering::Relaxed);
        let began = Instant::now();
        tokio::time::sleep(time).await;
        self.heard.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
    }
}
