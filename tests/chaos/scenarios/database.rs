//! PostgreSQL and the way to it fail.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use diesel_async::RunQueryDsl as _;
use nix::sys::signal::Signal;
use serde_json::Value;
use uuid::Uuid;

use super::{HOLD_SECONDS, PAIRS, Scale, Stage};
use crate::{
    buyers::Chance,
    postgres::Postgres,
    proxy::Weather,
    report::{Figure, Report},
};

/// The network between one of two servers and PostgreSQL fails in every way.
pub async fn storm(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
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

/// PostgreSQL takes no writes for a while, as a standby does before it is promoted.
pub async fn read_only(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
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
pub async fn crash(postgres: &mut Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set(postgres, "crash", 2, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    let mut chance = Chance::new(seed);
    let mut back = Vec::new();
    for _ in 0..scale.crashes {
        tokio::time::sleep(Duration::from_millis(300 + chance.below(400))).await;
        postgres.crash().await;
        tokio::time::sleep(Duration::from_millis(chance.below(1_500))).await;
        postgres.start_again().await;
        back.push(serve_again(&stage).await);
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
pub async fn freeze(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
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

/// At least.
const FULL_FOR: Duration = Duration::from_millis(4_500);

/// The disk of PostgreSQL is full for a while. It gets one of its own, of memory, which takes the right to mount.
pub async fn full_disk(scale: &Scale, seed: u64, report: &mut Report) {
    let rounds = scale.storms.min(5);
    let what = format!("PostgreSQL's disk is full for 4.5 s, {rounds} times");
    let dir = Path::new("/tmp").join(format!("sneaker-drop-chaos-disk-{}", Uuid::now_v7().simple()));
    fs::create_dir(&dir).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m", "none"]).arg(&dir).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        fs::remove_dir(&dir).ok();
        report.add(what, vec![Figure::told("not tried", "no right to mount a disk")], Vec::new());
        return;
    }
    let mut postgres = Postgres::start_in(dir.join("postgres")).await;
    let stage = Stage::set(&postgres, "full", 2, PAIRS, HOLD_SECONDS).await;
    let crowd = stage.shop.open(scale.buyers, seed);
    let (mut back, mut refused) = (Vec::new(), 0);
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let before = stage.shop.log.indefinite();
        fill(&dir.join("ballast"));
        // Longer than a batch is tried again, and until a buyer notices: PostgreSQL writes for a while where it has room.
        let began = Instant::now();
        let is_noticed = || stage.shop.log.indefinite() > before;
        while began.elapsed() < FULL_FOR || (!is_noticed() && began.elapsed() < 4 * FULL_FOR) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fs::remove_file(dir.join("ballast")).unwrap();
        refused += stage.shop.log.indefinite() - before;
        // Where it could not write its log it has given up, and cannot start again by itself while the disk is full.
        if !postgres.runs() {
            postgres.start_again().await;
        }
        back.push(serve_again(&stage).await);
    }
    crowd.leave().await;
    let slowest = stage.shop.log.slowest();
    let (mut figures, mut wrong) = stage.clear(&postgres).await;
    if refused == 0 {
        wrong.push("nobody noticed the full disk: nothing was tried".to_owned());
    }
    figures.push(Figure::told("tries refused meanwhile", refused));
    figures.push(Figure::at_most("slowest answer", slowest, Duration::from_secs(4)));
    let slowest = back.into_iter().max().unwrap_or_default();
    figures.push(Figure::at_most("both serve again after", slowest, Duration::from_secs(2)));
    report.add(what, figures, wrong);
    postgres.stop().await;
    assert!(Command::new("umount").arg(&dir).status().unwrap().success());
    fs::remove_dir(&dir).unwrap();
}

/// Waits until every server has the database's clock; returns how long that took.
async fn serve_again(stage: &Stage) -> Duration {
    let began = Instant::now();
    for server in 0..stage.servers.len() {
        while stage.shop.once(server, Uuid::now_v7(), "{ serverTime }", &Value::Null).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    began.elapsed()
}

/// Writes until nothing fits any more.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    let mut piece = vec![0; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}
