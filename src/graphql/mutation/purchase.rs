//! The `purchase` mutation.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{parts, user_error};
use crate::{
    graphql::{
        drop::SneakerDrop, error::ApiError, purchase::Purchase, request::request, reservation::Reservation,
    },
    ids::ReservationId,
    stock::{Answer, PurchaseRefusal, StockError},
};

/// The hold to purchase.
#[derive(InputObject)]
pub(super) struct PurchaseInput {
    /// The `id` of a live hold of the buyer.
    reservation_id: ID,
}

/// Why `purchase` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[expect(clippy::enum_variant_names, reason = "the API's names")]
pub(super) enum PurchaseErrorCode {
    /// The buyer has no such reservation. Another buyer's reservation gets the same answer.
    ReservationNotFound,
    /// `expiresAt` has passed.
    ReservationExpired,
    /// The hold was cancelled, by the buyer or together with its drop.
    ReservationCancelled,
}

user_error!(
    /// A reason why `purchase` was refused.
    PurchaseUserError,
    PurchaseErrorCode
);

impl From<PurchaseRefusal> for PurchaseUserError {
    fn from(refusal: PurchaseRefusal) -> Self {
        use PurchaseErrorCode as Code;
        let (code, message) = match refusal {
            PurchaseRefusal::NotFound => (Code::ReservationNotFound, "You have no such reservation."),
            PurchaseRefusal::Expired => {
                (Code::ReservationExpired, "This reservation has expired; its pair is available again.")
            }
            PurchaseRefusal::Cancelled => (Code::ReservationCancelled, "This reservation was cancelled."),
        };
        Self::new(code, message, &["reservationId"])
    }
}

/// The result of `purchase`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct PurchasePayload {
    /// The purchase; the same one if the reservation was already purchased, so a retry is safe. Null if it was refused.
    purchase: Option<Purchase>,
    /// The reservation in its current state, even if expired or cancelled; null if the buyer has no such reservation.
    reservation: Option<Reservation>,
    /// The drop after this request; null if the buyer has no such reservation.
    drop: Option<SneakerDrop>,
    /// Why nothing was purchased.
    user_errors: Vec<PurchaseUserError>,
}

/// The mutation that purchases a hold.
#[derive(Default)]
pub(super) struct PurchaseMutation;

#[Object(serial)]
impl PurchaseMutation {
    /// Turns the buyer's live hold into one purchase. Safe to retry.
    async fn purchase(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The hold to purchase.")] input: PurchaseInput,
    ) -> Result<PurchasePayload, ApiError> {
        let request = request(ctx);
        let caller = request.signed_in()?;
        let answer = match ReservationId::decode(&input.reservation_id) {
            Some(id) => request.app().stock.purchase(caller.user_id, id).await,
            None => Err(StockError::DropNotFound),
        };
        match answer {
            // Another buyer's reservation must look like one that does not exist, so its drop is left out too.
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
