//! Servers are killed and stopped, and start together.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use diesel_async::RunQueryDsl as _;
use futures_util::future::join_all;
use uuid::Uuid;

use super::{HOLD_SECONDS, PAIRS, Scale, Stage};
use crate::{
    buyers::{Chance, Told, What},
    postgres::Postgres,
    report::{Figure, Report},
    servers::Server,
};

/// Servers are killed, one at a time, while buyers buy.
pub async fn kill(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
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

/// A crowd takes every pair, and no server runs when the holds lapse.
pub async fn backlog(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let pairs = i32::try_from(scale.backlog).unwrap();
    let mut stage = Stage::set(postgres, "backlog", 1, pairs, 3_600).await;
    let taken = Arc::new(AtomicUsize::new(0));
    join_all((0..50_u64).map(|buyer| {
        let (shop, taken, all) = (stage.shop.clone(), taken.clone(), scale.backlog);
        tokio::spawn(async move {
            let mut chance = Chance::new(seed ^ (buyer + 1) << 12);
            while taken.fetch_add(1, Ordering::Relaxed) < all {
                shop.ask(&mut chance, What::Reserve, Uuid::now_v7(), "gone", None).await;
            }
        })
    }))
    .await;
    stage.servers[0].kill().await;
    let mut connection = postgres.connection(&stage.database).await.unwrap();
    let age = "UPDATE reservations SET created_at = created_at - interval '2 hours', expires_at = expires_at - interval '2 hours'";
    let held = diesel::sql_query(age).execute(&mut connection).await.unwrap();
    let began = Instant::now();
    stage.servers[0].start_again();
    stage.servers[0].ready().await;
    let (mut chance, mut wrong) = (Chance::new(seed), Vec::new());
    let told = stage.shop.ask(&mut chance, What::Reserve, Uuid::now_v7(), "next", None).await;
    let served = began.elapsed();
    if held != scale.backlog || !matches!(told, Told::Yes(_)) {
        wrong.push(format!("{held} were held; the next buyer was told {told:?}"));
    }
    let left = "SELECT count(*) AS count FROM reservations WHERE status = 'active'";
    while postgres.count(&stage.database, left).await > 1 {
        assert!(began.elapsed() < Duration::from_secs(60), "the holds do not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let back = began.elapsed();
    let (looks, broken) = stage.leave().await;
    wrong.extend(broken);
    let figures = vec![
        // As long as anybody is waited for.
        Figure::at_most("the next buyer served after", served, Duration::from_secs(8)),
        Figure::told("all back after", format!("{} ms", back.as_millis())),
        Figure::told("looks at the law", looks),
    ];
    report.add(format!("{held} holds of one drop lapse while no server runs"), figures, wrong);
}

/// An operator stops a server while buyers buy.
pub async fn stop(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let mut stage = Stage::set(postgres, "stop", 2, PAIRS, HOLD_SECONDS).await;
    stage.shop = stage.shop.with_new_connections();
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
    let cut = stage.shop.log.cut();
    let (mut figures, wrong) = stage.clear(postgres).await;
    // A matter of time: on a machine that is busy with other things a client may say its first word too late.
    figures.push(Figure::none("requests cut", cut));
    figures.push(Figure::at_most("gone in", slowest, Duration::from_secs(10)));
    report.add(
        format!("one of two servers stopped with SIGTERM, {} times", scale.storms.max(2)),
        figures,
        wrong,
    );
}

/// Servers start together and find nothing.
pub async fn eight(postgres: &Postgres, report: &mut Report) {
    postgres.create("chaos_eight", false).await;
    let began = Instant::now();
    let mut servers: Vec<Server> = (0..8)
        .map(|number| {
            let log = postgres.dir.join(format!("eight-{number}.log"));
            Server::begin(&postgres.url("chaos_eight"), log, &[])
        })
        .collect();
    join_all(servers.iter_mut().map(Server::ready)).await;
    let took = began.elapsed();
    join_all(servers.iter_mut().map(Server::stop)).await;
    let figures = vec![Figure::told("all ready in", format!("{} ms", took.as_millis()))];
    report.add("eight servers start at once on an empty database", figures, Vec::new());
}

/// The clocks of two servers are ten minutes off, one in each direction.
pub async fn clock(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let what = "wall clocks of two servers 10 minutes fast and slow";
    let Some(library) = faketime() else {
        report.add(what, vec![Figure::told("not tried", "libfaketime is not here")], Vec::new());
        return;
    };
    let settings = ["+10m", "-10m"].map(|offset| {
        let library = library.to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD".to_owned(), library),
            ("FAKETIME".to_owned(), offset.to_owned()),
            ("DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
        ]
    });
    let stage = Stage::set_like(postgres, "clock", &settings, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    crowd.leave().await;
    let mut wrong = Vec::new();
    for (server, off) in stage.servers.iter().zip([600_i64, -600]) {
        // Each line of the log begins with the instant.
        let log = fs::read_to_string(&server.log).unwrap();
        let told =
            log.split('"').nth(3).and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok()).unwrap();
        let found = (told.to_utc() - chrono::Utc::now()).num_seconds();
        if (found - off).abs() > 60 {
            wrong.push(format!("a clock is {found} s off instead of {off}: nothing was tried"));
        }
    }
    let database = stage.database.clone();
    let (mut figures, more) = stage.clear(postgres).await;
    wrong.extend(more);
    let others = postgres
        .count(&database, &format!("SELECT count(*) AS count FROM reservations WHERE expires_at - created_at <> interval '{HOLD_SECONDS} s'"))
        .await;
    let expired = postgres
        .count(&database, "SELECT count(*) AS count FROM reservations WHERE status = 'expired'")
        .await;
    if others > 0 || expired == 0 {
        wrong.push(format!("{others} holds of another length, {expired} lapsed"));
    }
    figures.push(Figure::told("lapsed", expired));
    report.add(what, figures, wrong);
}

/// Where Debian's package has it.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|folder| folder.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
}
