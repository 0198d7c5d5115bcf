//! A PostgreSQL of our own for a machine on which nothing was set up: found, initialised, started, stopped.
//!
//! It listens on a Unix socket only, in a folder that nobody else may enter, and syncs every commit to disk like
//! any other. Whoever uses it holds a lock on `users.lock`, shared; the last to leave stops it. A process that is
//! killed leaves it running, and the next one finds it so.

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

/// The private PostgreSQL could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// No PostgreSQL on this machine.
    #[error(
        "no PostgreSQL was found. Install it (Debian: apt-get install postgresql; macOS: brew install postgresql), \
         set PG_BIN to the folder of its programs, or set DATABASE_URL to a database that exists"
    )]
    NotInstalled,
    /// There is nothing that a visitor could look at.
    #[error("there is no data in {0}: set DATA_DIR or DATABASE_URL, or start the server first")]
    NoData(PathBuf),
    /// Another server works on the same data.
    #[error("another server already uses {0}: stop it, or set DATA_DIR to another folder")]
    InUse(PathBuf),
    /// The programs are there but did not do their work.
    #[error("{0}")]
    Failed(String),
    /// A folder or file is not to be had.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl PrivateError {
    fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// How often it is looked whether PostgreSQL is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two starts, where it is gone again each time.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// One that is still stopping or starting when it is joined answers by then.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running private PostgreSQL that this process uses. [`leave`](Self::leave) it when its pool is closed.
#[derive(Debug)]
pub struct PrivatePostgres {
    used: Arc<Used>,
    /// Held by a server, not by a command that joins one.
    _server: Option<File>,
}

#[derive(Debug)]
struct Used {
    cluster: Cluster,
    /// The lock of whoever uses it; `None` once it was left, and nothing may start it any more.
    users: Mutex<Option<File>>,
}

/// Whether the caller is a server, of which a folder has one, or a command, of which it has any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes what is not there, and is the only server.
    Server,
    /// Makes what is not there.
    Command,
    /// Has nothing to do where there is no data, and makes nothing.
    Visitor,
}

impl PrivatePostgres {
    /// Joins the PostgreSQL of `data_dir`: makes it where it is not there and `role` may, and starts it where needed. Blocks for some seconds the first
    /// time; run it off the async threads.
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

    /// Where to connect.
    pub fn url(&self) -> SecretString {
        self.used.cluster.url(cluster::DATABASE).into()
    }

    /// How a person gets in.
    pub fn psql(&self) -> String {
        format!("psql '{}'", self.used.cluster.url(cluster::DATABASE))
    }

    /// Makes the database where it is not there yet. Blocks no thread.
    ///
    /// # Errors
    /// `Failed` with PostgreSQL's complaint.
    pub async fn ensure_database(&self) -> Result<(), PrivateError> {
        let began = Instant::now();
        loop {
            match self.used.cluster.ensure_database().await {
                // One that was told to stop, or is still starting, when it was joined.
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

    /// Starts PostgreSQL again whenever it is gone: somebody has killed it, or the machine ran out of memory.
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
    /// `Failed` when it does not stop.
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

/// Starting and stopping are decided under one lock, or a starter would meet a stopper half-way.
fn decide(home: &Path) -> Result<File, PrivateError> {
    let decision = open_lock(&home.join("start.lock"))?;
    decision.lock().map_err(|error| PrivateError::io(home, error))?;
    Ok(decision)
}

/// Whether PostgreSQL's complaint passes by itself. It speaks English here: its programs are run with `LC_ALL=C`.
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
