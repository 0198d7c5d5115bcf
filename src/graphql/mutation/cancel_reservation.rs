//! The `cancelReservation` mutation.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{parts, user_error};
use crate::{
    graphql::{drop::SneakerDrop, error::ApiError, request::request, reservation::Reservation},
    ids::ReservationId,
    stock::{Answer, CancelRefusal, StockError},
};

/// The hold to cancel.
#[derive(InputObject)]
pub(super) struct CancelReservationInput {
    /// The `id` of a hold of the buyer.
    reservation_id: ID,
}

/// Why `cancelReservation` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum CancelReservationErrorCode {
    /// The buyer has no such reservation. Another buyer's reservation gets the same answer.
    ReservationNotFound,
    /// The pair was purchased; a purchase cannot be cancelled.
    AlreadyPurchased,
}

user_error!(
    /// A reason why `cancelReservation` was refused.
    CancelReservationUserError,
    CancelReservationErrorCode
);

impl From<CancelRefusal> for CancelReservationUserError {
    fn from(refusal: CancelRefusal) -> Self {
        use CancelReservationErrorCode as Code;
        let (code, message) = match refusal {
            CancelRefusal::NotFound => (Code::ReservationNotFound, "You have no such reservation."),
            CancelRefusal::AlreadyPurchased => {
                (Code::AlreadyPurchased, "This pair was purchased and cannot be cancelled.")
            }
        };
        Self::new(code, message, &["reservationId"])
    }
}

/// The result of `cancelReservation`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct CancelReservationPayload {
    /// The reservation in its current state; null if the buyer has no such reservation. Cancelling one that is already
    /// cancelled or expired succeeds and changes nothing.
    reservation: Option<Reservation>,
    /// The drop after this request; null if the buyer has no such reservation.
    drop: Option<SneakerDrop>,
    /// Why nothing was cancelled.
    user_errors: Vec<CancelReservationUserError>,
}

/// The mutation that cancels a hold.
#[derive(Default)]
pub(super) struct CancelReservationMutation;

#[Object(serial)]
impl CancelReservationMutation {
    /// Cancels a hold before it expires and returns its pair to stock.
    async fn cancel_reservation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The hold to cancel.")] input: CancelReservationInput,
    ) -> Result<CancelReservationPayload, ApiError> {
        let request = request(ctx);
        let caller = request.signed_in()?;
        let answer = match ReservationId::decode(&input.reservation_id) {
            Some(id) => request.app().stock.cancel_reservation(caller.user_id, id).await,
            None => Err(StockError::DropNotFound),
        };
        match answer {
            Ok(Answer { refusal: Some(CancelRefusal::NotFound), .. }) | Err(StockError::DropNotFound) => {
                let user_errors = vec![CancelRefusal::NotFound.into()];
                Ok(CancelReservationPayload { reservation: None, drop: None, user_errors })
            }
            Ok(answer) => {
                let (reservation, drop) = parts(&answer);
                let user_errors = answer.refusal.into_iter().map(Into::into).collect();
                Ok(CancelReservationPayload { reservation, drop, user_errors })
            }
            Err(error) => Err(error.into()),
        }
    }
}
