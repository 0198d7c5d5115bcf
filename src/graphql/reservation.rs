//! `Reservation` and its connection.

use async_graphql::{ComplexObject, Context, Enum, ID, Object, SimpleObject};

use super::{
    date_time::DateTime,
    drop::SneakerDrop,
    error::ApiError,
    money::Money,
    page::{PageInfo, connection},
    purchase::Purchase,
    request::request,
    user::User,
};
use crate::{
    ids::{DropId, NodeId},
    page::{Cursor, Page},
    stock::{self, ListReservations},
};

/// The state of a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "stock::ReservationStatus")]
pub(super) enum ReservationStatus {
    /// Holds its pair until `expiresAt`.
    Active,
    /// Purchased by the buyer.
    Purchased,
    /// `expiresAt` has passed; anyone can reserve the pair again.
    Expired,
    /// Cancelled by the buyer, or together with its drop.
    Cancelled,
}

/// A reservation, and its drop as already shown in the answer.
#[derive(Clone)]
pub(super) struct Reservation {
    reservation: stock::Reservation,
    drop: Option<SneakerDrop>,
}

impl Reservation {
    /// `drop` is the drop that the answer already shows: all figures of one drop in one answer belong to one version,
    /// and its status to one instant.
    pub(super) fn new(reservation: stock::Reservation, drop: Option<SneakerDrop>) -> Self {
        Self { reservation, drop }
    }
}

/// Returns the drop as already shown in the answer, or else loads it.
pub(super) async fn drop_of(
    ctx: &Context<'_>,
    id: DropId,
    shown: Option<&SneakerDrop>,
) -> Result<SneakerDrop, ApiError> {
    if let Some(drop) = shown {
        return Ok(drop.clone());
    }
    let found = request(ctx).loaders.drop(id).await?;
    found.ok_or_else(|| ApiError::internal(format_args!("drop {id} has reservations and is gone")))
}

/// A pair held for one buyer until `expiresAt`.
#[Object(serial)]
impl Reservation {
    /// An opaque, stable id for `node`, `purchase` and `cancelReservation`.
    pub(super) async fn id(&self) -> ID {
        NodeId::Reservation(self.reservation.id).encode().into()
    }

    /// The drop that the pair belongs to.
    async fn drop(&self, ctx: &Context<'_>) -> Result<SneakerDrop, ApiError> {
        drop_of(ctx, self.reservation.id.drop_id, self.drop.as_ref()).await
    }

    /// The size as printed on the box.
    async fn size(&self) -> &str {
        &self.reservation.size
    }

    /// The buyer for whom the pair is held.
    async fn user(&self, ctx: &Context<'_>) -> Result<User, ApiError> {
        User::load(ctx, self.reservation.user_id).await
    }

    /// The state; EXPIRED as soon as `expiresAt` passes, even if the background task has not processed it yet.
    async fn status(&self) -> ReservationStatus {
        self.reservation.status.into()
    }

    /// Number of the pair within its size, from 1, as in a numbered edition.
    async fn pair_number(&self) -> i32 {
        self.reservation.pair_number
    }

    /// The price at the time of the reservation, which `purchase` charges.
    async fn price(&self) -> Money {
        self.reservation.price.clone().into()
    }

    /// When the pair was reserved.
    async fn created_at(&self) -> DateTime {
        DateTime(self.reservation.created_at)
    }

    /// When the hold expires; until then it can be purchased. Count down by `serverTime`, not by the device's clock.
    async fn expires_at(&self) -> DateTime {
        DateTime(self.reservation.expires_at)
    }

    /// The resulting purchase; null if there is none.
    async fn purchase(&self) -> Option<Purchase> {
        self.reservation.purchase().map(|purchase| Purchase::new(purchase, self.drop.clone()))
    }
}

/// A reservation and its cursor in a list.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct ReservationEdge {
    /// The entry's cursor, for `after`.
    cursor: String,
    /// The reservation.
    node: Reservation,
}

/// A page of reservations.
#[derive(SimpleObject)]
#[graphql(complex, serial)]
pub(super) struct ReservationConnection {
    /// The reservations with their cursors.
    edges: Vec<ReservationEdge>,
    /// The reservations.
    nodes: Vec<Reservation>,
    /// The page's position in the list.
    page_info: PageInfo,
    #[graphql(skip)]
    whole: Whole,
}

/// The list that a page belongs to.
enum Whole {
    OfDrop(SneakerDrop),
    OfPerson(ListReservations),
}

#[ComplexObject]
impl ReservationConnection {
    /// Number of reservations in the whole list. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32, ApiError> {
        let request = request(ctx);
        let count = match &self.whole {
            Whole::OfDrop(drop) => request.loaders.active_count(drop.state()).await?,
            Whole::OfPerson(list) => request.app().stock.count_own_reservations(list).await?,
        };
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

impl ReservationConnection {
    /// A page of a drop's live holds.
    pub(super) fn of_drop(page: Page<stock::Reservation>, after: Option<Cursor>, drop: &SneakerDrop) -> Self {
        Self::new(page, after, Whole::OfDrop(drop.clone()), Some(drop), stock::Reservation::deadline_cursor)
    }

    /// A page of a user's own reservations.
    pub(super) fn of_person(page: Page<stock::Reservation>, list: ListReservations) -> Self {
        Self::new(page, list.after, Whole::OfPerson(list), None, stock::Reservation::history_cursor)
    }

    fn new(
        page: Page<stock::Reservation>,
        after: Option<Cursor>,
        whole: Whole,
        drop: Option<&SneakerDrop>,
        cursor: fn(&stock::Reservation) -> Cursor,
    ) -> Self {
        let node = |reservation| Reservation::new(reservation, drop.cloned());
        let edge = |cursor, node| ReservationEdge { cursor, node };
        let (edges, nodes, page_info) = connection(page, after, cursor, node, edge);
        Self { edges, nodes, page_info, whole }
    }
}
