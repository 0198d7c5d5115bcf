//! Opens, refreshes and ends sessions, and remembers those that ended.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use chrono::TimeDelta;

use super::{AccountError, Accounts, Caller, RefreshRefusal, SessionTokens, queries, tokens};
use crate::{
    bus::Hint,
    clock::{ClockReading, Timestamp},
    db::DbError,
    ids::{self, SessionId, UserId},
};

/// A used token that is presented again within this time gets the same successor: two tabs, or a lost answer. After
/// that it counts as stolen, by its first user or by this one.
const GRACE: TimeDelta = TimeDelta::seconds(10);
/// The longest time until this server learns of a session that another one ended.
const POLL: Duration = Duration::from_millis(500);
/// A session's end has the time of its statement but becomes visible at its commit; this covers the difference.
const OVERLAP: TimeDelta = TimeDelta::seconds(5);

/// A session about to be stored.
pub(super) struct Opening {
    pub(super) row: NewSession,
    jti: String,
}

/// The values of its row.
pub(super) struct NewSession {
    pub(super) id: SessionId,
    pub(super) token_hash: Vec<u8>,
    pub(super) lifetime: TimeDelta,
}

/// When a token was issued and when it expires, by the database clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Accounts {
    pub(super) fn opening_session(&self) -> Opening {
        let jti = ids::unguessable();
        let row = NewSession {
            id: SessionId::new(),
            token_hash: tokens::hash(&jti),
            lifetime: self.refresh_lifetime(),
        };
        Opening { row, jti }
    }

    pub(super) fn tokens_for(&self, user: UserId, opening: Opening, times: Times) -> SessionTokens {
        self.tokens_of(user, opening.row.id, opening.jti, times)
    }

    fn tokens_of(&self, user: UserId, session: SessionId, jti: String, times: Times) -> SessionTokens {
        let access_lifetime = TimeDelta::from_std(self.lifetimes.access).unwrap_or(TimeDelta::MAX);
        // No access token outlives its session.
        let access_expires_at = (times.from + access_lifetime).min(times.until);
        SessionTokens {
            user_id: user,
            access: self.tokens.issue_access(user, session, times.from, access_expires_at),
            access_expires_at: whole_seconds(access_expires_at),
            refresh: self.tokens.issue_refresh(user, session, jti, times.from, times.until),
            refresh_expires_at: whole_seconds(times.until),
        }
    }

    fn refresh_lifetime(&self) -> TimeDelta {
        TimeDelta::from_std(self.lifetimes.refresh).unwrap_or(TimeDelta::MAX)
    }

    /// Exchanges a refresh token for its successor and a new access token. Parallel calls with one token all get the
    /// same successor; a call after the grace period ends the session.
    ///
    /// # Errors
    /// [`RefreshRefusal`], which does not say why, or the database.
    pub async fn refresh(&self, refresh_token: &str) -> Result<SessionTokens, AccountError<RefreshRefusal>> {
        let refused = || AccountError::Refused(RefreshRefusal);
        let (claims, successor) = self.tokens.verify_refresh(refresh_token).map_err(|_| refused())?;
        let caller = claims.caller().map_err(|_| refused())?;
        let (user, session) = (caller.user_id, caller.session_id);
        let (presented, next) = (tokens::hash(&claims.jti), tokens::hash(&successor));

        let lifetime = self.refresh_lifetime();
        let rotated = self
            .db
            .run(async |connection| {
                queries::mark_rotated(connection, session, &presented, &next, lifetime).await
            })
            .await?;
        if let Some(times) = rotated {
            return Ok(self.tokens_of(user, session, successor, times));
        }
        let found = self.db.run(async |connection| queries::find_session(connection, session).await).await?;
        let Some(found) = found else { return Err(refused()) };
        if found.ended || found.now >= found.times.until {
            return Err(refused());
        }
        let same_again = found.token_hash == next && found.previous_hash.as_ref() == Some(&presented);
        if same_again && found.now - found.times.from <= GRACE {
            return Ok(self.tokens_of(user, session, successor, found.times));
        }
        tracing::warn!(%user, %session, "a used refresh token was sent again: its session ends");
        let ended = self
            .db
            .run(async |connection| queries::mark_ended(connection, session, "token_reused").await)
            .await?;
        self.remember_ended(ended);
        Err(refused())
    }

    /// Ends the session of the refresh token or, without one, of the caller; with `everywhere`, all of that person's.
    /// Returns how many ended; `None` if there is neither token nor caller.
    ///
    /// # Errors
    /// The database.
    pub async fn logout(
        &self,
        refresh_token: Option<&str>,
        caller: Option<&Caller>,
        everywhere: bool,
    ) -> Result<Option<usize>, DbError> {
        let named = match refresh_token {
            Some(token) => {
                let named = self.tokens.verify_refresh(token).and_then(|(claims, _)| claims.caller());
                // A token that expired, and may have been stolen long ago, ends nothing.
                named.ok().filter(|named| self.ended.now() <= named.expires_at + tokens::LEEWAY)
            }
            None => caller.copied(),
        };
        let Some(named) = named else {
            // An invalid refresh token names no session: nothing ends, and the caller does not learn why.
            return Ok(refresh_token.map(|_| 0));
        };
        let ended = self
            .db
            .run(async |connection| match everywhere {
                true => queries::mark_all_ended(connection, named.user_id, named.session_id, "logout").await,
                false => queries::mark_ended(connection, named.session_id, "logout").await,
            })
            .await?;
        let count = ended.len();
        self.remember_ended(ended);
        Ok(Some(count))
    }

    /// Learns of sessions that ended on other servers, until it is dropped. Errors are logged and retried.
    pub async fn watch_sessions(self) {
        loop {
            if let Err(error) = self.look_for_ended().await {
                tracing::warn!(%error, "cannot read which sessions ended; trying again");
            }
            // An error means that no hint came in that time.
            drop(tokio::time::timeout(POLL, self.hinted.notified()).await);
        }
    }

    /// Handles the hint that another server has ended sessions.
    pub fn hear_of_ended(&self) {
        self.hinted.notify_one();
    }

    fn remember_ended(&self, ended: Vec<(SessionId, Timestamp)>) {
        if !ended.is_empty() {
            self.ended.remember(ended);
            self.bus.tell(Hint::Sessions);
        }
    }

    /// Reads the sessions that ended since the last call.
    ///
    /// # Errors
    /// The database.
    pub async fn look_for_ended(&self) -> Result<(), DbError> {
        let horizon = TimeDelta::from_std(self.lifetimes.access).unwrap_or(TimeDelta::MAX) + tokens::LEEWAY;
        let since = self.ended.seen_until().map(|seen| seen - OVERLAP);
        let (now, ended) =
            self.db.run(async |connection| queries::list_ended(connection, since, horizon).await).await?;
        self.ended.learn(now, ended, horizon);
        Ok(())
    }
}

