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

/// What a person may do.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "accounts::Role")]
pub(super) enum Role {
    /// May reserve and purchase.
    Buyer,
    /// May create and run drops.
    Admin,
}

/// The signed-in person.
pub(super) struct Viewer(Person);

impl Viewer {
    pub(super) fn new(person: Person) -> Self {
        Self(person)
    }
}

/// The signed-in person, as only they see themselves.
#[Object(serial)]
impl Viewer {
    /// For client caches; not a `Node`.
    async fn id(&self) -> ID {
        ids::viewer_id(self.0.id).into()
    }

    /// What everyone may see of them.
    async fn user(&self) -> User {
        (&self.0).into()
    }

    /// The address with which they sign in.
    async fn email(&self) -> &str {
        &self.0.email
    }

    /// What they may do.
    async fn role(&self) -> Role {
        self.0.role.into()
    }

    /// Newest first.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn reservations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many at most, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: the entries that follow it.")] after: Option<String>,
        #[graphql(desc = "Of this drop only; an unknown one has none.")] drop_id: Option<ID>,
        #[graphql(desc = "In one of these states only; null means any.")] statuses: Option<
            Vec<ReservationStatus>,
        >,
    ) -> Result<ReservationConnection, ApiError> {
        let mut statuses: Option<Vec<_>> =
            statuses.map(|statuses| statuses.into_iter().map(Into::into).collect());
        let (first, after) = (page_size(first, 20)?, place(List::Reservations, after.as_deref())?);
        let (drop_id, known) = drop_filter(drop_id);
        if !known {
            // An id that leads nowhere finds nothing: what is in no state at all.
            statuses = Some(Vec::new());
        }
        let list = ListReservations { user: self.0.id, first, after, drop_id, statuses };
        let page = request(ctx).app().stock.list_own_reservations(&list).await?;
        Ok(ReservationConnection::of_person(page, list))
    }

    /// Newest first.
    #[graphql(complexity = "list_cost(first, 20, child_complexity)")]
    async fn purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many at most, 0 to 50; null means 20.", default_with = "Some(20)")]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: the entries that follow it.")] after: Option<String>,
        #[graphql(desc = "Of this drop only; an unknown one has none.")] drop_id: Option<ID>,
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

/// The drop to filter by, and whether its id can lead anywhere.
fn drop_filter(drop_id: Option<ID>) -> (Option<DropId>, bool) {
    match drop_id {
        None => (None, true),
        Some(id) => {
            let decoded = DropId::decode(&id);
            (decoded, decoded.is_some())
        }
    }
}
