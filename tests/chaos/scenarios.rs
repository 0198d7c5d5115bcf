//! The scenarios, each on a database and servers of its own.

use std::time::{Duration, Instant};

use diesel_async::RunQueryDsl as _;
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sneaker_drop::{config::DatabaseConfig, db::Database, drops::Drops, ids::NodeId, telemetry::Metrics};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use uuid::Uuid;

use crate::{
    buyers::{Chance, Shop, Told, What},
    checker::{Watch, compare},
    postgres::Postgres,
    proxy::{Proxy, Weather},
    report::{Figure, Report},
    servers::{ACCESS, Server},
    shoe::shoe,
    token::access_token,
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
}

impl Scale {
    pub fn quick() -> Self {
        Self { buyers: 12, kills: 4, crashes: 2, storms: 1, crowd: 300, races: 40, hints: 20, hang_ups: 100 }
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
        }
    }
}

/// In this order.
const SCENARIOS: [&str; 11] =
    ["crowd", "race", "hints", "hang_ups", "kill", "storm", "stop", "eight", "read_only", "crash", "freeze"];

/// Runs those that are named, or all; `to_the_first` that fails, or to the end.
pub async fn run(scale: &Scale, only: &[String], to_the_first: bool, seed: u64, report: &mut Report) {
    let mut postgres = Postgres::start().await;
    for name in SCENARIOS.into_iter().filter(|name| only.is_empty() || only.iter().any(|it| it == name)) {
        match name {
            "crowd" => crowd(&postgres, scale, seed, report).await,
            "race" => race(&postgres, scale, seed, report).await,
            "hints" => hints(&postgres, scale, report).await,
            "hang_ups" => hang_ups(&postgres, scale, seed, report).await,
            "kill" => kill(&postgres, scale, seed, report).await,
            "storm" => storm(&postgres, scale, seed, report).await,
            "stop" => stop(&postgres, scale, seed, report).await,
            "eight" => eight(&postgres, report).await,
            "read_only" => read_only(&postgres, scale, seed, report).await,
            "crash" => crash(&mut postgres, scale, seed, report).await,
            _ => freeze(&postgres, scale, seed, report).await,
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
        let database = format!("chaos_{name}");
        postgres.create(&database, true).await;
        let network = Proxy::start(postgres.socket_dir()).await;
        let url = network.url("sneaker_drop", &database);
        let drop = make_drop(&postgres.url(&database), pairs, hold_seconds).await;
        let log = |number| postgres.dir.join(format!("{name}-{number}.log"));
        let servers: Vec<Server> =
            join_all((0..servers).map(|number| Server::start(&url, log(number)))).await;
        let shop = Shop::new(servers.iter().map(Server::address).collect(), drop);
        let watch = Watch::begin(postgres, &database);
        Self { database, network, servers, shop, watch }
    }

    /// Compares, after every hold that was forgotten has lapsed, and stops.
    async fn clear(mut self, postgres: &Postgres) -> (Vec<Figure>, Vec<String>) {
        let mut connection = postgres.connection(&self.database).await.unwrap();
        let lapsed = "SELECT FROM drop_sizes WHERE held > 0";
        let began = Instant::now();
        while diesel::sql_query(lapsed).execute(&mut connection).await.unwrap() > 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "holds do not lapse");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (looks, mut wrong) = self.watch.end();
        wrong.extend(compare(postgres, &self.database, &self.shop.log).await);
        for server in &mut self.servers {
            server.stop().await;
        }
        let log = &self.shop.log;
        let load =
            |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
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

/// Everybody at once, through two servers.
async fn crowd(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    for pairs in [1, 10, 100] {
        let stage = Stage::set(postgres, &format!("crowd_{pairs}"), 2, pairs, 60).await;
        let shop = &stage.shop;
        let came = Instant::now();
        let told = join_all((0..scale.crowd).map(|number| {
            let shop = shop.clone();
            tokio::spawn(async move {
                let mut chance = Chance::new(seed ^ (number as u64) << 8);
                let user = Uuid::now_v7();
                let told = shop.ask(&mut chance, What::Reserve, user, "only", None).await;
                if let Told::Yes(hold) = &told {
                    shop.ask(&mut chance, What::Purchase, user, "only", Some(hold)).await;
                }
                told
            })
        }))
        .await;
        let took = came.elapsed();
        let granted = told.iter().filter(|told| matches!(told, Ok(Told::Yes(_)))).count();
        let (mut figures, mut wrong) = stage.clear(postgres).await;
        if granted != usize::try_from(pairs).unwrap() {
            wrong.push(format!("{granted} holds of {pairs} pairs"));
        }
        figures.push(Figure::told("all answered in", format!("{} ms", took.as_millis())));
        report.add(format!("{} buyers at once on {pairs} pairs, two servers", scale.crowd), figures, wrong);
    }
}

/// Purchase, cancellation and expiry meet at the deadline.
async fn race(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let races = i32::try_from(scale.races).unwrap();
    let stage = Stage::set(postgres, "race", 2, races, 1).await;
    let shop = &stage.shop;
    let told = join_all((0..scale.races).map(|number| {
        let shop = shop.clone();
        tokio::spawn(async move {
            let mut chance = Chance::new(seed ^ (number + 1) << 16);
            let user = Uuid::now_v7();
            // Not all at one instant.
            tokio::time::sleep(Duration::from_millis(number * 5)).await;
            let Told::Yes(hold) = shop.ask(&mut chance, What::Reserve, user, "race", None).await else {
                return None;
            };
            let about = Duration::from_millis(950 + chance.below(100));
            tokio::time::sleep(about).await;
            let mut other = chance.clone();
            let (bought, _) =
                tokio::join!(shop.ask(&mut chance, What::Purchase, user, "race", Some(&hold)), async {
                    if number % 2 == 0 {
                        shop.ask(&mut other, What::Cancel, user, "race", Some(&hold)).await;
                    }
                });
            Some(matches!(bought, Told::Yes(_)))
        })
    }))
    .await;
    let bought = told.iter().filter(|told| matches!(told, Ok(Some(true)))).count();
    let late = told.iter().filter(|told| matches!(told, Ok(Some(false)))).count();
    let (mut figures, wrong) = stage.clear(postgres).await;
    // On a machine that is busy with other things all come too late.
    figures.push(Figure::at_least("bought in time", bought, 1));
    figures.push(Figure::at_least("too late or given back", late, 1));
    report.add("purchase, cancellation and expiry at the deadline, -50 to +50 ms", figures, wrong);
}

/// A change through one server is seen by who watches through another.
async fn hints(postgres: &Postgres, scale: &Scale, report: &mut Report) {
    let stage = Stage::set(postgres, "hints", 2, PAIRS, 60).await;
    let mut request = format!("ws://{}/graphql", stage.servers[1].address()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let watch = json!({ "query": "subscription($id: ID!) { stockUpdated(dropId: $id) { version } }",
                        "variables": { "id": stage.shop.drop } });
    for message in
        [json!({ "type": "connection_init" }), json!({ "type": "subscribe", "id": "1", "payload": watch })]
    {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    let reserve = "mutation($input: ReserveInput!) { reserve(input: $input) { drop { stockVersion } } }";
    let mut delays = Vec::new();
    for number in 0..scale.hints.min(usize::try_from(PAIRS).unwrap() - 1) {
        let input = json!({ "dropId": stage.shop.drop, "idempotencyKey": number.to_string() });
        let data = stage.shop.once(0, Uuid::now_v7(), reserve, &input).await.unwrap();
        let version = data["reserve"]["drop"]["stockVersion"].as_i64().unwrap();
        let told = Instant::now();
        loop {
            let message = socket.next().await.unwrap().unwrap().into_text().unwrap();
            let message: Value = serde_json::from_str(&message).unwrap_or_default();
            let seen = message["payload"]["data"]["stockUpdated"]["version"].as_i64();
            if seen >= Some(version) {
                break;
            }
        }
        delays.push(told.elapsed());
    }
    delays.sort_unstable();
    let p99 = delays[(delays.len() - 1) * 99 / 100];
    let (looks, wrong) = stage.watch.end();
    for mut server in stage.servers {
        server.stop().await;
    }
    let figures = vec![
        Figure::told("changes", delays.len()),
        Figure::told("seen after, median", format!("{} ms", delays[delays.len() / 2].as_millis())),
        Figure::at_most("p99", p99, Duration::from_millis(500)),
        Figure::told("looks at the law", looks),
    ];
    report.add("a change through one server, seen through another", figures, wrong);
}

/// Clients send a reserve and hang up at some moment.
async fn hang_ups(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set(postgres, "hang_ups", 1, 100_000, 60).await;
    let address = stage.servers[0].address();
    let mut chance = Chance::new(seed);
    for batch in 0..scale.hang_ups.div_ceil(50) {
        let moments: Vec<u64> = (0..50).map(|_| chance.below(30)).collect();
        join_all(moments.into_iter().enumerate().map(|(number, moment)| {
            let (address, drop) = (address.clone(), stage.shop.drop.clone());
            async move {
                let input = json!({ "dropId": drop, "idempotencyKey": format!("{batch}-{number}") });
                let query = "mutation($input: ReserveInput!) { reserve(input: $input) { serverTime } }";
                let body = json!({ "query": query, "variables": { "input": input } }).to_string();
                let head = format!(
                    "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {}\r\n\
                     content-length: {}\r\n\r\n",
                    access_token(Uuid::now_v7(), ACCESS),
                    body.len()
                );
                let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
                stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
                tokio::time::sleep(Duration::from_millis(moment)).await;
            }
        }))
        .await;
    }
    let began = Instant::now();
    let next = stage.shop.ask(&mut chance, What::Reserve, Uuid::now_v7(), "next", None).await;
    let served = began.elapsed();
    let mut connection = postgres.connection(&stage.database).await.unwrap();
    let idle = diesel::sql_query(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'
           AND state_change < now() - interval '3 s'",
    );
    let idle = idle.execute(&mut connection).await.unwrap();
    let (looks, mut wrong) = stage.watch.end();
    if !matches!(next, Told::Yes(_)) || idle > 0 {
        wrong.push(format!("the next buyer was told {next:?}; {idle} sessions idle in a transaction"));
    }
    for mut server in stage.servers {
        server.stop().await;
    }
    let figures = vec![
        Figure::at_most("the next buyer served in", served, Duration::from_millis(500)),
        Figure::told("looks at the law", looks),
    ];
    report.add(format!("{} clients hang up", scale.hang_ups), figures, wrong);
}

/// Servers are killed, one at a time, while buyers buy.
async fn kill(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let mut stage = Stage::set(postgres, "kill", 3, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    let mut chance = Chance::new(seed);
    let mut ready = Vec::new();
    for _ in 0..scale.kills {
        tokio::time::sleep(Duration::from_millis(100 + chance.below(400))).await;
        let victim = &mut stage.servers[usize::try_from(chance.below(3)).unwrap()];
        victim.kill().await;
        tokio::time::sleep(Duration::from_millis(chance.below(200))).await;
        victim.start_again();
        ready.push(victim.ready().await);
    }
    crowd.leave().await;
    let (mut figures, wrong) = stage.clear(postgres).await;
    let slowest = ready.into_iter().max().unwrap_or_default();
    figures.push(Figure::at_most("ready again in", slowest, Duration::from_secs(2)));
    report.add(format!("one of three servers killed with SIGKILL, {} times", scale.kills), figures, wrong);
}

/// The network between one of two servers and PostgreSQL fails in every way.
async fn storm(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set(postgres, "storm", 2, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    let mut chance = Chance::new(seed);
    for _ in 0..scale.storms {
        for _ in 0..4 {
            stage.network.cut();
            stage.network.cut_after(usize::try_from(1 + chance.below(3_000)).unwrap());
            stage.network.lose_next_commit();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let slow = Weather::Slow(Duration::from_millis(30));
        for weather in [slow, Weather::BlackHole, Weather::HalfOpen, Weather::Closed] {
            stage.network.set(weather);
            tokio::time::sleep(Duration::from_millis(700 + chance.below(600))).await;
            stage.network.set(Weather::Fair);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    let lost = stage.network.lost_commits();
    crowd.leave().await;
    let slowest = stage.shop.log.slowest();
    let (mut figures, mut wrong) = stage.clear(postgres).await;
    if lost == 0 {
        wrong.push("no answer to COMMIT was lost: nothing was tried".to_owned());
    }
    figures.push(Figure::told("answers to COMMIT lost", lost));
    figures.push(Figure::at_most("slowest answer", slowest, Duration::from_secs(8)));
    let what = "connections cut, cut at a byte, slow, silent, half open, refused, COMMIT unanswered";
    report.add(format!("{what}: {} rounds", scale.storms), figures, wrong);
}

/// An operator stops a server while buyers buy.
async fn stop(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let mut stage = Stage::set(postgres, "stop", 2, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    let mut slowest = Duration::ZERO;
    for number in 0..scale.storms.max(2) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let server = &mut stage.servers[number % 2];
        slowest = slowest.max(server.stop().await);
        server.start_again();
        server.ready().await;
    }
    crowd.leave().await;
    let (mut figures, wrong) = stage.clear(postgres).await;
    figures.push(Figure::at_most("gone in", slowest, Duration::from_secs(10)));
    report.add(
        format!("one of two servers stopped with SIGTERM, {} times", scale.storms.max(2)),
        figures,
        wrong,
    );
}

/// Servers start together and find nothing.
async fn eight(postgres: &Postgres, report: &mut Report) {
    postgres.create("chaos_eight", false).await;
    let began = Instant::now();
    let mut servers: Vec<Server> = (0..8)
        .map(|number| {
            Server::begin(&postgres.url("chaos_eight"), postgres.dir.join(format!("eight-{number}.log")))
        })
        .collect();
    join_all(servers.iter_mut().map(Server::ready)).await;
    let took = began.elapsed();
    join_all(servers.iter_mut().map(Server::stop)).await;
    let figures = vec![Figure::told("all ready in", format!("{} ms", took.as_millis()))];
    report.add("eight servers start at once on an empty database", figures, Vec::new());
}

/// PostgreSQL takes no writes for a while, as a standby does before it is promoted.
async fn read_only(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set(postgres, "read_only", 2, PAIRS, HOLD_SECONDS).await;
    let mut connection = postgres.connection(&stage.database).await.unwrap();
    let mut set = async |switch: &str| {
        let setting = format!("ALTER SYSTEM SET default_transaction_read_only = {switch}");
        for command in ["SET default_transaction_read_only = off", &setting, "SELECT pg_reload_conf()"] {
            diesel::sql_query(command).execute(&mut connection).await.unwrap();
        }
    };
    let crowd = stage.shop.open(scale.buyers, seed);
    for _ in 0..scale.storms {
        tokio::time::sleep(Duration::from_millis(400)).await;
        set("on").await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        set("off").await;
    }
    crowd.leave().await;
    let slowest = stage.shop.log.slowest();
    let (mut figures, wrong) = stage.clear(postgres).await;
    figures.push(Figure::at_most("slowest answer", slowest, Duration::from_secs(8)));
    report.add(format!("PostgreSQL takes no writes for 1.5 s, {} times", scale.storms), figures, wrong);
}

/// PostgreSQL crashes while buyers buy, and comes back after a while.
async fn crash(postgres: &mut Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set(postgres, "crash", 2, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    let mut chance = Chance::new(seed);
    let mut back = Vec::new();
    for _ in 0..scale.crashes {
        tokio::time::sleep(Duration::from_millis(300 + chance.below(400))).await;
        postgres.crash().await;
        tokio::time::sleep(Duration::from_millis(chance.below(1_500))).await;
        postgres.start_again().await;
        let began = Instant::now();
        for server in 0..2 {
            while stage.shop.once(server, Uuid::now_v7(), "{ serverTime }", &Value::Null).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        back.push(began.elapsed());
    }
    crowd.leave().await;
    let slowest = stage.shop.log.slowest();
    let (mut figures, wrong) = stage.clear(postgres).await;
    figures.push(Figure::at_most("slowest answer", slowest, Duration::from_secs(4)));
    let slowest = back.into_iter().max().unwrap_or_default();
    figures.push(Figure::at_most("both serve again after", slowest, Duration::from_secs(2)));
    report.add(format!("PostgreSQL crashed {} times", scale.crashes), figures, wrong);
}

/// PostgreSQL stops in mid-sentence and goes on later.
async fn freeze(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set(postgres, "freeze", 2, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    for _ in 0..scale.storms.min(5) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        postgres.freeze(Signal::SIGSTOP);
        tokio::time::sleep(Duration::from_secs(5)).await;
        postgres.freeze(Signal::SIGCONT);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    crowd.leave().await;
    let slowest = stage.shop.log.slowest();
    let (mut figures, wrong) = stage.clear(postgres).await;
    figures.push(Figure::at_most("slowest answer", slowest, Duration::from_secs(4)));
    report.add(
        format!("PostgreSQL stopped for 5 s with SIGSTOP, {} times", scale.storms.min(5)),
        figures,
        wrong,
    );
}
