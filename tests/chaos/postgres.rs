//! A PostgreSQL that is crashed, frozen and started again.

use std::{fs, path::PathBuf, process::Child, time::Duration};

use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use secrecy::ExposeSecret as _;
use sneaker_drop::db::{
    self,
    private::{PrivatePostgres, Role},
};
use uuid::Uuid;

use crate::watchdog;

pub struct Postgres {
    pub dir: PathBuf,
    /// One for each start; the last to leave stops it.
    started: Vec<PrivatePostgres>,
    _watchdog: Child,
}

impl Postgres {
    pub async fn start() -> Self {
        Self::start_in(PathBuf::from(format!("/tmp/sneaker-drop-chaos-{}", Uuid::now_v7().simple()))).await
    }

    pub async fn start_in(dir: PathBuf) -> Self {
        let mut postgres = Self { _watchdog: watchdog::watch(&dir), dir, started: Vec::new() };
        postgres.start_again().await;
        postgres.started[0].ensure_database().await.unwrap();
        postgres
    }

    pub async fn start_again(&mut self) {
        let dir = self.dir.clone();
        let started = tokio::task::spawn_blocking(move || PrivatePostgres::join(&dir, Role::Command));
        self.started.push(started.await.unwrap().unwrap());
    }

    pub fn socket_dir(&self) -> PathBuf {
        let url = url::Url::parse(self.started[0].url().expose_secret()).unwrap();
        url.query_pairs().find(|(name, _)| name == "host").unwrap().1.into_owned().into()
    }

    /// Straight to it, past every proxy.
    pub fn url(&self, database: &str) -> String {
        self.started[0].url().expose_secret().replace("///sneaker_drop", &format!("///{database}"))
    }

    pub async fn connection(&self, database: &str) -> Option<AsyncPgConnection> {
        AsyncPgConnection::establish(&self.url(database)).await.ok()
    }

    /// A database of its own, with this version's schema where `is_migrated`.
    pub async fn create(&self, database: &str, is_migrated: bool) {
        let mut connection = self.connection("postgres").await.unwrap();
        let create = format!("CREATE DATABASE {database}");
        diesel::sql_query(create).execute(&mut connection).await.unwrap();
        if is_migrated {
            db::migrate(&self.url(database).into()).await.unwrap();
        }
    }

    /// Every process at once, without a word to anyone; what is in memory and not in the log is lost.
    pub async fn crash(&self) {
        let postmaster = self.postmaster();
        kill(postmaster, Signal::SIGQUIT).unwrap();
        while kill(postmaster, None).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops all of its processes, or lets them go on. They hold their locks and their connections meanwhile.
    pub fn freeze(&self, signal: Signal) {
        let postmaster = self.postmaster();
        let children = processes().into_iter().filter(|(_, parent)| *parent == postmaster.as_raw());
        for (child, _) in children {
            kill(Pid::from_raw(child), signal).ok();
        }
        kill(postmaster, signal).unwrap();
    }

    /// Whether it is there. It may be about to end.
    pub fn runs(&self) -> bool {
        let data = self.socket_dir().join("data/postmaster.pid");
        data.exists() && kill(self.postmaster(), None).is_ok()
    }

    /// What a statement counts.
    pub async fn count(&self, database: &str, select: &str) -> i64 {
        #[derive(diesel::QueryableByName)]
        struct Count {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            count: i64,
        }
        let mut connection = self.connection(database).await.unwrap();
        let row: Count = diesel::sql_query(select).get_result(&mut connection).await.unwrap();
        row.count
    }

    fn postmaster(&self) -> Pid {
        let data = self.socket_dir().join("data/postmaster.pid");
        let text = fs::read_to_string(&data).unwrap();
        Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap())
    }

    pub async fn stop(self) {
        let Self { dir, started, _watchdog } = self;
        tokio::task::spawn_blocking(move || started.into_iter().try_for_each(PrivatePostgres::leave))
            .await
            .unwrap()
            .unwrap();
        fs::remove_dir_all(dir).ok();
    }
}

/// Every process with its parent.
fn processes() -> Vec<(i32, i32)> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let process = |entry: fs::DirEntry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        // After the name, which may have anything in it, and the state.
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        Some((process, parent))
    };
    all.filter_map(process).collect()
}
