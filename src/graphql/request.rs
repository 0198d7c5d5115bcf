//! What a request brings to its resolvers.

use async_graphql::Context;

use super::{error::ApiError, loaders::Loaders, rounds::Queue};
use crate::{
    accounts::{Caller, Person, Role},
    app::App,
};

/// Who a request says it is from.
#[derive(Clone, Copy, Debug)]
pub enum Credentials {
    /// No access token.
    Anonymous,
    /// A good one.
    SignedIn(Caller),
    /// One that is forged, mangled, run out or of an ended session. Not the same as none: the client believes that
    /// it is signed in, and has to learn that it is not.
    Rejected,
}

/// The one thing that resolvers take out of their context.
pub(super) struct RequestContext {
    pub(super) app: App,
    pub(super) loaders: Loaders,
    credentials: Credentials,
}

impl RequestContext {
    pub(super) fn new(app: &App, credentials: Credentials, loads: &Queue) -> Self {
        Self { app: app.clone(), loaders: Loaders::new(app, loads), credentials }
    }

    /// The caller's access token's bearer, if there is one.
    pub(super) fn caller(&self) -> Option<Caller> {
        match self.credentials {
            // A token may run out, or its session end, while an operation goes on.
            Credentials::SignedIn(caller) => self.app.accounts.session_lives(&caller).then_some(caller),
            Credentials::Anonymous | Credentials::Rejected => None,
        }
    }

    /// The caller, who must be signed in.
    pub(super) fn signed_in(&self) -> Result<Caller, ApiError> {
        self.caller().ok_or(ApiError::Unauthenticated)
    }

    /// The caller's account, if signed in.
    pub(super) async fn person(&self) -> Result<Option<Person>, ApiError> {
        let Some(caller) = self.caller() else { return Ok(None) };
        let person = self.app.accounts.find_person(caller.user_id).await?;
        person.map(Some).ok_or(ApiError::Unauthenticated)
    }

    /// The caller, who must be an administrator, now and by the database: a role that was taken is gone at once.
    pub(super) async fn admin(&self) -> Result<Person, ApiError> {
        let person = self.person().await?.ok_or(ApiError::Unauthenticated)?;
        match person.role {
            Role::Admin => Ok(person),
            Role::Buyer => Err(ApiError::Forbidden),
        }
    }
}

/// The request behind a resolver's context.
pub(super) fn request<'a>(ctx: &Context<'a>) -> &'a RequestContext {
    match ctx.data::<RequestContext>() {
        Ok(request) => request,
        Err(error) => unreachable!("every road to the schema goes through `prepare`: {error:?}"),
    }
}
