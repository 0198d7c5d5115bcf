//! A private PostgreSQL for a machine without a database: found, initialised, started and stopped by this program.
//!
//! It listens only on a Unix socket, in a directory that nobody else may enter, and syncs every commit to disk. Each
//! process that uses it holds a shared lock on `users.lock`; the last to leave stops it. A killed process leaves it
//! running, and the next one reuses it.

mod cluster;
mod place;

use std::{
    convert::Infallible,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use tokio::time::Instant;

use cluster::Cluster;

/// A failure of the private PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// PostgreSQL is not installed.
    #[error(
        "no PostgreSQL was found. Install it (Debian: apt-get install postgresql; macOS: brew install postgresql), \
         set PG_BIN to the folder of its programs, or set DATABASE_URL to a database that exists"
    )]
    NotInstalled,
    /// There is no data for a [`Role::Visitor`].
    #[error("there is no data in {0}: set DATA_DIR or DATABASE_URL, or start the server first")]
    NoData(PathBuf),
    /// Another server uses the same data.
    #[error("another server already uses {0}: stop it, or set DATA_DIR to another folder")]
    InUse(PathBuf),
    /// One of PostgreSQL's programs failed.
    #[error("{0}")]
    Failed(String),
    /// A directory or file cannot be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl PrivateError {
    fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// How often to check that PostgreSQL is alive.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait between two restarts, if it dies each time.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a PostgreSQL that is still stopping or starting may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running private PostgreSQL that this process uses. Call [`leave`](Self::leave) once its pool is closed.
#[derive(Debug)]
pub struct PrivatePostgres {
    used: Arc<Used>,
    /// Held by a server, but not by a command.
    _server: Option<File>,
}

#[derive(Debug)]
struct Used {
    cluster: Cluster,
    /// The shared lock on `users.lock`; `None` after [`leave`](PrivatePostgres::leave), when PostgreSQL must not be
    /// started any more.
    users: Mutex<Option<File>>,
}

/// The role of a caller. A directory has one server and any number of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Creates what is missing, and is the only server.
    Server,
    /// Creates what is missing.
    Command,
    /// Creates nothing, and fails if there is no data.
    Visitor,
}

impl PrivatePostgres {
    /// Joins the PostgreSQL of `data_dir`: creates it if it is missing and `role` may, and starts it if necessary.
    /// Blocks for some seconds the first time, so it must run off the async threads.
    ///
    /// # Errors
    /// Each one says what to do about it.
    pub fn join(data_dir: &Path, role: Role) -> Result<Self, PrivateError> {
        let place = place::prepare(data_dir, role)?;
        let server = match role {
            Role::Server => Some(sole_lock(&place.home.join("server.lock"), data_dir)?),
            Role::Command | Role::Visitor => None,
        };
        let _decision = decide(&place.home)?;
        let cluster = Cluster::open(place)?;
        let users = open_lock(&cluster.home().join("users.lock"))?;
        cluster.ensure_running()?;
        users.lock_shared().map_err(|error| PrivateError::io(cluster.home(), error))?;
        let used = Used { cluster, users: Mutex::new(Some(users)) };
        Ok(Self { used: Arc::new(used), _server: server })
    }

    /// Returns the URL to connect to.
    pub fn url(&self) -> SecretString {
        self.used.cluster.url(cluster::DATABASE).into()
    }

    /// Returns the shell command with which a person connects.
    pub fn psql(&self) -> String {
        format!("psql '{}'", self.used.cluster.url(cluster::DATABASE))
    }

    /// Creates the database if it is missing. Blocks no thread.
    ///
    /// # Errors
    /// `Failed` with PostgreSQL's error.
    pub async fn ensure_database(&self) -> Result<(), PrivateError> {
        let began = Instant::now();
        loop {
            match self.used.cluster.ensure_database().await {
                // It was still stopping or starting when it was joined.
                Err(PrivateError::Failed(why)) if began.elapsed() < READY_WITHIN && passes(&why) => {}
                done => return done,
            }
            tokio::time::sleep(LOOK_EVERY / 4).await;
            if !self.used.cluster.is_alive() {
                self.start_again().await?;
            }
        }
    }

    async fn start_again(&self) -> Result<(), PrivateError> {
        let used = self.used.clone();
        match tokio::task::spawn_blocking(move || used.start_again()).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Restarts PostgreSQL whenever it has died, because it was killed or the machine ran out of memory, for example.
    pub async fn keep_up(&self) -> Infallible {
        let (mut wait, mut next_try) = (LOOK_EVERY, Instant::now());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.used.cluster.is_alive() {
                (wait, next_try) = (LOOK_EVERY, Instant::now());
                continue;
            }
            if Instant::now() < next_try {
                continue;
            }
            wait = (2 * wait).min(LONGEST_WAIT);
            next_try = Instant::now() + wait;
            match self.start_again().await {
                Ok(()) => {
                    tracing::warn!("the private PostgreSQL is gone; starting it again, see postgres.log")
                }
                Err(error) => tracing::error!(%error, "the private PostgreSQL is gone"),
            }
        }
    }

    /// Stops PostgreSQL unless another process uses it. Blocks until it has stopped.
    ///
    /// # Errors
    /// `Failed` if it does not stop.
    pub fn leave(self) -> Result<(), PrivateError> {
        let Used { cluster, users } = &*self.used;
        let Some(users) = users.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        let _decision = decide(cluster.home())?;
        let io = |error| PrivateError::io(cluster.home(), error);
        users.unlock().map_err(io)?;
        match users.try_lock() {
            Ok(()) => cluster.stop(),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

impl Used {
    fn start_again(&self) -> Result<(), PrivateError> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.is_none() {
            return Ok(());
        }
        let _decision = decide(self.cluster.home())?;
        self.cluster.begin_to_run()
    }
}

/// Takes the lock under which PostgreSQL is started and stopped, so that the two cannot overlap.
fn decide(home: &Path) -> Result<File, PrivateError> {
    let decision = open_lock(&home.join("start.lock"))?;
    decision.lock().map_err(|error| PrivateError::io(home, error))?;
    Ok(decision)
}

/// Returns whether PostgreSQL's error is transient. Its text is in English, because its programs run with `LC_ALL=C`.
fn passes(why: &str) -> bool {
    ["the database system is", "refused", "No such file"].iter().any(|passing| why.contains(passing))
}

fn open_lock(path: &Path) -> Result<File, PrivateError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| PrivateError::io(path, error))
}

fn sole_lock(path: &Path, data_dir: &Path) -> Result<File, PrivateError> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PrivateError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(PrivateError::io(path, error)),
    }
}
