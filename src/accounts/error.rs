//! What accounts refuse, and what went wrong.

use std::time::Duration;

use crate::db::DbError;

/// A request of accounts was refused with `R`, or failed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError<R> {
    /// An expected refusal.
    #[error("refused")]
    Refused(R),
    /// More passwords to hash than processors can do in time.
    #[error("too many sign-ins at once")]
    Busy,
    /// Too many tries from one place, or at one account.
    #[error("too many tries")]
    TooMany {
        /// When to try again.
        retry_after: Duration,
    },
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why an account cannot be made. The texts are for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignupRefusal {
    /// Another person's, or one that looks like it.
    #[error("This username is taken, or looks too much like one that is.")]
    UsernameTaken,
    /// Outside the allow-list.
    #[error(
        "A username has 3 to 30 letters A to Z, digits, dots, dashes and underscores, and starts with a letter or digit."
    )]
    UsernameInvalid,
    /// An account has it.
    #[error("An account with this e-mail address exists.")]
    EmailTaken,
    /// Not an address.
    #[error("This is not an e-mail address.")]
    EmailInvalid,
    /// Under 10 characters.
    #[error("A password has at least 10 characters.")]
    PasswordTooShort,
    /// Over 128 characters.
    #[error("A password has at most 128 characters.")]
    PasswordTooLong,
    /// On the list of the most common ones.
    #[error("This password is one of the first that a guesser tries.")]
    PasswordTooCommon,
}

/// The refresh token is unknown, expired, revoked or was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("This refresh token is not good, or not good any more: sign in again.")]
pub struct RefreshRefusal;
