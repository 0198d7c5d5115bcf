//! The mutations of accounts: sign-up, sign-in, refresh, logout.

use async_graphql::{Context, Enum, InputObject, Object, SimpleObject};

use super::user_error;
use crate::{
    accounts::{RefreshRefusal, SignupRefusal},
    graphql::{
        error::{ApiError, account_fault},
        request::request,
        session::Session,
    },
};

/// A new account.
#[derive(InputObject)]
pub(super) struct SignupInput {
    /// 3 to 30 letters A to Z, digits, dots, dashes and underscores, starting with a letter or digit. Public. Unique;
    /// look-alikes count as equal.
    username: String,
    /// The email address for signing in. Not public.
    email: String,
    /// 10 to 128 characters; common passwords are refused.
    password: String,
}

/// Why `signup` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum SignupErrorCode {
    /// This username, or one that looks like it, is taken.
    UsernameTaken,
    /// Not 3 to 30 letters A to Z, digits, dots, dashes and underscores, starting with a letter or digit.
    UsernameInvalid,
    /// An account with this email address exists: sign in.
    EmailTaken,
    /// Not an email address.
    EmailInvalid,
    /// Shorter than 10 characters.
    PasswordTooShort,
    /// Longer than 128 characters.
    PasswordTooLong,
    /// On the list of common passwords, which attackers try first.
    PasswordTooCommon,
}

user_error!(
    /// A reason why `signup` was refused.
    SignupUserError,
    SignupErrorCode
);

impl From<SignupRefusal> for SignupUserError {
    fn from(refusal: SignupRefusal) -> Self {
        let (code, field) = match refusal {
            SignupRefusal::UsernameTaken => (SignupErrorCode::UsernameTaken, "username"),
            SignupRefusal::UsernameInvalid => (SignupErrorCode::UsernameInvalid, "username"),
            SignupRefusal::EmailTaken => (SignupErrorCode::EmailTaken, "email"),
            SignupRefusal::EmailInvalid => (SignupErrorCode::EmailInvalid, "email"),
            SignupRefusal::PasswordTooShort => (SignupErrorCode::PasswordTooShort, "password"),
            SignupRefusal::PasswordTooLong => (SignupErrorCode::PasswordTooLong, "password"),
            SignupRefusal::PasswordTooCommon => (SignupErrorCode::PasswordTooCommon, "password"),
        };
        Self::new(code, refusal.to_string(), &[field])
    }
}

/// The result of `signup`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct SignupPayload {
    /// The first session of the new account; null if the sign-up was refused.
    session: Option<Session>,
    /// All malformed fields at once; if there are none, any other reason for the refusal.
    user_errors: Vec<SignupUserError>,
}

/// The credentials to sign in with.
#[derive(InputObject)]
pub(super) struct LoginInput {
    /// The account's email address.
    email: String,
    /// The account's password.
    password: String,
}

/// Why `login` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum LoginErrorCode {
    /// Unknown email or wrong password; both get the same answer after the same time.
    InvalidCredentials,
}

user_error!(
    /// A reason why `login` was refused.
    LoginUserError,
    LoginErrorCode
);

/// The result of `login`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct LoginPayload {
    /// The new session; null if the sign-in was refused.
    session: Option<Session>,
    /// Why the sign-in was refused.
    user_errors: Vec<LoginUserError>,
}

/// A refresh token.
#[derive(InputObject)]
pub(super) struct RefreshInput {
    /// The newest refresh token of the session.
    refresh_token: String,
}

/// Why `refresh` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum RefreshErrorCode {
    /// The token is unknown, expired, revoked or already used.
    InvalidRefreshToken,
}

user_error!(
    /// A reason why `refresh` was refused.
    RefreshUserError,
    RefreshErrorCode
);

/// The result of `refresh`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct RefreshPayload {
    /// The session with new tokens; null if the refresh was refused: sign in again.
    session: Option<Session>,
    /// Why the refresh was refused.
    user_errors: Vec<RefreshUserError>,
}

/// Which sessions to end.
#[derive(InputObject)]
pub(super) struct LogoutInput {
    /// Selects the session, whatever access token is sent. If omitted, the access token selects it.
    refresh_token: Option<String>,
    /// Whether to end all sessions of the user, not only this one. Null means false.
    #[graphql(default_with = "Some(false)")]
    everywhere: Option<bool>,
}

/// The result of `logout`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct LogoutPayload {
    /// Number of sessions that ended.
    ended_sessions: i32,
}

/// Mutations of accounts.
#[derive(Default)]
pub(super) struct AccountMutation;

#[Object(serial)]
impl AccountMutation {
    /// Creates an account and signs it in.
    async fn signup(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new account.")] input: SignupInput,
    ) -> Result<SignupPayload, ApiError> {
        let SignupInput { username, email, password } = input;
        let request = request(ctx);
        match request.app().accounts.signup(&username, &email, &password, request.client()).await {
            Ok(tokens) => Ok(SignupPayload { session: Some(Session(tokens)), user_errors: Vec::new() }),
            Err(error) => {
                let refusals = account_fault(error)?;
                Ok(SignupPayload {
                    session: None,
                    user_errors: refusals.into_iter().map(Into::into).collect(),
                })
            }
        }
    }

    /// Signs in by opening a new session.
    async fn login(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The credentials to sign in with.")] input: LoginInput,
    ) -> Result<LoginPayload, ApiError> {
        let request = request(ctx);
        let tokens = request.app().accounts.login(&input.email, &input.password, request.client()).await;
        let session = match tokens {
            Ok(tokens) => tokens.map(Session),
            Err(error) => {
                account_fault(error)?;
                None
            }
        };
        let message = "Wrong e-mail address or password.";
        let refusal = LoginUserError::new(LoginErrorCode::InvalidCredentials, message, &[]);
        let user_errors = if session.is_none() { vec![refusal] } else { Vec::new() };
        Ok(LoginPayload { session, user_errors })
    }

    /// Exchanges a refresh token for the next one and a new access token. Parallel exchanges of one token all get the
    /// same. Reuse after ten seconds, or after its successor was exchanged, counts as theft and ends the session.
    async fn refresh(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The token to exchange.")] input: RefreshInput,
    ) -> Result<RefreshPayload, ApiError> {
        match request(ctx).app().accounts.refresh(&input.refresh_token).await {
            Ok(tokens) => Ok(RefreshPayload { session: Some(Session(tokens)), user_errors: Vec::new() }),
            Err(error) => {
                let refusal: RefreshRefusal = account_fault(error)?;
                let code = RefreshErrorCode::InvalidRefreshToken;
                let user_error = RefreshUserError::new(code, refusal.to_string(), &["refreshToken"]);
                Ok(RefreshPayload { session: None, user_errors: vec![user_error] })
            }
        }
    }

    /// Ends the session of the access token, or that of the given refresh token.
    async fn logout(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which sessions to end; by default the access token's.")] input: Option<LogoutInput>,
    ) -> Result<LogoutPayload, ApiError> {
        let (refresh_token, everywhere) =
            input.map_or((None, None), |input| (input.refresh_token, input.everywhere));
        let request = request(ctx);
        let ended = request
            .app()
            .accounts
            .logout(refresh_token.as_deref(), request.caller().as_ref(), everywhere.unwrap_or(false))
            .await?
            .ok_or(ApiError::Unauthenticated)?;
        Ok(LogoutPayload { ended_sessions: i32::try_from(ended).unwrap_or(i32::MAX) })
    }
}
