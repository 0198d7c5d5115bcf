//! Classifies PostgreSQL's errors.

use deadpool::managed::{PoolError as Deadpool, TimeoutType};
use diesel::{
    result::{DatabaseErrorInformation, DatabaseErrorKind, Error},
    sql_types::Text,
};
use diesel_async::{RunQueryDsl as _, pooled_connection::PoolError};

use super::{Connection, statement};

/// A database error.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No free connection, or a lock held too long: a retry may succeed a moment later.
    #[error("PostgreSQL is busy: {0}")]
    Overloaded(String),
    /// PostgreSQL is gone, starting, stopping, read-only or out of disk space. What was in flight may or may not have
    /// been committed.
    #[error("PostgreSQL is unavailable: {0}")]
    Unavailable(String),
    /// A constraint was violated; features know theirs by name.
    #[error("constraint {0} is violated")]
    Constraint(String),
    /// Anything else: a bug in this program.
    #[error("unexpected database error: {0}")]
    Unexpected(String),
}

impl DbError {
    /// Returns whether `name` is the violated constraint.
    pub fn violates(&self, name: &str) -> bool {
        matches!(self, Self::Constraint(constraint) if constraint == name)
    }
}

pub(super) const LOCK_TIMED_OUT: &str = "due to lock timeout";

/// diesel hides the SQLSTATE, so errors are recognised by their text, which PostgreSQL writes in the language of
/// `lc_messages`. In any other than English they count as `Unexpected`: see [`foreign_language`].
const BUSY: &[&str] =
    &[LOCK_TIMED_OUT, "due to statement timeout", "too many clients", "remaining connection slots"];
const GONE: &[&str] = &[
    "terminating connection",
    "the database system is",
    "server closed the connection",
    "crash of another server process",
    // From PgBouncer.
    "server conn crashed",
    "server login has been failing",
    "query_wait_timeout",
    "No space left on device",
    "could not extend file",
    "could not write to file",
    "PANIC",
];

statement!(ReadLanguage -> Text, "SELECT current_setting('lc_messages')", {});

/// Returns the locale of PostgreSQL's messages, unless it is English.
///
/// # Errors
/// The database.
pub async fn foreign_language(connection: &mut Connection) -> Result<Option<String>, DbError> {
    let locale: String = ReadLanguage {}.get_result(connection).await?;
    Ok((!is_english(&locale)).then_some(locale))
}

/// An empty locale is that of the server's environment, which is unknown here.
fn is_english(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    let language = locale.split(['_', '-', '.', '@']).next().unwrap_or_default();
    matches!(language, "" | "c" | "posix" | "en" | "english")
}

impl From<Error> for DbError {
    fn from(error: Error) -> Self {
        let Error::DatabaseError(kind, info) = error else { return Self::Unexpected(error.to_string()) };
        let says = |texts: &[&str]| texts.iter().any(|text| info.message().contains(text));
        match kind {
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::CheckViolation => {
                Self::Constraint(info.constraint_name().unwrap_or("without a name").to_owned())
            }
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ReadOnlyTransaction => Self::Unavailable(text(&*info)),
            _ if says(BUSY) => Self::Overloaded(text(&*info)),
            _ if says(GONE) => Self::Unavailable(text(&*info)),
            _ => Self::Unexpected(text(&*info)),
        }
    }
}

fn text(info: &(dyn DatabaseErrorInformation + Send + Sync)) -> String {
    match info.details() {
        Some(details) => format!("{} ({details})", info.message()),
        None => info.message().to_owned(),
    }
}

impl From<Deadpool<PoolError>> for DbError {
    fn from(error: Deadpool<PoolError>) -> Self {
        match error {
            Deadpool::Timeout(TimeoutType::Wait) => {
                Self::Overloaded("no connection came free in time".to_owned())
            }
            Deadpool::Backend(PoolError::ConnectionError(error)) => {
                let error = error.to_string();
                match BUSY.iter().any(|text| error.contains(text)) {
                    true => Self::Overloaded(error),
                    false => Self::Unavailable(error),
                }
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::{DatabaseErrorKind, Error};

    use super::{DbError, is_english};

    /// The texts of PostgreSQL 15 and PgBouncer 1.18.
    #[test]
    fn an_error_is_told_by_its_text() {
        let meaning = |text: &str| {
            DbError::from(Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned())))
        };
        for busy in [
            "canceling statement due to lock timeout",
            "canceling statement due to statement timeout",
            "sorry, too many clients already",
            "remaining connection slots are reserved for non-replication superuser connections",
        ] {
            assert!(matches!(meaning(busy), DbError::Overloaded(_)), "{busy}");
        }
        for gone in [
            "terminating connection due to administrator command",
            "the database system is starting up",
            "the database system is in recovery mode",
            "could not extend file \"base/5/16385\": No space left on device",
            "server conn crashed?",
            "server login has been failing, try again later (server_login_retry)",
            "query_wait_timeout",
        ] {
            assert!(matches!(meaning(gone), DbError::Unavailable(_)), "{gone}");
        }
        let ours = meaning("syntax error at or near \"SELCT\"");
        assert!(matches!(ours, DbError::Unexpected(_)), "{ours}");
    }

    #[test]
    fn a_locale_names_its_language() {
        for english in
            ["", "C", "C.UTF-8", "POSIX", "en_GB.utf8", "en_US", "en-US", "English_United States.1252"]
        {
            assert!(is_english(english), "{english}");
        }
        for other in ["de_DE.UTF-8", "fr_CA", "ca_ES@valencia", "German_Germany.1252", "ja", "eng"] {
            assert!(!is_english(other), "{other}");
        }
    }
}
