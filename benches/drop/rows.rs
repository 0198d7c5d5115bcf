//! The rows of the table, in the order in which a round takes them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use sneaker_drop::config::Limits;

use crate::{
    client::{Http, compressed, post},
    gate,
    load::{self, End, Load},
    pgbench::{Pgbench, Tables},
    report::Figures,
    server::{Peer, Postgres, Server, token, token_of},
    watchers::Watchers,
};

/// How much is measured.
pub struct Plan {
    pub rounds: usize,
    /// Of each load.
    time: Duration,
    /// Parts to measure; all where none is named.
    only: Vec<String>,
    most_watchers: usize,
}

impl Plan {
    pub fn new(quick: bool, only: Vec<String>) -> Self {
        match quick {
            true => Self { rounds: 1, time: Duration::from_millis(1_500), only, most_watchers: 10_000 },
            false => Self { rounds: 3, time: Duration::from_secs(4), only, most_watchers: 10_000 },
        }
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == part)
    }
}

const RESERVE: &str = "mutation Reserve($input: ReserveInput!) { reserve(input: $input) {
    reservation { id expiresAt } drop { id stockVersion availableStock heldStock soldStock } userErrors { code } } }";
const PURCHASE: &str = "mutation Purchase($input: PurchaseInput!) { purchase(input: $input) {
    purchase { id } drop { id stockVersion availableStock heldStock soldStock } userErrors { code } } }";
const PAGE: &str = "query Page($first: Int!) { drops(first: $first) { nodes { id name status stockVersion availableStock heldStock
    soldStock sizes { id size availableStock heldStock soldStock } activeReservations(first: 5) { nodes { id expiresAt } }
    recentBuyers(first: 3) { user { username } purchasedAt } } } }";

/// One drop can have so many pairs.
const PAIRS: i32 = 100_000;

pub async fn round(plan: &Plan, postgres: &Postgres, round: usize, figures: &mut Figures) {
    let say = |what: &str| eprintln!("  {what}");
    if plan.wants("gate") {
        say("documents that kill a stock server");
        figures.add("refusal", gate::slowest_refusal());
    }
    let server = Server::start(postgres, &format!("round_{round}"), &[]).await;
    if plan.wants("sell") {
        say("selling one hot drop, beside PostgreSQL by itself");
        let by_itself = [
            Pgbench::prepare(postgres, round, Tables::Ours).await,
            Pgbench::prepare(postgres, round, Tables::Bare).await,
        ];
        let ours = sell(plan, &by_itself, &server, figures).await;
        say("a lone buyer");
        alone(plan, &by_itself, &server, figures).await;
        say("500 buyers on 50 pairs; purchases");
        rush_and_purchases(&server, figures).await;
        say("batches of one, and batches in PostgreSQL by itself");
        batches_of_one(plan, postgres, round, figures).await;
        batches(plan, by_itself, ours, figures).await;
    }
    if plan.wants("lapse") {
        say("holds that lapse");
        lapse(postgres, round, &server, figures).await;
    }
    if plan.wants("pages") {
        say("pages");
        pages(plan, postgres, round, &server, figures).await;
    }
    if plan.wants("watch") {
        say("open pages");
        watch(plan, &server, figures).await;
    }
    server.stop().await;
}

fn reserve_body(drop: &str, key: usize) -> String {
    let input = json!({ "dropId": drop, "size": "US 9", "idempotencyKey": format!("click-{key}") });
    json!({ "query": RESERVE, "operationName": "Reserve", "variables": { "input": input } }).to_string()
}

fn succeeded(answer: &[u8]) -> bool {
    memchr(answer, b"\"userErrors\":[]")
}

fn memchr(answer: &[u8], text: &[u8]) -> bool {
    answer.windows(text.len()).any(|window| window == text)
}

