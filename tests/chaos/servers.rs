//! Servers as processes of their own, to be killed.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub const ACCESS: &str = "chaos-access-secret-0123456789abcdef";
const REFRESH: &str = "chaos-refresh-secret-0123456789abcde";
/// Far longer than a start may take; a start that takes longer is a finding.
const READY_WITHIN: Duration = Duration::from_secs(30);

pub struct Server {
    child: tokio::process::Child,
    url: String,
    pub port: u16,
    pub log: PathBuf,
    settings: Vec<(String, String)>,
}

impl Server {
    /// On a port that is free now and stays this server's when it is started again.
    pub async fn start(database_url: &str, log: PathBuf, settings: &[(String, String)]) -> Self {
        let mut server = Self::begin(database_url, log, settings);
        server.ready().await;
        server
    }

    /// Without waiting for it.
    pub fn begin(database_url: &str, log: PathBuf, settings: &[(String, String)]) -> Self {
        let (port, url, settings) = (free_port(), database_url.to_owned(), settings.to_vec());
        Self { child: spawn(&url, port, &log, &settings), url, port, log, settings }
    }

    /// Bytes of memory that it has.
    pub fn resident(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4_096
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().try_into().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until it is ready to serve; returns how long that took.
    pub async fn ready(&mut self) -> Duration {
        let began = Instant::now();
        let url = format!("http://{}/readyz", self.address());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        loop {
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return began.elapsed();
            }
            let ended = self.child.try_wait().unwrap();
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(ended.is_none(), "a server ended by itself: {ended:?}\n{}", log());
            assert!(began.elapsed() < READY_WITHIN, "a server does not get ready:\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Without a word.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn start_again(&mut self) {
        self.child = spawn(&self.url, self.port, &self.log, &self.settings);
    }

    /// As an operator stops it; returns how long that took.
    pub async fn stop(&mut self) -> Duration {
        let began = Instant::now();
        self.signal(Signal::SIGTERM);
        self.child.wait().await.unwrap();
        began.elapsed()
    }
}

/// Below those that the kernel gives to clients: one that connects to a port on which nobody listens may be given that
/// very port for its own end, and then talks to itself.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn spawn(database_url: &str, port: u16, log: &Path, settings: &[(String, String)]) -> tokio::process::Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    tokio::process::Command::new(env!("CARGO_BIN_EXE_sneaker-drop"))
        .env_clear()
        .current_dir(std::env::temp_dir())
        .envs([
            ("DATABASE_URL", database_url),
            ("PORT", &port.to_string()),
            ("LOG_FORMAT", "json"),
            ("JWT_ACCESS_SECRET", ACCESS),
            ("JWT_REFRESH_SECRET", REFRESH),
            // All the world has one address here.
            ("CONNECTIONS_PER_ADDRESS", "1000000"),
            ("READ_TIME_PER_ADDRESS", "100000"),
        ])
        .envs(settings.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
