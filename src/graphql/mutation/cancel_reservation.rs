//! Cancel a reservation.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{parts, user_error};
use crate::{
    graphql::{drop::SneakerDrop, error::ApiError, request::request, reservation::Reservation},
    ids::ReservationId,
    stock::{Answer, CancelRefusal, StockError},
};

/// What to give back.
#[derive(InputObject)]
pub(super) struct CancelReservationInput {
    /// A hold of the buyer's.
    reservation_id: ID,
}

/// Why nothing was given back.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum CancelReservationErrorCode {
    /// No such reservation of this buyer; somebody else's looks just the same.
    ReservationNotFound,
    /// A purchase stays.
    AlreadyPurchased,
}

user_error!(
    /// A refusal of `cancelReservation`.
    CancelReservationUserError,
    CancelReservationErrorCode
);

impl From<CancelRefusal> for CancelReservationUserError {
    fn from(refusal: CancelRefusal) -> Self {
        use CancelReservationErrorCode as Code;
        let (code, message) = match refusal {
            CancelRefusal::NotFound => (Code::ReservationNotFound, "You have no such reservation."),
            CancelRefusal::AlreadyPurchased => {
                (Code::AlreadyPurchased, "This pair was bought; a purchase stays.")
            }
        };
        Self::new(code, message, &["reservationId"])
    }
}

/// What came of `cancelReservation`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct CancelReservationPayload {
    /// As it stands now; null when the buyer has no such reservation. To cancel one that is cancelled or expired already is a
    /// success that changes nothing.
    reservation: Option<Reservation>,
    /// The drop after this request; null when the buyer has no such reservation.
    drop: Option<SneakerDrop>,
    /// Why nothing was given back.
    user_errors: Vec<CancelReservationUserError>,
}

/// The mutation that gives back what is held.
#[derive(Default)]
pub(super) struct CancelReservationMutation;

#[Object(serial)]
impl CancelReservationMutation {
    /// Gives a held pair back before it lapses.
    async fn cancel_reservation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to give back.")] input: CancelReservationInput,
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
