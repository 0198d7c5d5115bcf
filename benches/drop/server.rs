//! The program as it ships, on a PostgreSQL of the benchmark's own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use secrecy::ExposeSecret as _;
use sneaker_drop::{
    config::DatabaseConfig,
    db::{
        self, Database,
        private::{PrivatePostgres, Role},
    },
    drops::Drops,
    ids::{DropId, NodeId},
    stock::audit,
    telemetry::Metrics,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use uuid::Uuid;

use crate::{shoe::shoe, token::access_token, watchdog};

const ACCESS: &str = "bench-access-secret-0123456789abcdef";
const REFRESH: &str = "bench-refresh-secret-0123456789abcde";
/// 1 GB of 16 MB each: `max_wal_size` as it ships.
const WAL_FILES: usize = 64;

pub struct Postgres {
    private: PrivatePostgres,
    dir: PathBuf,
    _watchdog: Child,
}

impl Postgres {
    pub async fn start() -> Self {
        let dir = PathBuf::from(format!("/tmp/sneaker-drop-bench-{}", Uuid::now_v7().simple()));
        let at = dir.clone();
        let private = tokio::task::spawn_blocking(move || PrivatePostgres::join(&at, Role::Command));
        let private = private.await.unwrap().unwrap();
        private.ensure_database().await.unwrap();
        let postgres = Self { private, _watchdog: watchdog::watch(&dir), dir };
        postgres.fill_wal().await;
        postgres
    }

    /// Makes PostgreSQL write and recycle its WAL files once, as one that is in use has. A new one has to create a file of
    /// 16 MB each second of a sale, and everybody waits for that.
    async fn fill_wal(&self) {
        let mut connection = AsyncPgConnection::establish(&self.url("postgres")).await.unwrap();
        let mut run = async |statement| diesel::sql_query(statement).execute(&mut connection).await.unwrap();
        run("ALTER SYSTEM SET min_wal_size = '1GB'").await;
        run("SELECT pg_reload_conf()").await;
        for _ in 0..WAL_FILES {
            run("SELECT pg_logical_emit_message(true, '', '')").await;
            run("SELECT pg_switch_wal()").await;
        }
        run("CHECKPOINT").await;
    }

    pub fn url(&self, database: &str) -> String {
        self.private.url().expose_secret().replace("///sneaker_drop", &format!("///{database}"))
    }

    pub async fn create(&self, database: &str) {
        self.run("postgres", &format!("CREATE DATABASE {database}")).await;
    }

    pub async fn run(&self, database: &str, statement: &str) {
        let mut connection = AsyncPgConnection::establish(&self.url(database)).await.unwrap();
        diesel::sql_query(statement).execute(&mut connection).await.unwrap();
    }

    pub async fn stop(self) {
        let Self { private, dir, _watchdog } = self;
        tokio::task::spawn_blocking(move || private.leave()).await.unwrap().unwrap();
        std::fs::remove_dir_all(dir).ok();
    }
}

/// A running server with a database of its own.
pub struct Server {
    child: tokio::process::Child,
    pub address: SocketAddr,
    pub database: Database,
    url: String,
}

impl Server {
    pub async fn start(postgres: &Postgres, name: &str, settings: &[(&str, &str)]) -> Self {
        postgres.create(name).await;
        let url = postgres.url(name);
        db::migrate(&url.clone().into()).await.unwrap();
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_sneaker-drop"))
            .env_clear()
            .current_dir(std::env::temp_dir())
            .envs([
                ("DATABASE_URL", url.as_str()),
                ("PORT", "0"),
                ("LOG_FORMAT", "json"),
                ("JWT_ACCESS_SECRET", ACCESS),
                ("JWT_REFRESH_SECRET", REFRESH),
                ("CONNECTIONS_PER_ADDRESS", "1000000"),
                ("STREAMS_PER_ADDRESS", "1000000"),
                ("READ_TIME_PER_ADDRESS", "100000"),
            ])
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address = address(child.stderr.take().unwrap()).await;
        let settings = DatabaseConfig { url: Some(url.clone().into()), direct_url: None, pool_size: 4 };
        let database = Database::new(&settings, &Metrics::default()).unwrap();
        Self { child, address, database, url }
    }

    /// A live drop; the server knows of it when this returns.
    pub async fn drop(&self, sizes: &[(&str, i32)], hold_seconds: i32, limit: i32) -> String {
        let id = self.create(sizes, hold_seconds, limit).await;
        NodeId::Drop(id).encode()
    }

    /// The same, of which every pair was held before and came back. The server does not know which.
    pub async fn drop_of_pairs_held_before(&self, sizes: &[(&str, i32)], hold_seconds: i32) -> String {
        let id = self.create(sizes, hold_seconds, 1).await;
        let mut connection = AsyncPgConnection::establish(&self.url).await.unwrap();
        let all = format!("UPDATE drop_sizes SET next_pair = total + 1 WHERE drop_id = '{id}'");
        diesel::sql_query(all).execute(&mut connection).await.unwrap();
        NodeId::Drop(id).encode()
    }

    async fn create(&self, sizes: &[(&str, i32)], hold_seconds: i32, limit: i32) -> DropId {
        let new = shoe(sizes, hold_seconds, limit);
        let id = Drops::new(&self.database).create(new).await.unwrap().id;
        tokio::time::sleep(Duration::from_millis(600)).await;
        id
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id().unwrap())).unwrap();
        status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
    }

    /// Ends the server and looks whether the stock law holds.
    pub async fn stop(mut self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().await.unwrap();
        let mut connection = AsyncPgConnection::establish(&self.url).await.unwrap();
        let findings = audit::audit(&mut connection).await.unwrap();
        assert!(findings.is_empty(), "the stock law is broken: {findings:?}");
    }
}

/// Where a program says that it listens.
async fn address(stderr: tokio::process::ChildStderr) -> SocketAddr {
    let mut lines = BufReader::new(stderr).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, rest)) = line.split_once("listening on http://") {
            let address = rest.split(['/', '"']).next().unwrap().parse().unwrap();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return address;
        }
        said.push(line);
    }
    panic!("it ended: {said:?}");
}

/// Another side of a comparison: this program again, in a process of its own.
pub struct Peer {
    _child: tokio::process::Child,
    pub address: SocketAddr,
}

impl Peer {
    pub async fn start(arguments: &[&str]) -> Self {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .arg("--peer")
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address = address(child.stderr.take().unwrap()).await;
        Self { _child: child, address }
    }
}

/// An access token of a buyer whom nobody has met before.
pub fn token() -> String {
    token_of(Uuid::now_v7())
}

pub fn token_of(person: Uuid) -> String {
    access_token(person, ACCESS)
}