/// Each buyer is another one, signed in, with a key of their own. The requests are written beforehand: the load shares
/// its processors with the server.
async fn reservations(server: &Server, drop: &str, connections: usize, time: Duration) -> Load {
    let most = usize::try_from(time.as_millis()).unwrap() * 40;
    let requests = requests(drop, most.min(PAIRS.try_into().unwrap()));
    let request = move |number: usize| requests.get(number).cloned();
    load::run(server.address, connections, End::After(time), request, succeeded).await
}

fn requests(drop: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|number| post(Some(&token()), &reserve_body(drop, number))).collect()
}

/// Returns how many a second, from 64 connections.
async fn sell(plan: &Plan, [same, bare]: &[Pgbench<'_>; 2], server: &Server, figures: &mut Figures) -> f64 {
    let seconds = u32::try_from(plan.time.as_secs().max(2)).unwrap();
    let warm = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
    reservations(server, &warm, 64, Duration::from_millis(500)).await;

    let drop = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
    let ours = reservations(server, &drop, 64, plan.time).await;
    figures.add("reservations", ours.per_second());
    for (name, ratio, other) in [
        ("plain", "reservations / plain", same.one_by_one(seconds).await),
        ("plain, bare tables", "reservations / plain, bare tables", bare.one_by_one(seconds).await),
    ] {
        figures.add(name, other);
        figures.add(ratio, ours.per_second() / other);
    }
    figures.add("p50 at 64", ours.percentile(0.5));
    figures.add("p99 at 64", ours.percentile(0.99));

    let drop = server.drop_of_pairs_held_before(&[("US 9", PAIRS)], 3_600).await;
    let again = reservations(server, &drop, 64, plan.time / 2).await.per_second();
    figures.add("reservations, pairs held before", again);
    figures.add("reservations, pairs held before / never held", again / ours.per_second());

    let drop = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
    let crowd = reservations(server, &drop, 256, plan.time).await;
    figures.add("reservations at 256", crowd.per_second());
    figures.add("p50 at 256", crowd.percentile(0.5));
    figures.add("p99 at 256", crowd.percentile(0.99));

    // Half to two thirds of what it can: whoever comes then should not have to wait for others.
    let drop = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
    let rate = 6_000_u32;
    let most = usize::try_from(u64::from(rate) * plan.time.as_secs().max(2)).unwrap();
    let requests = requests(&drop, most);
    let request = move |number: usize| requests.get(number).cloned();
    let open = load::run_at(server.address, 256, rate, plan.time, request, succeeded).await;
    figures.add("at 6,000 a second, p50 from when it was due", open.percentile(0.5));
    figures.add("at 6,000 a second, p99 from when it was due", open.percentile(0.99));
    ours.per_second()
}

/// What PostgreSQL can do in batches, beside `ours` a second.
async fn batches(plan: &Plan, [same, bare]: [Pgbench<'_>; 2], ours: f64, figures: &mut Figures) {
    let seconds = u32::try_from(plan.time.as_secs().max(2)).unwrap();
    for (name, ratio, other) in [
        ("batches", "reservations / batches", same.batches(seconds).await),
        ("batches, bare tables", "reservations / batches, bare tables", bare.batches(seconds).await),
    ] {
        figures.add(name, other);
        figures.add(ratio, ours / other);
    }
    same.clear().await;
    bare.clear().await;
}

/// The same server, with a transaction for each reservation.
async fn batches_of_one(plan: &Plan, postgres: &Postgres, round: usize, figures: &mut Figures) {
    let single = Server::start(postgres, &format!("single_{round}"), &[("STOCK_MAX_BATCH", "1")]).await;
    let drop = single.drop(&[("US 9", PAIRS)], 3_600, 1).await;
    figures
        .add("reservations, batches of one", reservations(&single, &drop, 64, plan.time).await.per_second());
    single.stop().await;
}

/// A lone reserve, beside the least that a transaction can be over the same driver, and the least that a mutation can be.
async fn alone(plan: &Plan, [same, bare]: &[Pgbench<'_>; 2], server: &Server, figures: &mut Figures) {
    let drop = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
    let time = plan.time / 2;
    let lone = reservations(server, &drop, 1, time).await.percentile(0.5);
    figures.add("lone reserve", lone);
    for (name, ratio, other) in [
        ("lone statement", "lone / statement", same.lone_statement(time).await),
        ("lone statement, bare tables", "lone / statement, bare tables", bare.lone_statement(time).await),
    ] {
        figures.add(name, other);
        figures.add(ratio, lone / other);
    }
    let memory = Peer::start(&["memory"]).await;
    let request = post(None, &reserve_body(&drop, 0));
    let is_refused = |answer: &[u8]| memchr(answer, b"SOLD_OUT");
    let nothing =
        load::run(memory.address, 1, End::After(time), move |_| Some(request.clone()), is_refused).await;
    figures.add("lone mutation without a database", nothing.percentile(0.5));
}

async fn rush_and_purchases(server: &Server, figures: &mut Figures) {
    let drop = server.drop(&[("US 9", 50)], 3_600, 1).await;
    let requests = requests(&drop, 500);
    let request = move |number: usize| requests.get(number).cloned();
    let rush = load::run(server.address, 500, End::AllSent, request, |answer: &[u8]| {
        succeeded(answer) || memchr(answer, b"ALL_HELD")
    })
    .await;
    figures.add("rush", rush.took.as_secs_f64() * 1_000.0);

    const PURCHASES: usize = 12_000;
    let drop = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
    let tokens: Vec<String> = (0..PURCHASES).map(|_| token()).collect();
    let (reserved, holds) = reserve_all(server, &drop, &tokens).await;
    let requests = holds.iter().map(|(buyer, id)| {
        let variables = json!({ "input": { "reservationId": id } });
        let body = json!({ "query": PURCHASE, "operationName": "Purchase", "variables": variables });
        post(Some(&tokens[*buyer]), &body.to_string())
    });
    let requests: Vec<Bytes> = requests.collect();
    let request = move |number: usize| requests.get(number).cloned();
    let bought = load::run(server.address, 64, End::AllSent, request, succeeded).await;
    assert_eq!(bought.answers, PURCHASES);
    figures.add("purchases", bought.per_second());
    figures.add("purchases / reservations", bought.per_second() / reserved);
}

/// A hold for each buyer, 64 at a time; returns how many a second, and each buyer's place with the id of the hold.
async fn reserve_all(server: &Server, drop: &str, tokens: &[String]) -> (f64, Vec<(usize, String)>) {
    let requests = tokens.iter().enumerate().map(|(key, token)| post(Some(token), &reserve_body(drop, key)));
    let requests: Arc<Vec<Bytes>> = Arc::new(requests.collect());
    let began = Instant::now();
    let asking = (0..64_usize).map(|first| {
        let (requests, address) = (requests.clone(), server.address);
        tokio::spawn(async move {
            let mut http = Http::connect(address).await;
            let mut answers = Vec::new();
            for (buyer, request) in requests.iter().enumerate().skip(first).step_by(64) {
                answers.push((buyer, http.ask(request).await.to_vec()));
            }
            answers
        })
    });
    let mut answers = Vec::new();
    for asking in asking.collect::<Vec<_>>() {
        answers.extend(asking.await.unwrap());
    }
    let rate = tokens.len() as f64 / began.elapsed().as_secs_f64();
    let hold = |(buyer, answer): (usize, Vec<u8>)| {
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        (buyer, answer["data"]["reserve"]["reservation"]["id"].as_str().unwrap().to_owned())
    };
    // Who came first buys first.
    answers.sort_by_key(|(buyer, _)| *buyer);
    (rate, answers.into_iter().map(hold).collect())
}

/// From a hold's deadline until the transaction that took it back had the lock; the commit comes a millisecond later.
async fn lapse(postgres: &Postgres, round: usize, server: &Server, figures: &mut Figures) {
    const HOLDS: usize = 300;
    let drop = server.drop(&[("US 9", 1_000)], 1, 1).await;
    let mut http = Http::connect(server.address).await;
    for number in 0..HOLDS {
        assert!(succeeded(http.ask(&post(Some(&token()), &reserve_body(&drop, number))).await));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let url = postgres.url(&format!("round_{round}"));
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client
        .query_one(
            "SELECT count(*), min(late), percentile_cont(0.99) WITHIN GROUP (ORDER BY late)
             FROM (SELECT 1000 * extract(epoch FROM closed_at - expires_at)::float8 AS late
                   FROM reservations WHERE status = 'expired') AS lapsed",
            &[],
        )
        .await
        .unwrap();
    let (count, earliest, p99): (i64, f64, f64) = (rows.get(0), rows.get(1), rows.get(2));
    assert!(usize::try_from(count).unwrap() == HOLDS && earliest >= 0.0, "{count} lapsed, {earliest} ms");
    figures.add("lapse", p99);
}

async fn pages(plan: &Plan, postgres: &Postgres, round: usize, server: &Server, figures: &mut Figures) {
    let database = format!("round_{round}");
    // Whatever was on sale before is over: the page has ten drops.
    postgres
        .run(&database, "UPDATE drops SET ends_at = now() WHERE starts_at < now() - interval '1 ms'")
        .await;
    let people: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
    for person in &people {
        let columns = "id, username, username_key, email, password_hash";
        let values = format!(
            "'{person}', 'buyer_{0}', '{person}', '{person}@bench.example', 'none'",
            &person.to_string()[24..]
        );
        postgres.run(&database, &format!("INSERT INTO users ({columns}) VALUES ({values})")).await;
    }
    let mut http = Http::connect(server.address).await;
    let mut last = String::new();
    for number in 0..10 {
        let drop = server.drop(&[("US 8", 20), ("US 9", 20), ("US 10", 20)], 3_600, 1).await;
        for (place, person) in people.iter().enumerate() {
            let token = token_of(*person);
            let answer = http.ask(&post(Some(&token), &reserve_body(&drop, number))).await;
            let answer: Value = serde_json::from_slice(answer).unwrap();
            if place < 3 {
                let id = &answer["data"]["reserve"]["reservation"]["id"];
                let body = json!({ "query": PURCHASE, "variables": { "input": { "reservationId": id } } })
                    .to_string();
                assert!(succeeded(http.ask(&post(Some(&token), &body)).await));
            }
        }
        last = drop;
    }
    let body = json!({ "query": PAGE, "operationName": "Page", "variables": { "first": 10 } }).to_string();
    let page = http.ask(&post(None, &body)).await.to_vec();
    let shown: Value = serde_json::from_slice(&page).unwrap();
    assert_eq!(shown["data"]["drops"]["nodes"].as_array().unwrap().len(), 10, "{shown}");
    assert_eq!(shown["data"]["drops"]["nodes"][9]["recentBuyers"].as_array().unwrap().len(), 3, "{shown}");
    figures.add("page bytes", page.len() as f64);

    let fixed = Peer::start(&["fixed", &page.len().to_string()]).await;
    let request = post(None, &body);
    let same = || {
        let request = request.clone();
        move |_: usize| Some(request.clone())
    };
    let kept = load::run(server.address, 64, End::After(plan.time), same(), |_: &[u8]| true).await;
    let bytes = load::run(fixed.address, 64, End::After(plan.time), same(), |_: &[u8]| true).await;
    figures.add("pages", kept.per_second());
    figures.add("fixed bytes", bytes.per_second());
    figures.add("pages / bytes", kept.per_second() / bytes.per_second());

    let request = compressed(&request);
    let is_packed = |answer: &[u8]| answer.starts_with(&[0x1f, 0x8b]);
    let packed = http.ask(&request).await.to_vec();
    let fixed = Peer::start(&["fixed", &packed.len().to_string()]).await;
    let same = || {
        let request = request.clone();
        move |_: usize| Some(request.clone())
    };
    let kept = load::run(server.address, 64, End::After(plan.time / 2), same(), is_packed).await;
    let bytes = load::run(fixed.address, 64, End::After(plan.time / 2), same(), |_: &[u8]| true).await;
    figures.add("pages, compressed", kept.per_second());
    figures.add("pages / bytes, compressed", kept.per_second() / bytes.per_second());

    let memory = Peer::start(&["memory"]).await;
    let ours = load::run(server.address, 64, End::After(plan.time), new_pages(), |_: &[u8]| true).await;
    let theirs = load::run(memory.address, 64, End::After(plan.time), new_pages(), |_: &[u8]| true).await;
    figures.add("new pages", ours.per_second());
    figures.add("executed from memory", theirs.per_second());
    figures.add("new pages / memory", ours.per_second() / theirs.per_second());

    beside_new_pages(plan, server, figures).await;
    beside_one_address(plan, postgres, round, figures).await;

    // A drop of which nothing is left, and people who never had any.
    // Over a new connection: the first was silent for longer than the server waits.
    let mut http = Http::connect(server.address).await;
    let gone = server.drop(&[("US 9", 1)], 3_600, 1).await;
    let token = token_of(people[0]);
    let answer: Value =
        serde_json::from_slice(http.ask(&post(Some(&token), &reserve_body(&gone, 0))).await).unwrap();
    let id = &answer["data"]["reserve"]["reservation"]["id"];
    let body = json!({ "query": PURCHASE, "variables": { "input": { "reservationId": id } } }).to_string();
    assert!(succeeded(http.ask(&post(Some(&token), &body)).await), "{last}");
    let requests = requests(&gone, 20_000);
    let late = || {
        let requests = requests.clone();
        move |number: usize| requests.get(number % requests.len()).cloned()
    };
    let is_refused = |answer: &[u8]| memchr(answer, b"SOLD_OUT");
    let refused = load::run(server.address, 64, End::After(plan.time), late(), is_refused).await;
    let nothing = load::run(memory.address, 64, End::After(plan.time), late(), is_refused).await;
    figures.add("sold out", refused.per_second());
    figures.add("mutation without a database", nothing.per_second());
    figures.add("sold out / mutation", refused.per_second() / nothing.per_second());
}

/// The page, each time in words that nobody has used.
fn new_pages() -> impl Fn(usize) -> Option<Bytes> + Send + Sync + 'static {
    let salt = Uuid::now_v7();
    move |number| {
        let query = format!("{PAGE} # {salt} {number}");
        let body = json!({ "query": query, "operationName": "Page", "variables": { "first": 10 } });
        Some(post(None, &body.to_string()))
    }
}

/// Whoever asks dearly takes from others who read, and should not from those who buy.
async fn beside_new_pages(plan: &Plan, server: &Server, figures: &mut Figures) {
    let hot =
        [server.drop(&[("US 9", PAIRS)], 3_600, 1).await, server.drop(&[("US 9", PAIRS)], 3_600, 1).await];
    let alone = reservations(server, &hot[0], 32, plan.time / 2).await.per_second();
    let (beside, _) = tokio::join!(
        reservations(server, &hot[1], 32, plan.time / 2),
        load::run(server.address, 50, End::After(plan.time), new_pages(), |_: &[u8]| true),
    );
    figures.add("reservations, 32 buyers", alone);
    figures.add("reservations, 32 buyers beside 50 who ask for new pages", beside.per_second());
    figures.add("reservations, beside new pages / alone", beside.per_second() / alone);
}

/// The same where all who ask are one client to the server, as it limits them by itself.
async fn beside_one_address(plan: &Plan, postgres: &Postgres, round: usize, figures: &mut Figures) {
    let read_time = Limits::default().read_time_per_address.to_string();
    let settings = [("READ_TIME_PER_ADDRESS", read_time.as_str())];
    let limiting = Server::start(postgres, &format!("limiting_{round}"), &settings).await;
    let hot = [
        limiting.drop(&[("US 9", PAIRS)], 3_600, 1).await,
        limiting.drop(&[("US 9", PAIRS)], 3_600, 1).await,
    ];
    let alone = reservations(&limiting, &hot[0], 32, plan.time / 2).await.per_second();
    let asking =
        async |time| load::run(limiting.address, 50, End::After(time), new_pages(), |_: &[u8]| true).await;
    // What it has at once is ten seconds' worth.
    asking(Duration::from_secs(5)).await;
    let (beside, answers) =
        tokio::join!(reservations(&limiting, &hot[1], 32, plan.time / 2), asking(plan.time / 2));
    figures.add("answers to one address that asks for new pages", answers.per_second());
    figures
        .add("reservations, beside one address that asks for new pages / alone", beside.per_second() / alone);
    limiting.stop().await;
}

async fn watch(plan: &Plan, server: &Server, figures: &mut Figures) {
    const CHANGES: usize = 7;
    // Before and after, for the machine changes meanwhile.
    let alone = async || {
        let drop = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
        reservations(server, &drop, 64, plan.time / 2).await.per_second()
    };
    let before = alone().await;
    // What one update has in bytes, for the bare broadcast.
    let size = "600";
    for count in [1_000, plan.most_watchers] {
        let drop = server.drop(&[("US 9", PAIRS)], 3_600, 1).await;
        let empty = server.memory();
        let watchers = Watchers::of_drop(server.address, count, &drop).await;
        let grown = server.memory().saturating_sub(empty);
        let mut http = Http::connect(server.address).await;
        let mut ours = Vec::new();
        for number in 0..CHANGES {
            // Longer than two updates have to be apart.
            tokio::time::sleep(Duration::from_millis(150)).await;
            let request = post(Some(&token()), &reserve_body(&drop, number));
            let change = async { assert!(succeeded(http.ask(&request).await)) };
            ours.push(watchers.last_hears(change).await);
        }
        let (busy, crowd) = if count == 1_000 {
            (Some(reservations(server, &drop, 64, plan.time).await.per_second()), None)
        } else {
            figures.add("memory per watcher", grown as f64 / 1_024.0 / count as f64);
            let load = reservations(server, &drop, 16, plan.time);
            let (_, rate) = tokio::join!(load, watchers.rate(plan.time));
            (None, Some(rate))
        };
        std::mem::drop(watchers);
        if let Some(busy) = busy {
            let alone = f64::midpoint(before, alone().await);
            figures.add("reservations, 1,000 watching / none", busy / alone);
        }

        let bare = Peer::start(&["broadcast", size]).await;
        let watchers = Watchers::bare(bare.address, count).await;
        let mut http = Http::connect(bare.address).await;
        let mut theirs = Vec::new();
        for _ in 0..CHANGES {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let change = async { drop_answer(http.ask(&post(None, "once")).await) };
            theirs.push(watchers.last_hears(change).await);
        }
        if let Some(crowd) = crowd {
            drop_answer(http.ask(&post(None, "flood")).await);
            let flood = watchers.rate(plan.time).await;
            figures.add("messages", crowd);
            figures.add("messages, bare", flood);
            figures.add("messages / bare", crowd / flood);
        }
        let [ours, theirs] = [ours, theirs].map(median);
        figures.add(if count == 1_000 { "update to 1,000" } else { "update to 10,000" }, ours);
        figures.add(if count == 1_000 { "broadcast to 1,000" } else { "broadcast to 10,000" }, theirs);
        figures.add(
            if count == 1_000 { "update / bare, 1,000" } else { "update / bare, 10,000" },
            ours / theirs,
        );
    }
}

fn drop_answer(_: &[u8]) {}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}
