//! Purchase.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{parts, user_error};
use crate::{
    graphql::{
        drop::SneakerDrop, error::ApiError, purchase::Purchase, request::request, reservation::Reservation,
    },
    ids::ReservationId,
    stock::{Answer, PurchaseRefusal, StockError},
};

/// What to buy.
#[derive(InputObject)]
pub(super) struct PurchaseInput {
    /// A live hold of the buyer's.
    reservation_id: ID,
}

/// Why nothing was bought.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[expect(clippy::enum_variant_names, reason = "the API's names")]
pub(super) enum PurchaseErrorCode {
    /// No such reservation of this buyer; somebody else's looks just the same.
    ReservationNotFound,
    /// `expiresAt` has passed.
    ReservationExpired,
    /// The hold was given back, or cancelled with its drop.
    ReservationCancelled,
}

user_error!(
    /// A refusal of `purchase`.
    PurchaseUserError,
    PurchaseErrorCode
);

impl From<PurchaseRefusal> for PurchaseUserError {
    fn from(refusal: PurchaseRefusal) -> Self {
        use PurchaseErrorCode as Code;
        let (code, message) = match refusal {
            PurchaseRefusal::NotFound => (Code::ReservationNotFound, "You have no such reservation."),
            PurchaseRefusal::Expired => {
                (Code::ReservationExpired, "This hold has lapsed; its pair is free again.")
            }
            PurchaseRefusal::Cancelled => (Code::ReservationCancelled, "This hold was cancelled."),
        };
        Self::new(code, message, &["reservationId"])
    }
}

/// What came of `purchase`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct PurchasePayload {
    /// The same purchase again when the reservation was bought before: a retry is safe. Null when it was refused.
    purchase: Option<Purchase>,
    /// As it stands now, also when it has lapsed or was cancelled; null when the buyer has no such reservation.
    reservation: Option<Reservation>,
    /// The drop after this request; null when the buyer has no such reservation.
    drop: Option<SneakerDrop>,
    /// Why nothing was bought.
    user_errors: Vec<PurchaseUserError>,
}

/// The mutation that buys what is held.
#[derive(Default)]
pub(super) struct PurchaseMutation;

#[Object(serial)]
impl PurchaseMutation {
    /// Turns the buyer's live hold into a purchase, once.
    async fn purchase(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to buy.")] input: PurchaseInput,
    ) -> Result<PurchasePayload, ApiError> {
        let request = request(ctx);
        let caller = request.signed_in()?;
        let answer = match ReservationId::decode(&input.reservation_id) {
            Some(id) => request.app().stock.purchase(caller.user_id, id).await,
            None => Err(StockError::DropNotFound),
        };
        match answer {
            // Somebody else's reservation must not be told apart from one that is not there, by its drop neither.
            Ok(Answer { refusal: Some(PurchaseRefusal::NotFound), .. }) | Err(StockError::DropNotFound) => {
                let user_errors = vec![PurchaseRefusal::NotFound.into()];
                Ok(PurchasePayload { purchase: None, reservation: None, drop: None, user_errors })
            }
            Ok(answer) => {
                let (reservation, drop) = parts(&answer);
                let purchase = answer.purchase().map(|purchase| Purchase::new(purchase, drop.clone()));
                let user_errors = answer.refusal.into_iter().map(Into::into).collect();
                Ok(PurchasePayload { purchase, reservation, drop, user_errors })
            }
            Err(error) => Err(error.into()),
        }
    }
}
