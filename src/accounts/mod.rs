//! People and their sign-ins.
//!
//! A session is one sign-in on one device: a family of refresh tokens of which one is good at a time. An access
//! token names its session; whether that session still lives is answered from memory, so that a reserve pays no
//! round trip for it.

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

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Buys.
    Buyer,
    /// May create and run drops.
    Admin,
}

/// A person, as they see themselves.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// As they wrote it.
    pub username: String,
    /// In its normal form.
    pub email: String,
    /// What they may do.
    pub role: Role,
}

/// What everyone may see of a person.
#[derive(Clone, Debug)]
pub struct PublicPerson {
    /// Who.
    pub id: UserId,
    /// As they wrote it.
    pub username: String,
}

/// Who makes a request: the bearer of a good access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The person.
    pub user_id: UserId,
    /// The sign-in.
    pub session_id: SessionId,
    /// When the access token runs out.
    pub expires_at: Timestamp,
}

/// The tokens of one sign-in.
#[derive(Clone, Debug)]
pub struct SessionTokens {
    /// Whose.
    pub user_id: UserId,
    /// For the `Authorization` header.
    pub access: String,
    /// When it runs out.
    pub access_expires_at: Timestamp,
    /// Good for one refresh.
    pub refresh: String,
    /// When it runs out.
    pub refresh_expires_at: Timestamp,
}

/// How long tokens are good.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// An access token.
    pub access: Duration,
    /// A refresh token; each refresh starts it anew.
    pub refresh: Duration,
}

/// Access tokens that are known, some half a kilobyte each.
const MOST_CALLERS: usize = 10_000;

/// The service. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Accounts {
    db: Database,
    passwords: passwords::Passwords,
    tokens: Arc<tokens::Tokens>,
    ended: Arc<sessions::EndedSessions>,
    names: Arc<name_cache::NameCache>,
    /// Who bears the access tokens that were sent lately: who buys sends one token with each request. Only those whose signature
    /// and claims are right, which they stay for as long as this program runs with its keys; whether the time has run out or
    /// the session has ended is asked anew each time.
    callers: Arc<Cache<Box<str>, Caller>>,
    lifetimes: Lifetimes,
    attempts: Arc<attempts::Attempts>,
    bus: Bus,
    /// Another server said that sessions have ended.
    hinted: Arc<Notify>,
}

impl Accounts {
    /// The service over `db`. [`watch_sessions`](Self::watch_sessions) has to run beside it.
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

    /// Makes an account and signs it in.
    ///
    /// # Errors
    /// Every wrong field at once, a name or an address that is taken, or a database that cannot be had.
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

    /// Signs in. `None` in place of tokens: the address is unknown or the password wrong, told apart by nothing,
    /// the time that it takes included.
    ///
    /// # Errors
    /// The database, more sign-ins than processors, or too many tries.
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

    /// The account with this address, if there is one, and whether this is its password.
    async fn check(
        &self,
        email: &str,
        password: SecretString,
    ) -> Result<(Option<(UserId, String)>, bool), AccountError<()>> {
        // The connection goes back before the slow part.
        let found =
            retried(|| self.db.run(async |connection| queries::find_credentials(connection, email).await))
                .await?;
        let hash = found.as_ref().map(|(_, hash)| hash.clone());
        let right = self.passwords.verify(password, hash).await?;
        Ok((found, right))
    }

    /// Replaces a hash that is weaker than they are made now. Who signs in has signed in, whatever comes of it.
    async fn hash_anew(&self, user_id: UserId, password: SecretString, old: &str) {
        let replaced = async {
            let hash = self.passwords.hash::<()>(password).await?;
            self.db
                .run(async |connection| queries::mark_rehashed(connection, user_id, old, &hash).await)
                .await?;
            Ok::<(), AccountError<()>>(())
        };
        match replaced.await {
            Ok(()) => tracing::info!(%user_id, "a password was hashed anew, stronger"),
            Err(error) => tracing::warn!(%error, %user_id, "a weak hash stays until the next sign-in"),
        }
    }

    /// Who bears this access token. Touches no database.
    ///
    /// # Errors
    /// The token is not ours, has run out, or its session has ended.
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
        // Which sessions have ended is remembered for as long as access tokens live by the settings of now; this one may
        // have been issued by others.
        self.tokens.verify_access(access_token)?.shortened(self.lifetimes.access).caller()
    }

    /// Whether the session of a caller who was let in before still lives.
    pub fn session_lives(&self, caller: &Caller) -> bool {
        !self.ended.knows(caller.session_id) && self.ended.now() <= caller.expires_at + tokens::LEEWAY
    }

    /// The person behind a caller; `None` when there is no such person any more.
    ///
    /// # Errors
    /// The database.
    pub async fn find_person(&self, id: UserId) -> Result<Option<Person>, DbError> {
        retried(|| self.db.run(async |connection| queries::find_person(connection, id).await)).await
    }

    /// What everyone may see of these people; unknown ids are left out.
    ///
    /// # Errors
    /// The database.
    pub async fn list_public(&self, ids: &[UserId]) -> Result<Vec<PublicPerson>, DbError> {
        let people =
            retried(|| self.db.run(async |connection| queries::list_public(connection, ids).await)).await?;
        self.names.keep(&people);
        Ok(people)
    }

    /// What everyone may see of a person who was read from the database lately, and until when it may be shown.
    pub fn kept_public(&self, id: UserId) -> Option<(PublicPerson, Instant)> {
        self.names.find(id)
    }

    /// Gives or takes a role. All sessions of the person end with it, so that no token outlives the role it was
    /// made under. `false`: nobody has this address.
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
