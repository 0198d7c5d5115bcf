//! The `reserve` mutation.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{check_key, parts, user_error};
use crate::{
    graphql::{
        date_time::DateTime, drop::SneakerDrop, error::ApiError, request::request, reservation::Reservation,
    },
    ids::DropId,
    stock::{Reserve, ReserveRefusal, StockError},
};

/// The pair to reserve.
#[derive(InputObject)]
pub(super) struct ReserveInput {
    /// The drop's `id`.
    drop_id: ID,
    /// The size; may be omitted if the drop has one size.
    size: Option<String>,
    /// Chosen by the client, one per intent; 1 to 255 printable characters, scoped to the buyer and the drop. A retry
    /// with the same key returns the first reservation with its current status. Refusals are not remembered. If
    /// omitted, each call is a new intent: a retry may hold a second pair.
    idempotency_key: Option<String>,
    /// Required by a drop with `admissionRequired`: signed for this buyer and this drop, valid for one reservation.
    /// Retry with the same key and the same token.
    admission_token: Option<String>,
}

/// Why `reserve` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum ReserveErrorCode {
    /// There is no drop with this id.
    DropNotFound,
    /// The required admission token is missing, forged, for another buyer or drop, not valid now, or already used.
    AdmissionRequired,
    /// `startsAt` is in the future.
    NotStarted,
    /// `endsAt` has passed.
    Ended,
    /// The drop was cancelled.
    Cancelled,
    /// The drop has more than one size: choose one.
    SizeRequired,
    /// The drop does not come in this size.
    UnknownSize,
    /// Every pair of this size is sold.
    SoldOut,
    /// No pair of this size is available now; held pairs may return to stock: watch `stockUpdated`.
    AllHeld,
    /// The buyer already holds or bought `purchaseLimit` pairs; `reservation` is the live hold, if there is one.
    LimitReached,
    /// This key was already used for another size.
    IdempotencyKeyReused,
}

user_error!(
    /// A reason why `reserve` was refused.
    ReserveUserError,
    ReserveErrorCode
);

impl From<ReserveRefusal> for ReserveUserError {
    fn from(refusal: ReserveRefusal) -> Self {
        use ReserveErrorCode as Code;
        let (code, message, field): (_, _, &[&str]) = match refusal {
            ReserveRefusal::AdmissionRequired => (
                Code::AdmissionRequired,
                "This drop requires an admission token: your own, valid now and not used before.",
                &["admissionToken"],
            ),
            ReserveRefusal::NotStarted => (Code::NotStarted, "This drop has not started yet.", &[]),
            ReserveRefusal::Ended => (Code::Ended, "This drop has ended.", &[]),
            ReserveRefusal::Cancelled => (Code::Cancelled, "This drop was cancelled.", &[]),
            ReserveRefusal::SizeRequired => (Code::SizeRequired, "Choose a size.", &["size"]),
            ReserveRefusal::UnknownSize => {
                (Code::UnknownSize, "This drop does not come in this size.", &["size"])
            }
            ReserveRefusal::SoldOut => (Code::SoldOut, "This size is sold out.", &["size"]),
            ReserveRefusal::AllHeld => {
                (Code::AllHeld, "Every pair of this size is held right now; some may come back.", &["size"])
            }
            ReserveRefusal::LimitReached => {
                (Code::LimitReached, "You have reached this drop's limit of pairs per buyer.", &[])
            }
            ReserveRefusal::KeyReused => (
                Code::IdempotencyKeyReused,
                "This key was already used for another size.",
                &["idempotencyKey"],
            ),
        };
        Self::new(code, message, field)
    }
}

/// The result of `reserve`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct ReservePayload {
    /// The hold; after a retry it may have ended: check its `status`. On LIMIT_REACHED, the live hold that the buyer
    /// already has, if there is one.
    reservation: Option<Reservation>,
    /// The drop after this request, so that a normalised cache is right whether or not a pair was reserved; null if
    /// there is none.
    drop: Option<SneakerDrop>,
    /// The time of the database clock, for counting down to `reservation.expiresAt`.
    server_time: DateTime,
    /// Why no pair was reserved.
    user_errors: Vec<ReserveUserError>,
}

/// The mutation that holds a pair.
#[derive(Default)]
pub(super) struct ReserveMutation;

#[Object(serial)]
impl ReserveMutation {
    /// Holds one pair for the signed-in buyer. Never oversells; a hold expires by itself.
    async fn reserve(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The pair to reserve.")] input: ReserveInput,
    ) -> Result<ReservePayload, ApiError> {
        let request = request(ctx);
        let caller = request.signed_in()?;
        check_key(input.idempotency_key.as_deref())?;
        let answer = match DropId::decode(&input.drop_id) {
            Some(drop_id) => {
                let ReserveInput { size, idempotency_key, admission_token, .. } = input;
                let (app, buyer) = (request.app(), caller.user_id);
                let admission =
                    admission_token.and_then(|token| app.admissions.verify(&token, drop_id, buyer));
                app.stock.reserve(buyer, Reserve { drop_id, size, idempotency_key, admission }).await
            }
            None => Err(StockError::DropNotFound),
        };
        match answer {
            Ok(answer) => {
                let (reservation, drop) = parts(&answer);
                let user_errors = answer.refusal.into_iter().map(Into::into).collect();
                Ok(ReservePayload {
                    reservation,
                    drop,
                    server_time: DateTime(answer.state.read.at),
                    user_errors,
                })
            }
            Err(StockError::DropNotFound) => {
                let code = ReserveErrorCode::DropNotFound;
                let user_error = ReserveUserError::new(code, "There is no such drop.", &["dropId"]);
                let server_time = DateTime(request.app().drops.now().await?);
                Ok(ReservePayload {
                    reservation: None,
                    drop: None,
                    server_time,
                    user_errors: vec![user_error],
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}
