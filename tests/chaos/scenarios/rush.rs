//! Many buyers at once, and one buyer many times.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use diesel_async::RunQueryDsl as _;
use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use super::{PAIRS, Scale, Stage};
use crate::{
    buyers::{Chance, Told, What},
    postgres::Postgres,
    report::{Figure, Report},
};

/// Everybody at once, through two servers.
pub async fn crowd(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
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
pub async fn race(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
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

/// One buyer wants a hundred pairs at once, and then buys the one they got a hundred times at once.
pub async fn one_buyer(postgres: &Postgres, seed: u64, report: &mut Report) {
    const TIMES: u64 = 100;
    let stage = Stage::set(postgres, "one_buyer", 2, 200, 60).await;
    let (shop, user) = (&stage.shop, Uuid::now_v7());
    let at_once = async |what: What, hold: Option<String>| {
        join_all((0..TIMES).map(|number| {
            let (shop, hold) = (shop.clone(), hold.clone());
            tokio::spawn(async move {
                let mut chance = Chance::new(seed ^ (number + 1) << 24);
                shop.ask(&mut chance, what, user, &format!("click-{number}"), hold.as_deref()).await
            })
        }))
        .await
    };
    // Sixty reserves a minute are the limit of a buyer; the rest is told to come back, and does.
    let told: Vec<Told> = at_once(What::Reserve, None).await.into_iter().map(Result::unwrap).collect();
    let held: Vec<&String> = told.iter().filter_map(Told::yes).collect();
    let limited = told.iter().filter(|told| **told == Told::No("LIMIT_REACHED".to_owned())).count();
    let mut wrong = Vec::new();
    if (held.len(), limited) != (1, told.len() - 1) {
        wrong.push(format!("{} holds, {limited} at the limit, of {}", held.len(), told.len()));
    }
    let bought = at_once(What::Purchase, held.iter().copied().next().cloned()).await;
    let bought: HashSet<Told> = bought.into_iter().map(Result::unwrap).collect();
    if bought.len() != 1 || !bought.iter().all(|told| told.yes().is_some()) {
        wrong.push(format!("one hold bought {TIMES} times is {bought:?}"));
    }
    let (mut figures, more) = stage.clear(postgres).await;
    wrong.extend(more);
    figures.push(Figure::told("told the limit", limited));
    report.add(
        format!("one buyer {TIMES} times at once, one hold bought {TIMES} times at once"),
        figures,
        wrong,
    );
}

/// The answer to a reserve is lost, with the server that had it in half of the cases; then its retries come, several at
/// once, of both servers.
pub async fn retries(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let mut stage = Stage::set(postgres, "retries", 2, PAIRS, 60).await;
    let mut chance = Chance::new(seed);
    let mut wrong = Vec::new();
    let mut after_a_restart = 0;
    let rounds = scale.kills;
    for round in 0..rounds {
        let (user, key) = (Uuid::now_v7(), format!("click-{round}"));
        let first = {
            let (shop, key) = (stage.shop.clone(), key.clone());
            tokio::spawn(async move {
                let input = json!({ "dropId": shop.drop, "idempotencyKey": key });
                let query = "mutation($input: ReserveInput!) { reserve(input: $input) { serverTime } }";
                shop.once(0, user, query, &input).await
            })
        };
        // Somewhere between its way there and its way back.
        tokio::time::sleep(Duration::from_micros(chance.below(6_000))).await;
        first.abort();
        if round % 2 == 0 {
            stage.servers[0].kill().await;
            stage.servers[0].start_again();
            stage.servers[0].ready().await;
            after_a_restart += 1;
        }
        let told = join_all((0..5).map(|number| {
            let (shop, key) = (stage.shop.clone(), key.clone());
            let mut chance = Chance::new(seed ^ (number + 1) << 28);
            tokio::spawn(async move { shop.ask(&mut chance, What::Reserve, user, &key, None).await })
        }))
        .await;
        let told: HashSet<Told> = told.into_iter().map(Result::unwrap).collect();
        if told.len() != 1 || told.iter().any(|told| told.yes().is_none()) {
            wrong.push(format!("the retries of one reserve were told {told:?}"));
        }
        let input = json!({ "dropId": stage.shop.drop, "idempotencyKey": key, "size": "another" });
        let query = "mutation($input: ReserveInput!) { reserve(input: $input) { userErrors { code } } }";
        let other = stage.shop.once(1, user, query, &input).await.unwrap_or_default();
        if other["reserve"]["userErrors"][0]["code"] != "IDEMPOTENCY_KEY_REUSED" {
            wrong.push(format!("a key with other arguments: {other}"));
        }
    }
    let (mut figures, more) = stage.clear_now(postgres).await;
    wrong.extend(more);
    figures.push(Figure::told("after a restart", after_a_restart));
    report.add(format!("{rounds} answers lost, five retries of each at once"), figures, wrong);
}

/// A crowd takes pairs and goes away.
pub async fn lapse(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let pairs = i32::try_from(scale.lapsing).unwrap();
    let stage = Stage::set(postgres, "lapse", 2, pairs, 8).await;
    let shop = &stage.shop;
    let each = scale.lapsing / 50;
    join_all((0..50).map(|buyer| {
        let shop = shop.clone();
        tokio::spawn(async move {
            let mut chance = Chance::new(seed ^ (buyer as u64 + 1) << 12);
            for _ in 0..each {
                shop.ask(&mut chance, What::Reserve, Uuid::now_v7(), "gone", None).await;
            }
        })
    }))
    .await;
    let database = stage.database.clone();
    let (mut figures, mut wrong) = stage.clear(postgres).await;
    let mut connection = postgres.connection(&database).await.unwrap();
    let late = "SELECT count(*) AS count, coalesce(min(late), 0) AS least,
                       coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY late), 0) AS p99
                FROM (SELECT 1000 * extract(epoch FROM closed_at - expires_at)::float8 AS late
                      FROM reservations WHERE status = 'expired') AS lapsed";
    let late: Late = diesel::sql_query(late).get_result(&mut connection).await.unwrap();
    if late.least < 0.0 || late.count != i64::try_from(each * 50).unwrap() {
        wrong.push(format!("{} holds lapsed, one {} ms after its deadline", late.count, late.least));
    }
    figures.push(Figure::at_most(
        "taken back after the deadline, p99",
        milliseconds(late.p99),
        Duration::from_millis(50),
    ));
    report.add(format!("{} holds lapse", late.count), figures, wrong);
}

#[derive(diesel::QueryableByName)]
struct Late {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
    #[diesel(sql_type = diesel::sql_types::Double)]
    least: f64,
    #[diesel(sql_type = diesel::sql_types::Double)]
    p99: f64,
}

fn milliseconds(some: f64) -> Duration {
    Duration::from_secs_f64((some / 1_000.0).max(0.0))
}
