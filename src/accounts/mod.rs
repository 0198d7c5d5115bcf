//! People, sign-ins and sessions.
//!
//! A session is one sign-in on one device: a family of refresh tokens, of which one is valid at a time. An access token
//! names its session. Whether that session is still live is known in memory, so a reserve needs no round trip for it.

mod attempts;
mod error;
mod name_cache;
mod passwords;
mod queries;
mod rules;
mod sessions;
mod tokens;

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::{sync::Notify, time::Instant};

pub use error::{AccountError, RefreshRefusal, SignupRefusal};
pub use tokens::TokenRejected;

use crate::{
    bus::{Bus, Hint},
    cache::Cache,
    client::Client,
    clock::Timestamp,
    config::{Limits, TokenSecrets},
    db::{Database, DbError, retried},
    ids::{SessionId, UserId},
    telemetry::Metrics,
};

/// The role of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May buy.
    Buyer,
    /// May create and manage drops.
    Admin,
}

/// A person, as shown to themselves.
#[derive(Clone, Debug)]
pub struct Person {
    /// The person's id.
    pub id: UserId,
    /// The name as they entered it.
    pub username: String,
    /// The address in its normal form.
    pub email: String,
    /// The role.
    pub role: Role,
}

/// The public part of a person.
#[derive(Clone, Debug)]
pub struct PublicPerson {
    /// The person's id.
    pub id: UserId,
    /// The name as they entered it.
    pub username: String,
}

/// The bearer of a valid access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The person.
    pub user_id: UserId,
    /// The session.
    pub session_id: SessionId,
    /// When the access token expires.
    pub expires_at: Timestamp,
}

/// The tokens of one session.
#[derive(Clone, Debug)]
pub struct SessionTokens {
    /// The person.
    pub user_id: UserId,
    /// The access token, for the `Authorization` header.
    pub access: String,
    /// When it expires.
    pub access_expires_at: Timestamp,
    /// The refresh token, valid for one refresh.
    pub refresh: String,
    /// When it expires.
    pub refresh_expires_at: Timestamp,
}

/// The lifetimes of tokens.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of an access token.
    pub access: Duration,
    /// Of a refresh token; each refresh restarts it.
    pub refresh: Duration,
}

/// Number of cached access tokens, some half a kilobyte each.
const MOST_CALLERS: usize = 10_000;

/// The accounts service. Clones are cheap and share its state.
#[derive(Clone)]
pub struct Accounts {
    db: Database,
    passwords: passwords::Passwords,
    tokens: Arc<tokens::Tokens>,
    ended: Arc<sessions::EndedSessions>,
    names: Arc<name_cache::NameCache>,
    /// The callers of recently used access tokens: a buyer sends the same token with each request. Only tokens with a
    /// valid signature and claims are cached, which stay valid for as long as this process runs. Whether a token has
    /// expired or its session has ended is checked each time.
    callers: Arc<Cache<Box<str>, Caller>>,
    lifetimes: Lifetimes,
    attempts: Arc<attempts::Attempts>,
    bus: Bus,
    /// Notified when another server has ended sessions.
    hinted: Arc<Notify>,
}

impl Accounts {
    /// Creates the service. [`watch_sessions`](Self::watch_sessions) has to run beside it.
    pub fn new(
        db: &Database,
        secrets: &TokenSecrets,
        lifetimes: Lifetimes,
        limits: &Limits,
        bus: &Bus,
        metrics: &Metrics,
    ) -> Self {
        Self {
            db: db.clone(),
            passwords: passwords::Passwords::new(limits, metrics),
            tokens: Arc::new(tokens::Tokens::new(secrets)),
            ended: Arc::default(),
            names: Arc::new(name_cache::NameCache::new()),
            callers: Arc::new(Cache::new(MOST_CALLERS)),
            lifetimes,
            attempts: Arc::new(attempts::Attempts::new(limits)),
            bus: bus.clone(),
            hinted: Arc::default(),
        }
    }

