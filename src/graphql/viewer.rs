//! `Viewer`.

use async_graphql::{Context, Enum, ID, Object};

use super::{
    error::ApiError,
    page::{list_cost, page_size, place},
    purchase::PurchaseConnection,
    request::request,
    reservation::{ReservationConnection, ReservationStatus},
    user::User,
};
use crate::{
    accounts::{self, Person},
    ids::{self, DropId},
    page::{List, Page},
    stock::ListReservations,
};

/// What a user may do.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "accounts::Role")]
pub(super) enum Role {
    /// May reserve and purchase.
    Buyer,
    /// May create and cancel drops.
    Admin,
}

/// The signed-in user.
pub(super) struct Viewer(Person);

impl Viewer {
    pub(super) fn new(person: Person) -> Self {
        Self(person)
    }
}

/// The signed-in user, with data that only they can see.
#[Object(serial)]
impl Viewer {
    /// A key for client caches; `node` does not accept it.
    async fn id(&self) -> ID {
        ids::viewer_id(self.0.id).into()
    }

    /// The user's public profile.
    async fn user(&self) -> User {
        (&self.0).into()
    }

    /// The email address used to sign in.
    async fn email(&self) -> &str {
        &self.0.email
    }

    /// What the user may do.
    async fn role(&self) -> Role {
        self.0.role.into()
    }

    /// The user's reservations, newest first.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn reservations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum number of entries, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list; the page starts after its entry.")] after: Option<String>,
        #[graphql(desc = "Only those of this drop; an unknown drop has none.")] drop_id: Option<ID>,
        #[graphql(desc = "Only those with one of these statuses; null means any.")] statuses: Option<
            Vec<ReservationStatus>,
        >,
    ) -> Result<ReservationConnection, ApiError> {
        let mut statuses: Option<Vec<_>> =
            statuses.map(|statuses| statuses.into_iter().map(Into::into).collect());
        let (first, after) = (page_size(first, 20)?, place(List::Reservations, after.as_deref())?);
        let (drop_id, known) = drop_filter(drop_id);
        if !known {
            // An invalid id must match nothing, and neither does an empty list of statuses.
            statuses = Some(Vec::new());
        }
        let list = ListReservations { user: self.0.id, first, after, drop_id, statuses };
        let page = request(ctx).app().stock.list_own_reservations(&list).await?;
        Ok(ReservationConnection::of_person(page, list))
    }

    /// The user's purchases, newest first.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum number of entries, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list; the page starts after its entry.")] after: Option<String>,
        #[graphql(desc = "Only those of this drop; an unknown drop has none.")] drop_id: Option<ID>,
    ) -> Result<PurchaseConnection, ApiError> {
        let (first, after) = (page_size(first, 20)?, place(List::Purchases, after.as_deref())?);
        let (drop_id, known) = drop_filter(drop_id);
        let page = match known {
            true => request(ctx).app().stock.list_own_purchases(self.0.id, drop_id, first, after).await?,
            false => Page::of(Vec::new(), first),
        };
        Ok(PurchaseConnection::new(page, after))
    }
}

/// Returns the drop to filter by, and whether its id is valid.
fn drop_filter(drop_id: Option<ID>) -> (Option<DropId>, bool) {
    match drop_id {
        None => (None, true),
        Some(id) => {
            let decoded = DropId::decode(&id);
            (decoded, decoded.is_some())
        }
    }
}
