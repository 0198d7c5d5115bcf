//! Hashes passwords with argon2id, off the async threads and at most one per processor at a time.
//!
//! Each hash takes 19 MiB and some 20 ms of CPU time, or more if so configured. The permit moves into the work: a
//! client that hangs up leaves the queue, but the processor is free only when the work is done.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::phc::PasswordHash,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

use super::AccountError;
use crate::{config::Limits, db::DbError, telemetry::Metrics};

const LANES: u32 = 1;

/// A sign-in that waits longer than this for a processor is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// At 25 hashes per second and processor, a longer queue cannot be served in `LONGEST_WAIT`.
const WAITING_PER_PROCESSOR: usize = 96;

#[derive(Clone)]
pub(super) struct Passwords {
    argon2: Argon2<'static>,
    processors: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    /// Verified for an unknown address, in place of the hash that it does not have.
    dummy: Arc<str>,
    metrics: Metrics,
}

impl Passwords {
    pub(super) fn new(limits: &Limits, metrics: &Metrics) -> Self {
        let [memory, passes] =
            [limits.hash_memory_kib, limits.hash_passes].map(|cost| u32::try_from(cost).unwrap_or(u32::MAX));
        let params = match Params::new(memory, passes, LANES, None) {
            Ok(params) => params,
            Err(error) => unreachable!("settings within argon2's bounds: {error}"),
        };
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // A hash of the same cost that belongs to no password.
        let dummy = format!(
            "$argon2id$v=19$m={memory},t={passes},p={LANES}$c25lYWtlci1kcm9wLi4uLg${}",
            "A".repeat(43)
        );
        Self {
            argon2,
            processors: Arc::new(Semaphore::new(processors)),
            waiting: Arc::default(),
            most_waiting: processors * WAITING_PER_PROCESSOR,
            dummy: dummy.into(),
            metrics: metrics.clone(),
        }
    }

    /// Returns the hash as a PHC string.
    pub(super) async fn hash<R>(&self, password: SecretString) -> Result<String, AccountError<R>> {
        let argon2 = self.argon2.clone();
        let hashed = self
            .on_a_processor(move || {
                argon2.hash_password(password.expose_secret().as_bytes()).map(|hash| hash.to_string())
            })
            .await?;
        hashed.map_err(|error| DbError::Unexpected(format!("argon2: {error}")).into())
    }

    /// Returns whether a hash has a lower cost than new ones.
    pub(super) fn is_weak(&self, hash: &str) -> bool {
        let params = PasswordHash::new(hash).ok().and_then(|hash| Params::try_from(&hash).ok());
        let wanted = self.argon2.params();
        params.is_none_or(|params| {
            params.m_cost() < wanted.m_cost()
                || params.t_cost() < wanted.t_cost()
                || params.p_cost() < wanted.p_cost()
        })
    }

    /// Returns whether the password has this hash. `None`: `false`, after the same work.
    pub(super) async fn verify<R>(
        &self,
        password: SecretString,
        hash: Option<String>,
    ) -> Result<bool, AccountError<R>> {
        let argon2 = self.argon2.clone();
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.to_string());
        let right = self
            .on_a_processor(move || {
                PasswordHash::new(&hash).is_ok_and(|hash| {
                    argon2.verify_password(password.expose_secret().as_bytes(), &hash).is_ok()
                })
            })
            .await?;
        Ok(right && known)
    }

    async fn on_a_processor<T: Send + 'static, R>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AccountError<R>> {
        let place = Place::take(&self.waiting, self.most_waiting).ok_or(AccountError::Busy)?;
        let permit = tokio::time::timeout(LONGEST_WAIT, self.processors.clone().acquire_owned());
        let permit = permit.await.ok().and_then(Result::ok).ok_or(AccountError::Busy)?;
        drop(place);
        self.metrics.password_hashes.inc();
        let span = tracing::Span::current();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(work)
        });
        done.await.map_err(|error| DbError::Unexpected(format!("a password task failed: {error}")).into())
    }
}

/// A place in the queue, released on drop.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(waiting: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(waiting.clone());
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
