//! `Session`.

use async_graphql::{Context, Object};

use super::{date_time::DateTime, error::ApiError, request::request, viewer::Viewer};
use crate::accounts::SessionTokens;

/// The tokens of a sign-in.
pub(super) struct Session(pub(super) SessionTokens);

/// Tokens of one sign-in on one device.
#[Object(serial)]
impl Session {
    /// Send it as `Authorization: Bearer ..`, over a WebSocket in the payload of `connection_init`.
    async fn access_token(&self) -> &str {
        &self.0.access
    }

    /// Refresh before this instant.
    async fn access_token_expires_at(&self) -> DateTime {
        DateTime(self.0.access_expires_at)
    }

    /// Good for one refresh; each refresh hands out the next one.
    async fn refresh_token(&self) -> &str {
        &self.0.refresh
    }

    /// Sign in again after this instant. Each refresh moves it on.
    async fn refresh_token_expires_at(&self) -> DateTime {
        DateTime(self.0.refresh_expires_at)
    }

    /// Who is signed in.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Viewer, ApiError> {
        let person = request(ctx).app().accounts.find_person(self.0.user_id).await?;
        person.map(Viewer::new).ok_or_else(|| ApiError::internal("a session without a person"))
    }
}