    /// Creates an account and signs it in.
    ///
    /// # Errors
    /// All invalid fields at once, a name or an address that is taken, too many attempts or sign-ins, or the database.
    pub async fn signup(
        &self,
        username: &str,
        email: &str,
        password: &str,
        client: Client,
    ) -> Result<SessionTokens, AccountError<Vec<SignupRefusal>>> {
        let new = rules::check_signup(username, email, password).map_err(AccountError::Refused)?;
        self.attempts.begin(client).map_err(|retry_after| AccountError::TooMany { retry_after })?;
        let hash = self.passwords.hash(new.password.clone()).await?;
        let user_id = UserId::new();
        let opening = self.opening_session();
        let row = &opening.row;
        let made = self
            .db
            .run(async |connection| {
                queries::insert_user_with_session(connection, user_id, &new, &hash, row).await
            })
            .await;
        match made {
            Ok(times) => Ok(self.tokens_for(user_id, opening, times)),
            Err(error) if error.violates("users_username_key") => {
                Err(AccountError::Refused(vec![SignupRefusal::UsernameTaken]))
            }
            Err(error) if error.violates("users_email_key") => {
                Err(AccountError::Refused(vec![SignupRefusal::EmailTaken]))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Signs in. `None`: the address is unknown or the password wrong, indistinguishable even by the time that it
    /// takes.
    ///
    /// # Errors
    /// The database, more sign-ins than the processors can do in time, or too many attempts.
    pub async fn login(
        &self,
        email: &str,
        password: &str,
        client: Client,
    ) -> Result<Option<SessionTokens>, AccountError<()>> {
        let (email, password) = (rules::normal_email(email), rules::normal_password(password));
        let attempt = self.attempts.begin_at(&email, client);
        let attempt = attempt.map_err(|retry_after| AccountError::TooMany { retry_after })?;
        let (found, right) = match self.check(&email, password.clone()).await {
            Ok(checked) => checked,
            Err(error) => {
                attempt.was_none();
                return Err(error);
            }
        };
        let Some((user_id, hash)) = found.filter(|_| right) else { return Ok(None) };
        attempt.was_right();
        if self.passwords.is_weak(&hash) {
            self.hash_anew(user_id, password, &hash).await;
        }
        let opening = self.opening_session();
        let times = self
            .db
            .run(async |connection| queries::insert_session(connection, user_id, &opening.row).await)
            .await?;
        Ok(Some(self.tokens_for(user_id, opening, times)))
    }

    /// Returns the account with this address, if there is one, and whether this is its password.
    async fn check(
        &self,
        email: &str,
        password: SecretString,
    ) -> Result<(Option<(UserId, String)>, bool), AccountError<()>> {
        // The connection returns to the pool before the slow part.
        let found =
            retried(|| self.db.run(async |connection| queries::find_credentials(connection, email).await))
                .await?;
        let hash = found.as_ref().map(|(_, hash)| hash.clone());
        let right = self.passwords.verify(password, hash).await?;
        Ok((found, right))
    }

    /// Replaces a hash that is weaker than new ones are. The sign-in succeeds even if this fails.
    async fn hash_anew(&self, user_id: UserId, password: SecretString, old: &str) {
        let replaced = async {
            let hash = self.passwords.hash::<()>(password).await?;
            self.db
                .run(async |connection| queries::mark_rehashed(connection, user_id, old, &hash).await)
                .await?;
            Ok::<(), AccountError<()>>(())
        };
        match replaced.await {
            Ok(()) => tracing::info!(%user_id, "a weak password hash was replaced"),
            Err(error) => tracing::warn!(%error, %user_id, "a weak password hash was not replaced"),
        }
    }

    /// Returns the bearer of an access token, without the database.
    ///
    /// # Errors
    /// The token is invalid or expired, or its session has ended.
    pub fn authenticate(&self, access_token: &str) -> Result<Caller, TokenRejected> {
        let known = self.callers.get(access_token);
        let caller = known.map_or_else(|| self.verify(access_token), Ok)?;
        if !self.session_lives(&caller) {
            return Err(TokenRejected);
        }
        if known.is_none() {
            self.callers.put(access_token.into(), caller);
        }
        Ok(caller)
    }

    fn verify(&self, access_token: &str) -> Result<Caller, TokenRejected> {
        // Ended sessions are remembered for the access lifetime set now, but the token may have been issued with a
        // longer one.
        self.tokens.verify_access(access_token)?.shortened(self.lifetimes.access).caller()
    }

    /// Returns whether the token of a caller is still valid: it has not expired and its session has not ended.
    pub fn session_lives(&self, caller: &Caller) -> bool {
        !self.ended.knows(caller.session_id) && self.ended.now() <= caller.expires_at + tokens::LEEWAY
    }

    /// Returns the person with this id; `None` if there is none any more.
    ///
    /// # Errors
    /// The database.
    pub async fn find_person(&self, id: UserId) -> Result<Option<Person>, DbError> {
        retried(|| self.db.run(async |connection| queries::find_person(connection, id).await)).await
    }

    /// Returns the public part of these people, and leaves out unknown ids.
    ///
    /// # Errors
    /// The database.
    pub async fn list_public(&self, ids: &[UserId]) -> Result<Vec<PublicPerson>, DbError> {
        let people =
            retried(|| self.db.run(async |connection| queries::list_public(connection, ids).await)).await?;
        self.names.keep(&people);
        Ok(people)
    }

    /// Returns the cached public part of a person, and until when it may be shown.
    pub fn kept_public(&self, id: UserId) -> Option<(PublicPerson, Instant)> {
        self.names.find(id)
    }

    /// Sets the role of the account with this address. If it changes, all sessions of the person end, so that no token
    /// outlives the role under which it was issued. Returns `false` if no account has the address.
    ///
    /// # Errors
    /// The database.
    pub async fn set_role(&self, email: &str, role: Role) -> Result<bool, DbError> {
        let email = rules::normal_email(email);
        let found =
            self.db.run(async |connection| queries::mark_role(connection, &email, role).await).await?;
        if found {
            self.bus.tell(Hint::Sessions);
        }
        Ok(found)
    }
}
