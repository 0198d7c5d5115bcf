//! Generated secrets, for a server without configured ones: created once, and readable only by its user.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use crate::{
    config::{AdmissionSecrets, TokenSecrets},
    ids,
};

/// The file of the admission secret.
const ADMISSION_SECRET: &str = "admission-secret";

/// A secret cannot be read or stored.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub(super) struct SecretError {
    path: PathBuf,
    why: String,
}

/// Returns a secret that is not stored.
pub(super) fn random_secret() -> SecretString {
    ids::unguessable().into()
}

/// Returns the stored token secrets, and creates them if they are missing.
pub(super) fn kept_secrets(data_dir: &Path) -> Result<TokenSecrets, SecretError> {
    ensure_folder(data_dir)?;
    Ok(TokenSecrets::new(
        kept(&data_dir.join("jwt-access-secret"))?,
        kept(&data_dir.join("jwt-refresh-secret"))?,
    ))
}

/// Returns the stored admission secret, and creates it if it is missing.
pub(super) fn kept_admission_secret(data_dir: &Path) -> Result<AdmissionSecrets, SecretError> {
    ensure_folder(data_dir)?;
    Ok(AdmissionSecrets { current: kept(&data_dir.join(ADMISSION_SECRET))?, previous: None })
}

/// Returns the stored admission secret, if a server has created one: no server would accept a new one.
pub(super) fn found_admission_secret(data_dir: &Path) -> Result<Option<AdmissionSecrets>, SecretError> {
    let path = data_dir.join(ADMISSION_SECRET);
    let current = path.exists().then(|| read(&path)).transpose()?;
    Ok(current.map(|current| AdmissionSecrets { current, previous: None }))
}

fn ensure_folder(data_dir: &Path) -> Result<(), SecretError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|error| SecretError { path: data_dir.to_owned(), why: error.to_string() })
}

fn kept(path: &Path) -> Result<SecretString, SecretError> {
    let failed = |why: String| SecretError { path: path.to_owned(), why };
    // Written under another name first, so that no reader sees a partial secret.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    if !path.exists() {
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&fresh).and_then(|mut file| {
            file.write_all(ids::unguessable().as_bytes())?;
            file.sync_all()?;
            // If two servers start together, the first to link wins and both read the same secret.
            std::fs::hard_link(&fresh, path)
        });
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error.to_string())),
            _ => {}
        }
        std::fs::remove_file(&fresh).map_err(|error| failed(error.to_string()))?;
    }
    read(path)
}

fn read(path: &Path) -> Result<SecretString, SecretError> {
    let failed = |why: String| SecretError { path: path.to_owned(), why };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|error| failed(error.to_string()))?;
    match text.trim() {
        secret if secret.len() >= 32 => Ok(secret.to_owned().into()),
        _ => Err(failed("holds no secret; remove it to have one made".to_owned())),
    }
}
