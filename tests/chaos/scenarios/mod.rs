//! The scenarios, each on a database and servers of its own.

mod accounts;
mod clients;
mod database;
mod rush;
mod servers;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use diesel_async::RunQueryDsl as _;
use futures_util::future::join_all;
use sneaker_drop::{config::DatabaseConfig, db::Database, drops::Drops, ids::NodeId, telemetry::Metrics};

use crate::{
    buyers::Shop,
    checker::{Watch, compare},
    postgres::Postgres,
    proxy::Proxy,
    report::{Figure, Report},
    servers::Server,
    shoe::shoe,
};

/// How often things happen.
pub struct Scale {
    buyers: u64,
    kills: usize,
    crashes: usize,
    storms: usize,
    crowd: usize,
    races: u64,
    hints: usize,
    hang_ups: usize,
    lapsing: usize,
    /// Holds that lapse while no server runs.
    backlog: usize,
    pages: usize,
    /// How long pages that never read are written to.
    deaf_for: Duration,
    guesses: usize,
    /// A second.
    sign_ins: u32,
    flood_for: Duration,
}

impl Scale {
    pub fn quick() -> Self {
        Self {
            buyers: 12,
            kills: 4,
            crashes: 2,
            storms: 1,
            crowd: 300,
            races: 40,
            hints: 20,
            hang_ups: 100,
            lapsing: 300,
            backlog: 1_500,
            pages: 200,
            deaf_for: Duration::from_secs(2),
            guesses: 3,
            sign_ins: 50,
            flood_for: Duration::from_secs(2),
        }
    }

    pub fn long() -> Self {
        Self {
            buyers: 32,
            kills: 100,
            crashes: 30,
            storms: 10,
            crowd: 5_000,
            races: 400,
            hints: 300,
            hang_ups: 1_000,
            lapsing: 5_000,
            backlog: 30_000,
            pages: 10_000,
            deaf_for: Duration::from_secs(20),
            guesses: 100,
            sign_ins: 500,
            flood_for: Duration::from_secs(15),
        }
    }
}

/// In this order.
const SCENARIOS: [&str; 21] = [
    "crowd",
    "one_buyer",
    "race",
    "lapse",
    "retries",
    "hints",
    "subscribers",
    "hang_ups",
    "guesses",
    "flood",
    "roles",
    "kill",
    "backlog",
    "clock",
    "storm",
    "stop",
    "eight",
    "read_only",
    "crash",
    "freeze",
    "full_disk",
];

/// Runs those that are named, or all; `to_the_first` that fails, or to the end.
pub async fn run(scale: &Scale, only: &[String], to_the_first: bool, seed: u64, report: &mut Report) {
    let mut postgres = Postgres::start().await;
    for name in SCENARIOS.into_iter().filter(|name| only.is_empty() || only.iter().any(|it| it == name)) {
        match name {
            "crowd" => rush::crowd(&postgres, scale, seed, report).await,
            "one_buyer" => rush::one_buyer(&postgres, seed, report).await,
            "race" => rush::race(&postgres, scale, seed, report).await,
            "lapse" => rush::lapse(&postgres, scale, seed, report).await,
            "retries" => rush::retries(&postgres, scale, seed, report).await,
            "hints" => clients::hints(&postgres, scale, report).await,
            "subscribers" => clients::subscribers(&postgres, scale, report).await,
            "hang_ups" => clients::hang_ups(&postgres, scale, seed, report).await,
            "kill" => servers::kill(&postgres, scale, seed, report).await,
            "backlog" => servers::backlog(&postgres, scale, seed, report).await,
            "clock" => servers::clock(&postgres, scale, seed, report).await,
            "storm" => database::storm(&postgres, scale, seed, report).await,
            "stop" => servers::stop(&postgres, scale, seed, report).await,
            "guesses" => accounts::guesses(&postgres, scale, report).await,
            "flood" => accounts::flood(&postgres, scale, seed, report).await,
            "roles" => accounts::roles(&postgres, report).await,
            "eight" => servers::eight(&postgres, report).await,
            "read_only" => database::read_only(&postgres, scale, seed, report).await,
            "crash" => database::crash(&mut postgres, scale, seed, report).await,
            "freeze" => database::freeze(&postgres, scale, seed, report).await,
            _ => database::full_disk(scale, seed, report).await,
        }
        if to_the_first && report.has_failed() {
            break;
        }
    }
    postgres.stop().await;
}

/// What a scenario plays on.
struct Stage {
    database: String,
    network: Proxy,
    servers: Vec<Server>,
    shop: Shop,
    watch: Watch,
}

impl Stage {
    async fn set(postgres: &Postgres, name: &str, servers: usize, pairs: i32, hold_seconds: i32) -> Self {
        Self::set_like(postgres, name, &vec![Vec::new(); servers], pairs, hold_seconds).await
    }

    /// With a server for each list of settings.
    async fn set_like(
        postgres: &Postgres,
        name: &str,
        servers: &[Vec<(String, String)>],
        pairs: i32,
        hold_seconds: i32,
    ) -> Self {
        let database = format!("chaos_{name}");
        postgres.create(&database, true).await;
        let network = Proxy::start(postgres.socket_dir()).await;
        let url = network.url("sneaker_drop", &database);
        let drop = make_drop(&postgres.url(&database), pairs, hold_seconds).await;
        let log = |number| postgres.dir.join(format!("{name}-{number}.log"));
        let servers = servers.iter().enumerate();
        let servers: Vec<Server> =
            join_all(servers.map(|(number, settings)| Server::start(&url, log(number), settings))).await;
        let shop = Shop::new(servers.iter().map(Server::address).collect(), drop);
        let watch = Watch::begin(postgres, &database);
        Self { database, network, servers, shop, watch }
    }

    /// Compares, after every hold that was forgotten has lapsed, and stops.
    async fn clear(self, postgres: &Postgres) -> (Vec<Figure>, Vec<String>) {
        let mut connection = postgres.connection(&self.database).await.unwrap();
        let lapsed = "SELECT FROM drop_sizes WHERE held > 0";
        let began = Instant::now();
        while diesel::sql_query(lapsed).execute(&mut connection).await.unwrap() > 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "holds do not lapse");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.clear_now(postgres).await
    }

    /// Stops, with what the watch has seen.
    async fn leave(mut self) -> (usize, Vec<String>) {
        for server in &mut self.servers {
            server.stop().await;
        }
        self.watch.end()
    }

    /// Compares as it stands, and stops.
    async fn clear_now(mut self, postgres: &Postgres) -> (Vec<Figure>, Vec<String>) {
        let (looks, mut wrong) = self.watch.end();
        wrong.extend(compare(postgres, &self.database, &self.shop.log).await);
        for server in &mut self.servers {
            server.stop().await;
        }
        let log = &self.shop.log;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let figures = vec![
            Figure::told("requests", load(&log.tries)),
            Figure::told("without a definite answer", load(&log.indefinite)),
            Figure::told("pairs held", log.granted()),
            Figure::told("looks at the law", looks),
        ];
        (figures, wrong)
    }
}

async fn make_drop(url: &str, pairs: i32, hold_seconds: i32) -> String {
    let settings = DatabaseConfig { url: Some(url.to_owned().into()), direct_url: None, pool_size: 2 };
    let drops = Drops::new(&Database::new(&settings, &Metrics::default()).unwrap());
    let new = shoe(&[("ONE", pairs)], hold_seconds, 1);
    NodeId::Drop(drops.create(new).await.unwrap().id).encode()
}

const PAIRS: i32 = 400;
const HOLD_SECONDS: i32 = 2;
