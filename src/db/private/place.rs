//! Where the private PostgreSQL has its files, and which user it runs as.
//!
//! PostgreSQL refuses to run as root. If root starts this program, PostgreSQL runs as the user `postgres`, in a
//! directory that this user can reach. A checkout below a home directory of mode 700 is not one.

use std::{
    fs,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use aws_lc_rs::digest;
use nix::unistd::{Uid, User};

use super::{PrivateError, Role};
use crate::ids;

/// Directory of the data if the user `postgres` cannot enter `DATA_DIR`.
const FALLBACK: &str = "/var/lib/sneaker-drop";
/// `sun_path` has 108 bytes, one of them for the terminating NUL.
const LONGEST_SOCKET_PATH: usize = 107;
const SOCKET_FILE: &str = ".s.PGSQL.5432";
/// The lock file beside the socket, which names the process.
pub(super) const SOCKET_LOCK: &str = ".s.PGSQL.5432.lock";

/// Another user that PostgreSQL runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The directories, created and reachable.
#[derive(Debug)]
pub(super) struct Place {
    /// `DATA_DIR` in canonical form.
    pub(super) data_dir: PathBuf,
    /// Directory of the cluster, the log and the locks; mode 700.
    pub(super) home: PathBuf,
    /// Directory of the cluster.
    pub(super) data: PathBuf,
    /// Directory of the socket: `home`, unless its path would be too long.
    pub(super) socket_dir: PathBuf,
    /// The user that PostgreSQL runs as, if not our own.
    pub(super) identity: Option<Identity>,
}

/// Finds the directories for the PostgreSQL of `data_dir`, and creates them if `role` may.
pub(super) fn prepare(data_dir: &Path, role: Role) -> Result<Place, PrivateError> {
    let no_data = || PrivateError::NoData(data_dir.to_owned());
    let may_make = role != Role::Visitor;
    if !may_make && !data_dir.exists() {
        return Err(no_data());
    }
    make_dir(data_dir)?;
    let real_dir = fs::canonicalize(data_dir).map_err(|error| PrivateError::io(data_dir, error))?;
    let identity = identity()?;
    let mark = ids::base64(digest::digest(&digest::SHA256, real_dir.as_os_str().as_encoded_bytes()).as_ref());
    let mark = mark.get(..12).unwrap_or(&mark);
    let fallback = identity.filter(|user| !can_enter(&real_dir, *user)).map(|_| Path::new(FALLBACK));
    let home = fallback.map_or_else(|| real_dir.join("postgres"), |fallback| fallback.join(mark));
    let data = home.join("data");
    if !may_make && !data.try_exists().map_err(|error| PrivateError::io(&data, error))? {
        return Err(no_data());
    }
    if let Some(fallback) = fallback {
        make_dir(fallback)?;
        // Others may pass through but not list it: each home in it has mode 700.
        set_mode(fallback, 0o711)?;
        tracing::info!(
            data = %home.display(),
            "PostgreSQL runs as the user postgres, who cannot enter {}: its data is kept elsewhere",
            real_dir.display()
        );
    }
    make_private_dir(&home, identity)?;
    let mut socket_dir = home.clone();
    if socket_dir.as_os_str().len() + 1 + SOCKET_FILE.len() > LONGEST_SOCKET_PATH {
        socket_dir = PathBuf::from(format!("/tmp/sneaker-drop-{mark}"));
        make_private_dir(&socket_dir, identity)?;
    }
    Ok(Place { data_dir: real_dir, home, data, socket_dir, identity })
}

fn identity() -> Result<Option<Identity>, PrivateError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let failed = |why: String| PrivateError::Failed(why);
    let user = User::from_name("postgres")
        .map_err(|error| failed(format!("looking up the user postgres: {error}")))?
        .ok_or_else(|| {
            failed(
                "PostgreSQL refuses to run as root and there is no user postgres: run as another user"
                    .to_owned(),
            )
        })?;
    Ok(Some(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// Returns whether the user can enter the directory, by trying.
fn can_enter(dir: &Path, user: Identity) -> bool {
    Command::new("/bin/sh")
        .args(["-c", "cd \"$1\"", "sh"])
        .arg(dir)
        .current_dir("/")
        .uid(user.uid)
        .gid(user.gid)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Creates a directory if it does not exist.
fn make_dir(path: &Path) -> Result<(), PrivateError> {
    match path.is_dir() {
        true => return Ok(()),
        false if path.exists() => {
            return Err(PrivateError::Failed(format!("{} is not a folder", path.display())));
        }
        false => {}
    }
    let io = |error| PrivateError::io(path, error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
    // The user `postgres` has to pass through to its own directory below.
    if Uid::effective().is_root() { set_mode(path, 0o711) } else { Ok(()) }
}

/// Creates a directory of mode 700 that belongs to `owner`, or to us. An existing one must be like that already: in a
/// shared directory such as `/tmp` somebody else could have created it, to impersonate PostgreSQL.
fn make_private_dir(path: &Path, owner: Option<Identity>) -> Result<(), PrivateError> {
    let io = |error| PrivateError::io(path, error);
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            if let Some(user) = owner {
                chown(path, Some(user.uid), Some(user.gid)).map_err(io)?;
            }
            return Ok(());
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let found = fs::symlink_metadata(path).map_err(io)?;
    let owner = owner.map_or_else(|| Uid::effective().as_raw(), |user| user.uid);
    match found.is_dir() && found.uid() == owner && found.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(PrivateError::Failed(format!(
            "{} is not a folder that belongs to user {owner} alone: remove it",
            path.display()
        ))),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PrivateError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| PrivateError::io(path, error))
}
