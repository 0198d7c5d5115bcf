//! `Session`.

use async_graphql::{Context, Object};

use super::{date_time::DateTime, error::ApiError, request::request, viewer::Viewer};
use crate::accounts::SessionTokens;

/// The tokens of a sign-in.
pub(super) struct Session(pub(super) SessionTokens);

/// Tokens of one sign-in on one device.
#[Object(serial)]
impl Session {
    /// Send it as `Authorization: Bearer ..`, or over a WebSocket in the payload of `connection_init`.
    async fn access_token(&self) -> &str {
        &self.0.access
    }

    /// When the access token expires; refresh before then.
    async fn access_token_expires_at(&self) -> DateTime {
        DateTime(self.0.access_expires_at)
    }

    /// Valid for one refresh, which returns the next one.
    async fn refresh_token(&self) -> &str {
        &self.0.refresh
    }

    /// When the refresh token expires; sign in again after that. Each refresh extends it.
    async fn refresh_token_expires_at(&self) -> DateTime {
        DateTime(self.0.refresh_expires_at)
    }

    /// The signed-in user.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Viewer, ApiError> {
        let person = request(ctx).app().accounts.find_person(self.0.user_id).await?;
        person.map(Viewer::new).ok_or_else(|| ApiError::internal("a session without a person"))
    }
}
