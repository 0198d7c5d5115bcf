//! Sign-up, sign-in, refresh, logout.

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
    /// 3 to 30 letters A to Z, digits, dots, dashes and underscores, beginning with a letter or digit. Public. Unique,
    /// look-alikes included.
    username: String,
    /// For signing in. Not public.
    email: String,
    /// 10 to 128 characters, none of the common ones.
    password: String,
}

/// Why an account was not made.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum SignupErrorCode {
    /// Somebody has this username, or one that looks like it.
    UsernameTaken,
    /// Not 3 to 30 letters A to Z, digits, dots, dashes and underscores, beginning with a letter or digit.
    UsernameInvalid,
    /// An account with this address exists: sign in.
    EmailTaken,
    /// Not an e-mail address.
    EmailInvalid,
    /// Under 10 characters.
    PasswordTooShort,
    /// Over 128 characters.
    PasswordTooLong,
    /// On the list of those that guessers try first.
    PasswordTooCommon,
}

user_error!(
    /// A refusal of `signup`.
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

/// What came of `signup`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct SignupPayload {
    /// The first session of the new account; null when it was refused.
    session: Option<Session>,
    /// Every field that is malformed, at once; where none is, what else stands in the way.
    user_errors: Vec<SignupUserError>,
}

/// Who signs in.
#[derive(InputObject)]
pub(super) struct LoginInput {
    /// The account's address.
    email: String,
    /// The account's password.
    password: String,
}

/// Why nobody was signed in.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum LoginErrorCode {
    /// The same answer, after the same time, for an unknown email and for a wrong password.
    InvalidCredentials,
}

user_error!(
    /// A refusal of `login`.
    LoginUserError,
    LoginErrorCode
);

/// What came of `login`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct LoginPayload {
    /// A new session; null when it was refused.
    session: Option<Session>,
    /// Why it was refused.
    user_errors: Vec<LoginUserError>,
}

/// A refresh token.
#[derive(InputObject)]
pub(super) struct RefreshInput {
    /// The newest one of the session.
    refresh_token: String,
}

/// Why a token was not renewed.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum RefreshErrorCode {
    /// Unknown, expired, revoked or used before.
    InvalidRefreshToken,
}

user_error!(
    /// A refusal of `refresh`.
    RefreshUserError,
    RefreshErrorCode
);

/// What came of `refresh`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct RefreshPayload {
    /// The session with new tokens; null when it was refused: sign in again.
    session: Option<Session>,
    /// Why it was refused.
    user_errors: Vec<RefreshUserError>,
}

/// What ends.
#[derive(InputObject)]
pub(super) struct LogoutInput {
    /// Names the session, whatever access token is sent; left out, the access token does.
    refresh_token: Option<String>,
    /// Ends every session of the signed-in person, not only this one. Null means false.
    #[graphql(default_with = "Some(false)")]
    everywhere: Option<bool>,
}

/// What came of `logout`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct LogoutPayload {
    /// How many sessions ended.
    ended_sessions: i32,
}

/// Mutations of accounts.
#[derive(Default)]
pub(super) struct AccountMutation;

#[Object(serial)]
impl AccountMutation {
    /// Makes an account and signs it in.
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

    /// Signs in: opens a session.
    async fn login(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who signs in.")] input: LoginInput,
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
        let message = "No account has this e-mail address and this password.";
        let refusal = LoginUserError::new(LoginErrorCode::InvalidCredentials, message, &[]);
        let user_errors = if session.is_none() { vec![refusal] } else { Vec::new() };
        Ok(LoginPayload { session, user_errors })
    }

    /// Trades a refresh token for the next one and a new access token. Of parallel trades of one token all get the
    /// same; one shown again after ten seconds, or when its successor was traded too, ends the session, for it was stolen.
    async fn refresh(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The token to trade.")] input: RefreshInput,
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

    /// Ends a session: that of the access token, or that of the refresh token given.
    async fn logout(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which sessions; by default the access token's.")] input: Option<LogoutInput>,
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
