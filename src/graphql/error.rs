//! Top-level errors, and the one table that maps them to `extensions.code`.

use std::time::Duration;

use async_graphql::{Error, ErrorExtensions as _, Pos, parser};
use uuid::Uuid;

use crate::{accounts::AccountError, db::DbError, stock::StockError};

/// An unexpected fault, or a request that cannot be answered. Expected refusals are data: `userErrors`.
///
/// Deliberately not `Display`: it becomes a GraphQL error only through the table below.
#[derive(Clone, Debug)]
pub enum ApiError {
    /// The access token is invalid, or missing where one is required.
    Unauthenticated,
    /// The caller is signed in, but not allowed.
    Forbidden,
    /// An argument is out of bounds or malformed.
    BadUserInput(String),
    /// Nothing has the given id, and the schema has no other way to report it.
    NotFound(&'static str),
    /// The document cannot be parsed.
    ParseFailed {
        /// What the parser expected.
        why: String,
        /// The position in the document.
        at: Option<Pos>,
    },
    /// The document is refused before it is executed.
    ValidationFailed(String),
    /// The document, or the answer that it requests, is too large.
    LimitPassed {
        /// Name of the limit's setting.
        limit: &'static str,
        /// What exceeds the limit.
        why: String,
    },
    /// One client exceeds its rate limit; nothing was done.
    RateLimited {
        /// How long to wait before a retry.
        retry_after: Duration,
    },
    /// One client has the maximum number open; nothing was done.
    TooManyOpen {
        /// Name of the limit's setting.
        limit: &'static str,
        /// How long to wait before a retry, if the client has closed something by then.
        retry_after: Duration,
    },
    /// The hash of a document that is not cached: the client then sends the document.
    PersistedQueryNotFound,
    /// The server is too busy to answer in time; nothing was done.
    Overloaded {
        /// How long to wait before a retry.
        retry_after: Duration,
    },
    /// The database is unreachable. Whether a mutation was done is unknown; a retry with its key settles it.
    Unavailable,
    /// A bug in the server. The cause is in the log under this id, and nowhere else.
    Internal {
        /// The id in the log.
        request_id: Uuid,
    },
}

impl ApiError {
    /// Returns an internal error, and logs its cause once.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let request_id = Uuid::now_v7();
        tracing::error!(%request_id, %cause, "a request failed");
        Self::Internal { request_id }
    }

    /// The table: returns the code and the message.
    fn row(&self) -> (&'static str, String) {
        match self {
            Self::Unauthenticated => {
                ("UNAUTHENTICATED", "A valid access token is required: sign in, or refresh.".to_owned())
            }
            Self::Forbidden => ("FORBIDDEN", "You are not allowed to do this.".to_owned()),
            Self::BadUserInput(why) => ("BAD_USER_INPUT", why.clone()),
            Self::NotFound(what) => ("NOT_FOUND", (*what).to_owned()),
            Self::ParseFailed { why, .. } => ("GRAPHQL_PARSE_FAILED", format!("Syntax error: {why}.")),
            Self::ValidationFailed(why) => ("GRAPHQL_VALIDATION_FAILED", why.clone()),
            Self::LimitPassed { why, .. } => ("GRAPHQL_VALIDATION_FAILED", why.clone()),
            Self::RateLimited { .. } => ("RATE_LIMITED", "Too many requests: try again later.".to_owned()),
            Self::TooManyOpen { limit, .. } => {
                ("RATE_LIMITED", format!("The limit {limit} is reached: close one that is open first."))
            }
            // Apollo's link looks for this message if there is no code.
            Self::PersistedQueryNotFound => {
                ("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound".to_owned())
            }
            Self::Overloaded { .. } => {
                ("OVERLOADED", "The server is busy: try again in a moment.".to_owned())
            }
            Self::Unavailable => {
                ("UNAVAILABLE", "The service is unavailable right now: try again.".to_owned())
            }
            Self::Internal { request_id } => {
                ("INTERNAL_SERVER_ERROR", format!("Internal error, logged as {request_id}."))
            }
        }
    }

    /// Converts this into a GraphQL error.
    pub fn into_graphql(self) -> Error {
        let (code, message) = self.row();
        Error::new(message).extend_with(|_, extensions| {
            extensions.set("code", code);
            match &self {
                Self::LimitPassed { limit, .. } | Self::TooManyOpen { limit, .. } => {
                    extensions.set("limit", *limit);
                }
                Self::Internal { request_id } => extensions.set("requestId", request_id.to_string()),
                _ => {}
            }
            if let Self::Overloaded { retry_after }
            | Self::RateLimited { retry_after }
            | Self::TooManyOpen { retry_after, .. } = &self
            {
                extensions.set("retryAfterMs", u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
            }
        })
    }

    /// Converts this into the whole response to a request.
    pub fn into_response(self) -> async_graphql::Response {
        let at = if let Self::ParseFailed { at, .. } = &self { *at } else { None };
        let error = self.into_graphql();
        let mut server_error = async_graphql::ServerError::new(error.message, at);
        server_error.extensions = error.extensions;
        async_graphql::Response::from_errors(vec![server_error])
    }
}

impl From<parser::Error> for ApiError {
    fn from(error: parser::Error) -> Self {
        let text = error.to_string();
        // The parser draws the position, and writes what it expected below.
        let wanted = text.lines().last().unwrap_or_default().trim_start_matches([' ', '=']);
        Self::ParseFailed { why: wanted.to_owned(), at: error.positions().next() }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        error.into_graphql()
    }
}

const RETRY_AFTER: Duration = Duration::from_millis(500);

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Overloaded(cause) => {
                tracing::warn!(%cause, "a request was refused: overloaded");
                Self::Overloaded { retry_after: RETRY_AFTER }
            }
            DbError::Unavailable(cause) => {
                tracing::warn!(%cause, "a request failed: the database is unavailable");
                Self::Unavailable
            }
            DbError::Constraint(_) | DbError::Unexpected(_) => Self::internal(error),
        }
    }
}

impl From<StockError> for ApiError {
    fn from(error: StockError) -> Self {
        match error {
            StockError::DropNotFound => Self::NotFound("There is no such drop."),
            StockError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            StockError::TooOften { retry_after } => Self::RateLimited { retry_after },
            StockError::Unavailable => Self::Unavailable,
            StockError::Unexpected(cause) => Self::internal(cause),
        }
    }
}

/// Returns whether a retry may succeed a moment later.
pub(super) fn may_heal(error: &async_graphql::ServerError) -> bool {
    let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
    matches!(code, Some(async_graphql::Value::String(code)) if matches!(code.as_str(), "UNAVAILABLE" | "OVERLOADED"))
}

/// Extracts the refusal, which is reported as data, from an account error; anything else is a fault.
pub(super) fn account_fault<R>(error: AccountError<R>) -> Result<R, ApiError> {
    match error {
        AccountError::Refused(refusal) => Ok(refusal),
        AccountError::Busy => Err(ApiError::Overloaded { retry_after: Duration::from_secs(1) }),
        AccountError::TooMany { retry_after } => Err(ApiError::RateLimited { retry_after }),
        AccountError::Db(error) => Err(error.into()),
    }
}
