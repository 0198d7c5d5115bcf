//! `User`.

use async_graphql::{Context, ID, Object};

use super::{error::ApiError, request::request};
use crate::{
    accounts::{Person, PublicPerson},
    ids::{NodeId, UserId},
};

/// The public profile of a user.
#[derive(Clone)]
pub(super) struct User(PublicPerson);

impl User {
    pub(super) async fn load(ctx: &Context<'_>, id: UserId) -> Result<Self, ApiError> {
        let found = request(ctx).loaders.user(id).await?;
        // Users are anonymised, never deleted.
        found.map(Self).ok_or_else(|| ApiError::internal(format_args!("user {id} is gone")))
    }
}

impl From<PublicPerson> for User {
    fn from(person: PublicPerson) -> Self {
        Self(person)
    }
}

impl From<&Person> for User {
    fn from(person: &Person) -> Self {
        Self(PublicPerson { id: person.id, username: person.username.clone() })
    }
}

/// The public profile of a user.
#[Object(serial)]
impl User {
    /// An opaque, stable id for `node`.
    pub(super) async fn id(&self) -> ID {
        NodeId::User(self.0.id).encode().into()
    }

    /// The user's public name.
    async fn username(&self) -> &str {
        &self.0.username
    }
}
