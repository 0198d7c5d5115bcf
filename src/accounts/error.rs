//! Refusals and errors of accounts.

use std::time::Duration;

use crate::db::DbError;

/// A call was refused with `R`, or failed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError<R> {
    /// An expected refusal.
    #[error("refused")]
    Refused(R),
    /// More passwords to hash than the processors can do in time.
    #[error("too many sign-ins at once")]
    Busy,
    /// Too many attempts from one address, or at one account.
    #[error("too many tries")]
    TooMany {
        /// How long to wait before a retry.
        retry_after: Duration,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why a sign-up is refused. The texts are shown to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignupRefusal {
    /// The username is another person's, or looks like it.
    #[error("This username is taken, or too similar to one that is.")]
    UsernameTaken,
    /// It has characters outside the allow-list, or the wrong length.
    #[error(
        "A username must have 3 to 30 letters A to Z, digits, dots, dashes or underscores, and start with a letter or digit."
    )]
    UsernameInvalid,
    /// Another account has the address.
    #[error("An account with this e-mail address already exists.")]
    EmailTaken,
    /// It is not an e-mail address.
    #[error("This is not an e-mail address.")]
    EmailInvalid,
    /// Under 10 characters.
    #[error("A password must have at least 10 characters.")]
    PasswordTooShort,
    /// Over 128 characters.
    #[error("A password may have at most 128 characters.")]
    PasswordTooLong,
    /// On the list of common passwords, or one character repeated.
    #[error("This password is too common.")]
    PasswordTooCommon,
}

/// The refresh token is unknown, expired, revoked or was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("This refresh token is invalid or expired: sign in again.")]
pub struct RefreshRefusal;
