//! A network that misbehaves: stands between a server and PostgreSQL, passes bytes on, and fails as it is told.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

/// A simple query, as the driver sends it (PostgreSQL, "Message Formats").
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
const BEGIN: &[u8] = b"BEGIN ISOLATION LEVEL";
/// What writes, and commits by itself where no transaction was begun, after the name by which it is prepared.
const CHANGE: &[u8] = b"\0WITH locked AS";

/// How PostgreSQL says that it ends a session, and as many bytes in another language.
const LAST_WORDS: &[u8] = b"terminating connection";
const TRANSLATED: &[u8] = "arrêt de la connexion".as_bytes();

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// They arrive.
    #[default]
    Fair,
    /// They arrive this much later, both ways.
    Slow(Duration),
    /// They vanish, both ways, and nobody is told.
    BlackHole,
    /// What PostgreSQL says vanishes.
    HalfOpen,
    /// Nobody gets through any more, and who tries is refused.
    Closed,
}

#[derive(Default)]
struct Orders {
    /// The answer to the next commit is lost, and the connection with it.
    lose_commit: AtomicBool,
    /// After so many more bytes from the server its connection is cut; 0: never.
    cut_after: AtomicUsize,
    /// PostgreSQL's last words are put into another language.
    translate: AtomicBool,
    turns: AtomicUsize,
    lost_commits: AtomicUsize,
}

/// Runs for as long as it lives.
pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Counts the times that everything was cut.
    cuts: watch::Sender<usize>,
    orders: Arc<Orders>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// In front of the PostgreSQL that listens in this folder.
    pub async fn start(socket_dir: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather::Fair);
        let cuts = watch::Sender::new(0);
        let orders = Arc::<Orders>::default();
        let accepting = {
            let (weather, cuts, orders) = (weather.clone(), cuts.clone(), orders.clone());
            tokio::spawn(async move {
                loop {
                    let Ok((client, _)) = listener.accept().await else { continue };
                    if *weather.borrow() == Weather::Closed {
                        continue;
                    }
                    let Ok(postgres) = UnixStream::connect(socket_dir.join(".s.PGSQL.5432")).await else {
                        continue;
                    };
                    client.set_nodelay(true).ok();
                    let way = Way { weather: weather.subscribe(), orders: orders.clone() };
                    let mut cuts = cuts.subscribe();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = way.pass(client, postgres) => {}
                            _ = cuts.changed() => {}
                        }
                    });
                }
            })
        };
        Self { address, weather, cuts, orders, accepting }
    }

    /// The URL of a database behind it.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@{}/{database}?sslmode=disable", self.address)
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Cuts every connection that is open.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Loses the answer to the next commit, which is done: a COMMIT, or a change without a transaction around it.
    pub fn lose_next_commit(&self) {
        self.orders.lose_commit.store(true, Ordering::Relaxed);
    }

    /// Answers to commits that were lost.
    pub fn lost_commits(&self) -> usize {
        self.orders.lost_commits.load(Ordering::Relaxed)
    }

    /// Cuts the connection that brings the byte with this number from now on, in the middle of whatever it says.
    pub fn cut_after(&self, bytes: usize) {
        self.orders.cut_after.store(bytes, Ordering::Relaxed);
    }

    #[allow(dead_code, reason = "one of the two test programs does")]
    /// From now on sessions end in words that are not English.
    pub fn translate(&self) {
        self.orders.translate.store(true, Ordering::Relaxed);
    }

    #[allow(dead_code, reason = "one of the two test programs counts")]
    /// Times that a server spoke after PostgreSQL had: with one connection, the round trips.
    pub fn turns(&self) -> usize {
        self.orders.turns.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// One connection.
struct Way {
    weather: watch::Receiver<Weather>,
    orders: Arc<Orders>,
}

impl Way {
    /// Returns when one side hung up, or by order; both are hung up then.
    async fn pass(self, client: TcpStream, postgres: UnixStream) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_postgres, mut to_postgres) = postgres.into_split();
        let postgres_spoke = Mutex::new(true);
        let lost = AtomicBool::new(false);
        let there = async {
            let (mut buffer, mut commits) = (vec![0; 64 * 1024], Commits::default());
            while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                if std::mem::take(&mut *postgres_spoke.lock().unwrap()) {
                    self.orders.turns.fetch_add(1, Ordering::Relaxed);
                }
                let mut bytes = &buffer[..count];
                let is_last = match self.orders.cut_after.load(Ordering::Relaxed) {
                    0 => false,
                    left if count >= left => {
                        self.orders.cut_after.store(0, Ordering::Relaxed);
                        bytes = &bytes[..left];
                        true
                    }
                    left => {
                        self.orders.cut_after.store(left - count, Ordering::Relaxed);
                        false
                    }
                };
                if commits.are_in(bytes) && self.orders.lose_commit.swap(false, Ordering::Relaxed) {
                    lost.store(true, Ordering::Relaxed);
                }
                match self.arrive(Weather::HalfOpen).await {
                    true if to_postgres.write_all(bytes).await.is_err() => return,
                    _ if is_last => return,
                    _ => {}
                }
            }
        };
        let back = async {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from_postgres.read(&mut buffer).await {
                if lost.load(Ordering::Relaxed) {
                    self.orders.lost_commits.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                *postgres_spoke.lock().unwrap() = true;
                if self.orders.translate.load(Ordering::Relaxed) {
                    translate(&mut buffer[..count]);
                }
                if self.arrive(Weather::Fair).await && to_client.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        };
        let mut weather = self.weather.clone();
        tokio::select! {
            () = there => {}
            () = back => {}
            _ = weather.wait_for(|weather| *weather == Weather::Closed) => {}
        }
    }

    /// Whether bytes arrive in this weather, once they do; `but` does not hinder them.
    async fn arrive(&self, but: Weather) -> bool {
        let weather = *self.weather.borrow();
        match weather {
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::BlackHole | Weather::HalfOpen if weather != but => return false,
            _ => {}
        }
        true
    }
}

/// Finds commits in what a server says on one connection.
#[derive(Default)]
struct Commits {
    in_transaction: bool,
    /// The change's name, between zeros, as it is called by (PostgreSQL, "Message Formats": Bind).
    change: Option<Vec<u8>>,
}

impl Commits {
    fn are_in(&mut self, bytes: &[u8]) -> bool {
        let says = |text: &[u8]| position(bytes, text).is_some();
        self.in_transaction |= says(BEGIN);
        if says(COMMIT) {
            self.in_transaction = false;
            return true;
        }
        if let Some(end) = position(bytes, CHANGE) {
            // The driver's names are an s and a number.
            let start = bytes[..end].iter().rposition(|byte| *byte == b's').unwrap();
            self.change = Some([&[0], &bytes[start..end], &[0]].concat());
            return false;
        }
        !self.in_transaction && self.change.as_deref().is_some_and(says)
    }
}

fn position(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

/// Puts what it finds into as many bytes.
fn translate(bytes: &mut [u8]) {
    let found = position(bytes, LAST_WORDS);
    if let Some(words) = found.and_then(|start| bytes.get_mut(start..start + LAST_WORDS.len())) {
        words.copy_from_slice(TRANSLATED);
    }
}
