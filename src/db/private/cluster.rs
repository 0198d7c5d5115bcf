//! The cluster itself, managed with PostgreSQL's `initdb` and `pg_ctl`.

use std::{
    fs::{self, File, Permissions},
    io::ErrorKind,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use diesel_async::RunQueryDsl as _;
use nix::{
    errno::Errno,
    sys::{
        signal::kill,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use super::{
    PrivateError,
    place::{Place, SOCKET_LOCK},
};
use crate::db::Connector;

/// The name of the database, and of its owner.
pub(super) const DATABASE: &str = "sneaker_drop";

/// Seconds that a start may take, crash recovery included.
const START_SECONDS: &str = "60";

/// Seconds that a fast shutdown may take, its checkpoint included.
const STOP_SECONDS: &str = "20";
/// Seconds that an immediate shutdown may take.
const ABORT_SECONDS: &str = "3";

#[derive(Debug)]
pub(super) struct Cluster {
    place: Place,
    bin: PathBuf,
}

impl Cluster {
    /// Finds PostgreSQL's programs, and creates the cluster if there is none.
    pub(super) fn open(place: Place) -> Result<Self, PrivateError> {
        let made_by =
            fs::read_to_string(place.data.join("PG_VERSION")).ok().map(|text| text.trim().to_owned());
        let bin = find_binaries(made_by.as_deref())?;
        let cluster = Self { place, bin };
        if made_by.is_none() {
            cluster.init()?;
        }
        Ok(cluster)
    }

    pub(super) fn home(&self) -> &Path {
        &self.place.home
    }

    pub(super) fn url(&self, database: &str) -> String {
        let socket_dir =
            url::form_urlencoded::byte_serialize(self.place.socket_dir.as_os_str().as_encoded_bytes());
        format!(
            "postgres:///{database}?host={}&user={DATABASE}",
            socket_dir.collect::<String>().replace('+', "%20")
        )
    }

    /// Creates the cluster under another name and renames it, so that a killed `initdb` leaves no partial cluster
    /// behind.
    fn init(&self) -> Result<(), PrivateError> {
        let unfinished = self.place.home.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(|error| PrivateError::io(&unfinished, error))?;
        }
        tracing::info!(data = %self.place.data.display(), "creating the private PostgreSQL, once");
        let mut initdb = self.command("initdb");
        initdb.arg("--pgdata").arg(&unfinished).args([
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--auth-local=trust",
            "--auth-host=reject",
            "--username",
            DATABASE,
        ]);
        run(initdb)?;
        let conf = unfinished.join("postgresql.conf");
        let text = fs::read_to_string(&conf).map_err(|error| PrivateError::io(&conf, error))?;
        fs::write(&conf, text + "\ninclude '../sneaker-drop.conf'\n")
            .map_err(|error| PrivateError::io(&conf, error))?;
        fs::rename(&unfinished, &self.place.data).map_err(|error| PrivateError::io(&self.place.data, error))
    }

    /// Returns whether the process in `postmaster.pid` may be alive; `false` only if it is certainly dead. A process
    /// that has got the same pid since counts as PostgreSQL, as it does for `pg_ctl`.
    pub(super) fn is_alive(&self) -> bool {
        let file = match fs::read_to_string(self.pid_file()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            // The open-file limit may be reached, for example.
            Err(_) => return true,
            Ok(file) => file,
        };
        let Some(pid) = pid_in(&file) else { return true };
        // If this program is PID 1 of a container, it is the parent and has to reap the process.
        let _asked = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        // A process of another user is alive too.
        kill(pid, None) != Err(Errno::ESRCH) && !is_zombie(pid)
    }

    fn pid_file(&self) -> PathBuf {
        self.place.data.join("postmaster.pid")
    }

    /// Starts PostgreSQL if it does not run, and waits until it answers. After a server was killed it still runs.
    pub(super) fn ensure_running(&self) -> Result<(), PrivateError> {
        self.start("--wait")
    }

    /// Starts PostgreSQL without waiting: crash recovery may take long.
    pub(super) fn begin_to_run(&self) -> Result<(), PrivateError> {
        self.start("--no-wait")
    }

    fn start(&self, wait: &str) -> Result<(), PrivateError> {
        // A zombie looks alive to PostgreSQL's programs.
        let file = fs::read_to_string(self.pid_file()).unwrap_or_default();
        if pid_in(&file).is_some_and(is_zombie) {
            for file in [self.place.socket_dir.join(SOCKET_LOCK), self.pid_file()] {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(PrivateError::io(&file, error));
                    }
                    _ => {}
                }
            }
        }
        let mut status = self.command("pg_ctl");
        status
            .arg("status")
            .arg("--pgdata")
            .arg(&self.place.data)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if status.status().map_err(|error| PrivateError::io(&self.bin, error))?.success() {
            return Ok(());
        }
        let conf = self.place.home.join("sneaker-drop.conf");
        let socket_dir = self.place.socket_dir.display().to_string().replace('\'', "''");
        // Escaped: a line break in the path would start a setting.
        let data_dir = &self.place.data_dir;
        let settings = format!(
            "# Written at each start, for DATA_DIR={data_dir:?}.\nlisten_addresses = ''\nport = 5432\nunix_socket_directories = '{socket_dir}'\n\
             unix_socket_permissions = 0700\nmax_connections = 600\n"
        );
        // Readable by PostgreSQL's user whatever our umask; nobody else can enter the directory.
        fs::write(&conf, settings)
            .and_then(|()| fs::set_permissions(&conf, Permissions::from_mode(0o644)))
            .map_err(|error| PrivateError::io(&conf, error))?;
        let log = self.place.home.join("postgres.log");
        let mut start = self.command("pg_ctl");
        start.args(["start", wait, "--silent", "--timeout", START_SECONDS, "--pgdata"]);
        start.arg(&self.place.data).arg("--log").arg(&log);
        // Not captured: PostgreSQL would keep the pipe open for as long as it runs.
        start.stdout(Stdio::null()).stderr(Stdio::null());
        let status = start.status().map_err(|error| PrivateError::io(&self.bin, error))?;
        if status.success() {
            return Ok(());
        }
        let tail = fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = tail.lines().rev().take(5).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        Err(PrivateError::Failed(format!(
            "the private PostgreSQL does not start; {} ends:\n  {tail}",
            log.display()
        )))
    }

    /// Stops PostgreSQL by a fast shutdown or, if that takes too long, an immediate one, which loses nothing that was
    /// committed.
    pub(super) fn stop(&self) -> Result<(), PrivateError> {
        let mut stopped = Ok(());
        for (mode, seconds) in [("fast", STOP_SECONDS), ("immediate", ABORT_SECONDS)] {
            if !self.is_alive() {
                return Ok(());
            }
            let mut stop = self.command("pg_ctl");
            stop.args(["stop", "--wait", "--timeout", seconds, "--mode", mode, "--pgdata"])
                .arg(&self.place.data);
            stopped = run(stop);
        }
        if self.is_alive() { stopped } else { Ok(()) }
    }

    pub(super) async fn ensure_database(&self) -> Result<(), PrivateError> {
        let failed =
            |error: &dyn std::fmt::Display| PrivateError::Failed(format!("private PostgreSQL: {error}"));
        let connector = Connector::new(&self.url("postgres").into()).map_err(|error| failed(&error))?;
        let mut connection = connector.connect().await.map_err(|error| failed(&error))?;
        let there = diesel::sql_query(format!("SELECT FROM pg_database WHERE datname = '{DATABASE}'"));
        if there.execute(&mut connection).await.map_err(|error| failed(&error))? == 1 {
            return Ok(());
        }
        match diesel::sql_query(format!("CREATE DATABASE {DATABASE}")).execute(&mut connection).await {
            Ok(_) => Ok(()),
            // Another command was faster.
            Err(diesel::result::Error::DatabaseError(
                diesel::result::DatabaseErrorKind::UniqueViolation,
                _,
            )) => Ok(()),
            Err(error) if error.to_string().contains("already exists") => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Returns a command for one of PostgreSQL's programs, run as the right user and in a process group of its own:
    /// Ctrl-C at the terminal must reach only the server, which stops PostgreSQL after it has closed its pool.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(&self.place.home).env("LC_ALL", "C").process_group(0).stdin(Stdio::null());
        if let Some(user) = self.place.identity {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

/// Returns the pid in the first line of `postmaster.pid`.
fn pid_in(file: &str) -> Option<Pid> {
    file.lines().next()?.trim().parse().ok().map(Pid::from_raw)
}

/// Returns whether the process is a zombie; `false` where the system does not say.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the program's name, which may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X']))
}

/// Runs a command to its end; the error has its stderr.
fn run(mut command: Command) -> Result<(), PrivateError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| PrivateError::io(Path::new(&program), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(PrivateError::Failed(format!("{program} failed ({}): {}", output.status, said.trim())))
}

/// Returns the directory of PostgreSQL's programs, in the version that created the cluster if there is one.
fn find_binaries(made_by: Option<&str>) -> Result<PathBuf, PrivateError> {
    if let Some(dir) = std::env::var_os("PG_BIN").map(PathBuf::from) {
        return match major_version(&dir) {
            Some(_) => Ok(dir),
            None => Err(PrivateError::Failed(format!("PG_BIN: {} has no PostgreSQL in it", dir.display()))),
        };
    }
    let candidates = candidates();
    let found = candidates.iter().find(|(_, version)| made_by.is_none_or(|made_by| made_by == version));
    match (found, made_by) {
        (Some((dir, _)), _) => Ok(dir.clone()),
        (None, Some(made_by)) if !candidates.is_empty() => Err(PrivateError::Failed(format!(
            "the data was made by PostgreSQL {made_by}, which is not installed: install it, or set DATA_DIR to \
             another folder to start afresh"
        ))),
        (None, _) => Err(PrivateError::NotInstalled),
    }
}

/// Returns the directories that contain PostgreSQL, each with its major version, in order of preference.
fn candidates() -> Vec<(PathBuf, String)> {
    let mut dirs = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    // Debian keeps the server's programs off PATH, in one directory per version.
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = debian.map(|entry| entry.path().join("bin")).collect();
    versions.sort_by_key(|dir| {
        std::cmp::Reverse(major_version(dir).and_then(|version| version.parse::<u32>().ok()))
    });
    dirs.extend(versions);
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    dirs.into_iter().filter_map(|dir| major_version(&dir).map(|version| (dir, version))).collect()
}

/// Returns the major version of the PostgreSQL in `dir`, if both required programs are there.
fn major_version(dir: &Path) -> Option<String> {
    File::open(dir.join("initdb")).ok()?;
    let output = Command::new(dir.join("pg_ctl")).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().rsplit(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next().map(str::to_owned)
}
