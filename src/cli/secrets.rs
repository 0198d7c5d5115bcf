//! Secrets for a server to which none were given: made once, kept where only its user may read.

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

/// Its file.
const ADMISSION_SECRET: &str = "admission-secret";

/// A secret cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub(super) struct SecretError {
    path: PathBuf,
    why: String,
}

/// A secret that nobody keeps.
pub(super) fn random_secret() -> SecretString {
    ids::unguessable().into()
}

/// The secrets of its tokens, made when they are not there.
pub(super) fn kept_secrets(data_dir: &Path) -> Result<TokenSecrets, SecretError> {
    ensure_folder(data_dir)?;
    Ok(TokenSecrets::new(
        kept(&data_dir.join("jwt-access-secret"))?,
        kept(&data_dir.join("jwt-refresh-secret"))?,
    ))
}

/// The secret of its admissions, made when it is not there.
pub(super) fn kept_admission_secret(data_dir: &Path) -> Result<AdmissionSecrets, SecretError> {
    ensure_folder(data_dir)?;
    Ok(AdmissionSecrets { current: kept(&data_dir.join(ADMISSION_SECRET))?, previous: None })
}

/// The secret of its admissions, where a server has made it: one that no server has signs nothing.
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
    // Written whole under another name first: a reader never meets half a secret.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    if !path.exists() {
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&fresh).and_then(|mut file| {
            file.write_all(ids::unguessable().as_bytes())?;
            file.sync_all()?;
            // Of two servers that start together the first to link wins, and both read the same.
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
