//! Buyers who want an answer: each asks again, with the same key, until it is a definite one, and all of it is written
//! down.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{servers::ACCESS, token::access_token};

/// A client gives up on one try after this; the server has answered by then.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// And on having an answer at all after this.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(40);

const RESERVE: &str = "mutation($input: ReserveInput!) { reserve(input: $input) {
    reservation { id } userErrors { code } } }";
const PURCHASE: &str = "mutation($input: PurchaseInput!) { purchase(input: $input) {
    purchase { id } userErrors { code } } }";
const CANCEL: &str = "mutation($input: CancelReservationInput!) { cancelReservation(input: $input) {
    reservation { id } userErrors { code } } }";

/// What a buyer was told in the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    Yes(String),
    No(String),
    /// Nothing definite, in all the time there was.
    Unknown,
}

impl Told {
    /// The id of what was had.
    pub fn yes(&self) -> Option<&String> {
        match self {
            Self::Yes(id) => Some(id),
            Self::No(_) | Self::Unknown => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Reserve,
    Purchase,
    Cancel,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub user: Uuid,
    pub key: String,
    pub what: What,
    pub told: Told,
    /// Of a purchase or a cancellation.
    pub hold: Option<String>,
}

/// Everything that buyers did.
#[derive(Default)]
pub struct Log {
    pub entries: Mutex<Vec<Entry>>,
    /// Answers that no buyer should ever get.
    pub wrong: Mutex<Vec<String>>,
    /// How long each try took that was answered, in microseconds at most.
    pub slowest_try: AtomicU64,
    pub tries: AtomicU64,
    /// Tries without a definite answer.
    pub indefinite: AtomicU64,
    /// Those of them whose connection was had, and then lost.
    cut: AtomicU64,
}

impl Log {
    pub fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_try.load(Ordering::Relaxed))
    }

    pub fn indefinite(&self) -> u64 {
        self.indefinite.load(Ordering::Relaxed)
    }

    /// Requests that a server had begun to read.
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    pub fn granted(&self) -> usize {
        let entries = self.entries.lock().unwrap();
        entries.iter().filter(|it| it.what == What::Reserve && matches!(it.told, Told::Yes(_))).count()
    }
}

/// xorshift64, seeded, so that a run makes the same choices again.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

#[derive(Clone)]
pub struct Shop {
    pub client: reqwest::Client,
    /// Where servers are.
    pub servers: Arc<Vec<String>>,
    pub drop: String,
    pub log: Arc<Log>,
}

impl Shop {
    pub fn new(servers: Vec<String>, drop: String) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(TRY_WITHIN).build().unwrap();
        Self { client, servers: Arc::new(servers), drop, log: Arc::default() }
    }

    /// Whose buyers connect anew for each request. A connection that waits for the next one may be closed just when that
    /// comes, which nobody can help.
    pub fn with_new_connections(mut self) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(TRY_WITHIN).pool_max_idle_per_host(0);
        self.client = client.build().unwrap();
        self
    }

    /// One try, with a server. `None`: no definite answer.
    pub async fn once(&self, server: usize, user: Uuid, query: &str, input: &Value) -> Option<Value> {
        let began = Instant::now();
        self.log.tries.fetch_add(1, Ordering::Relaxed);
        let request = self
            .client
            .post(format!("http://{}/graphql", self.servers[server]))
            .bearer_auth(access_token(user, ACCESS))
            .json(&json!({ "query": query, "variables": { "input": input } }));
        let answer = async { request.send().await?.json::<Value>().await }.await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.log.indefinite.fetch_add(1, Ordering::Relaxed);
                if !error.is_connect() && !error.is_timeout() {
                    self.log.cut.fetch_add(1, Ordering::Relaxed);
                }
                if began.elapsed() >= TRY_WITHIN {
                    self.log
                        .wrong
                        .lock()
                        .unwrap()
                        .push(format!("{query}: no answer within {TRY_WITHIN:?}: {error:?}"));
                }
                return None;
            }
        };
        let took = began.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        self.log.slowest_try.fetch_max(took, Ordering::Relaxed);
        match answer["errors"][0]["extensions"]["code"].as_str() {
            None => Some(answer["data"].clone()),
            // Who asks 25 times a second all through an outage is slowed down, and gets an answer later.
            Some("UNAVAILABLE" | "OVERLOADED" | "RATE_LIMITED") => {
                self.log.indefinite.fetch_add(1, Ordering::Relaxed);
                None
            }
            Some(_) => {
                self.log.wrong.lock().unwrap().push(answer.to_string());
                None
            }
        }
    }

    /// Tries until the answer is definite, each time with any server, and writes it down.
    pub async fn ask(
        &self,
        chance: &mut Chance,
        what: What,
        user: Uuid,
        key: &str,
        hold: Option<&str>,
    ) -> Told {
        let (query, name, thing, input) = match what {
            What::Reserve => {
                let input = json!({ "dropId": self.drop, "idempotencyKey": key });
                (RESERVE, "reserve", "reservation", input)
            }
            What::Purchase => (PURCHASE, "purchase", "purchase", json!({ "reservationId": hold })),
            What::Cancel => (CANCEL, "cancelReservation", "reservation", json!({ "reservationId": hold })),
        };
        let began = Instant::now();
        let told = loop {
            let server = usize::try_from(chance.below(self.servers.len() as u64)).unwrap();
            if let Some(data) = self.once(server, user, query, &input).await {
                let payload = &data[name];
                let code = payload["userErrors"][0]["code"].as_str();
                let id = payload[thing]["id"].as_str();
                break match (code, id) {
                    (Some(code), _) => Told::No(code.to_owned()),
                    (None, Some(id)) => Told::Yes(id.to_owned()),
                    (None, None) => {
                        self.log
                            .wrong
                            .lock()
                            .unwrap()
                            .push(format!("{what:?}: neither yes nor no: {payload}"));
                        Told::Unknown
                    }
                };
            }
            if began.elapsed() > ANSWER_WITHIN {
                break Told::Unknown;
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        };
        let (key, hold) = (key.to_owned(), hold.map(str::to_owned));
        self.log.entries.lock().unwrap().push(Entry { user, key, what, told: told.clone(), hold });
        told
    }

    /// Buyers who come, reserve, and then buy, give back or forget, until they are told to stop.
    pub fn open(&self, count: u64, seed: u64) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let mut buyers = JoinSet::new();
        for number in 0..count {
            let (shop, stop, mut chance) =
                (self.clone(), stop.clone(), Chance::new(seed ^ (number + 1) << 20));
            buyers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (user, key) = (Uuid::now_v7(), format!("click-{}", chance.below(u64::MAX)));
                    if let Told::Yes(hold) = shop.ask(&mut chance, What::Reserve, user, &key, None).await {
                        let hold = Some(hold.as_str());
                        match chance.below(10) {
                            0..2 => drop(shop.ask(&mut chance, What::Purchase, user, &key, hold).await),
                            2..6 => drop(shop.ask(&mut chance, What::Cancel, user, &key, hold).await),
                            _ => {}
                        }
                    }
                }
            });
        }
        Crowd { stop, buyers }
    }
}

/// Buyers at work.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    buyers: JoinSet<()>,
}

impl Crowd {
    /// Lets each of them get the answer that they wait for, and no other.
    pub async fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.buyers.join_all().await;
    }
}
