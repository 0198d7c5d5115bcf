//! `Node`, and who may look up what through it.

use async_graphql::{Context, ID, Interface};

use super::{
    drop::SneakerDrop, error::ApiError, purchase::Purchase, request::request, reservation::Reservation,
    user::User,
};
use crate::{
    accounts::{Person, Role},
    ids::NodeId,
    stock,
};

/// An object with a globally unique, opaque id, by which `node` can refetch it.
#[derive(Interface)]
#[graphql(field(
    name = "id",
    ty = "ID",
    desc = "Opaque and stable. A malformed id, or one of another kind, finds nothing; it is never a server error."
))]
pub(super) enum Node {
    /// A drop.
    Drop(SneakerDrop),
    /// A user.
    User(User),
    /// A reservation.
    Reservation(Reservation),
    /// A purchase.
    Purchase(Purchase),
}

/// Returns the object with this id, if it exists and the caller may see it.
pub(super) async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Node>, ApiError> {
    let request = request(ctx);
    Ok(match NodeId::decode(id) {
        None => None,
        Some(NodeId::Drop(id)) => request.loaders.drop(id).await?.map(Node::Drop),
        Some(NodeId::User(id)) => request.loaders.user(id).await?.map(|person| Node::User(person.into())),
        Some(NodeId::Purchase(id)) => {
            request.loaders.purchase(id).await?.map(|purchase| Node::Purchase(Purchase::new(purchase, None)))
        }
        Some(NodeId::Reservation(id)) => match request.loaders.reservation(id).await? {
            Some(reservation) if may_see(ctx, &reservation).await? => {
                Some(Node::Reservation(Reservation::new(reservation, None)))
            }
            _ => None,
        },
    })
}

/// Everyone may see live and purchased reservations; only their owner and administrators see others.
async fn may_see(ctx: &Context<'_>, reservation: &stock::Reservation) -> Result<bool, ApiError> {
    let request = request(ctx);
    if reservation.status.is_live()
        || request.caller().is_some_and(|caller| caller.user_id == reservation.user_id)
    {
        return Ok(true);
    }
    Ok(matches!(request.person().await?, Some(Person { role: Role::Admin, .. })))
}