/// Tokens have whole seconds, so the API reports them too.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_timestamp(at.timestamp(), 0).unwrap_or(at)
}

/// The sessions that ended within the lifetime of an access token, and the database clock.
#[derive(Default)]
pub(super) struct EndedSessions(RwLock<Memory>);

#[derive(Default)]
struct Memory {
    ended: HashMap<SessionId, Timestamp>,
    clock: Option<ClockReading>,
}

impl EndedSessions {
    pub(super) fn knows(&self, session: SessionId) -> bool {
        self.read().ended.contains_key(&session)
    }

    /// Returns the time of the database clock; before the first reading, this machine's.
    pub(super) fn now(&self) -> Timestamp {
        self.read().clock.map_or_else(chrono::Utc::now, |clock| clock.now())
    }

    fn seen_until(&self) -> Option<Timestamp> {
        self.read().clock.map(|clock| clock.at)
    }

    fn remember(&self, ended: Vec<(SessionId, Timestamp)>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).ended.extend(ended);
    }

    fn learn(&self, now: Timestamp, ended: Vec<(SessionId, Timestamp)>, horizon: TimeDelta) {
        let mut memory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        memory.clock = Some(ClockReading::arrived_now(now));
        memory.ended.extend(ended);
        memory.ended.retain(|_, ended_at| *ended_at + horizon + OVERLAP > now);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Memory> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts::{Lifetimes, TokenRejected},
        bus::{Bus, InProcess},
        config::{DatabaseConfig, Limits, TokenSecrets},
        db::Database,
        telemetry::Metrics,
    };

    /// Has no database: the test needs none.
    fn accounts() -> Accounts {
        let metrics = Metrics::default();
        let url = Some("postgres://nobody@127.0.0.1:1/none".into());
        let settings = DatabaseConfig { url, direct_url: None, pool_size: 2 };
        let secrets = TokenSecrets::new("a".repeat(32).into(), "b".repeat(32).into());
        let lifetimes = Lifetimes { access: Duration::from_secs(900), refresh: Duration::from_secs(3_600) };
        let bus = Bus::over(InProcess::default(), &metrics);
        let db = Database::new(&settings, &metrics).unwrap();
        Accounts::new(&db, &secrets, lifetimes, &Limits::default(), &bus, &metrics)
    }

    #[tokio::test]
    async fn a_token_that_was_let_in_before_is_refused_when_its_time_or_its_session_is_over() {
        let (accounts, now, horizon) = (accounts(), chrono::Utc::now(), TimeDelta::minutes(15));
        let [lives, ends] = [SessionId::new(), SessionId::new()];
        let [living, ended] = [lives, ends]
            .map(|session| accounts.tokens.issue_access(UserId::new(), session, now, now + horizon));
        for token in [&living, &ended] {
            let first = accounts.authenticate(token).unwrap();
            assert_eq!(accounts.callers.get(token.as_str()), Some(first));
            assert_eq!(accounts.authenticate(token), Ok(first));
        }
        accounts.ended.learn(now, vec![(ends, now)], horizon);
        assert!(accounts.authenticate(&living).is_ok());
        assert_eq!(accounts.authenticate(&ended), Err(TokenRejected));

        accounts.ended.learn(now + horizon + tokens::LEEWAY + TimeDelta::seconds(1), Vec::new(), horizon);
        assert_eq!(accounts.authenticate(&living), Err(TokenRejected));
    }
}
