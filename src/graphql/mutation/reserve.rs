//! Reserve.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{check_key, parts, user_error};
use crate::{
    graphql::{
        date_time::DateTime, drop::SneakerDrop, error::ApiError, request::request, reservation::Reservation,
    },
    ids::DropId,
    stock::{Reserve, ReserveRefusal, StockError},
};

/// What to hold.
#[derive(InputObject)]
pub(super) struct ReserveInput {
    /// Of which drop.
    drop_id: ID,
    /// May be left out when the drop has one size.
    size: Option<String>,
    /// Chosen by the client, once per intent; 1 to 255 printable characters, scoped to the buyer and the drop. A
    /// retry with the same key gets the first reservation back, with its status of today. Refusals are not
    /// remembered. Left out, each call is an intent of its own: a retry may hold a second pair.
    idempotency_key: Option<String>,
    /// For a drop with `admissionRequired`: signed for this buyer and this drop, and good for one reservation. A retry
    /// with the same key shows the same token again.
    admission_token: Option<String>,
}

/// Why no pair was held.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum ReserveErrorCode {
    /// There is no drop with this id.
    DropNotFound,
    /// The drop wants an admission, and there is none, or one that is forged, another's, not good now, or used.
    AdmissionRequired,
    /// `startsAt` lies ahead.
    NotStarted,
    /// `endsAt` has passed.
    Ended,
    /// The drop was withdrawn.
    Cancelled,
    /// The drop has more than one size: name one.
    SizeRequired,
    /// The drop does not come in this size.
    UnknownSize,
    /// Every pair of this size is sold.
    SoldOut,
    /// No pair of this size is free now; held ones may come back: watch `stockUpdated`.
    AllHeld,
    /// The buyer already holds or bought `purchaseLimit` pairs; `reservation` is the live hold, when there is one.
    LimitReached,
    /// This key was used before for another size.
    IdempotencyKeyReused,
}

user_error!(
    /// A refusal of `reserve`.
    ReserveUserError,
    ReserveErrorCode
);

impl From<ReserveRefusal> for ReserveUserError {
    fn from(refusal: ReserveRefusal) -> Self {
        use ReserveErrorCode as Code;
        let (code, message, field): (_, _, &[&str]) = match refusal {
            ReserveRefusal::AdmissionRequired => (
                Code::AdmissionRequired,
                "This drop wants an admission token that is yours, good now, and not used before.",
                &["admissionToken"],
            ),
            ReserveRefusal::NotStarted => (Code::NotStarted, "This drop has not started yet.", &[]),
            ReserveRefusal::Ended => (Code::Ended, "This drop is over.", &[]),
            ReserveRefusal::Cancelled => (Code::Cancelled, "This drop was withdrawn.", &[]),
            ReserveRefusal::SizeRequired => (Code::SizeRequired, "Choose a size.", &["size"]),
            ReserveRefusal::UnknownSize => {
                (Code::UnknownSize, "This drop does not come in this size.", &["size"])
            }
            ReserveRefusal::SoldOut => (Code::SoldOut, "This size is sold out.", &["size"]),
            ReserveRefusal::AllHeld => {
                (Code::AllHeld, "Every pair of this size is held right now; some may come back.", &["size"])
            }
            ReserveRefusal::LimitReached => {
                (Code::LimitReached, "You have as many pairs of this drop as one buyer may.", &[])
            }
            ReserveRefusal::KeyReused => {
                (Code::IdempotencyKeyReused, "This key was used for another size.", &["idempotencyKey"])
            }
        };
        Self::new(code, message, field)
    }
}

/// What came of `reserve`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct ReservePayload {
    /// The hold; after a retry it may be over, as its `status` says. On LIMIT_REACHED the live one that the buyer has
    /// already, if there is one.
    reservation: Option<Reservation>,
    /// The drop after this request, so that a normalised cache is right whether or not a pair was had; null when there is
    /// none.
    drop: Option<SneakerDrop>,
    /// The database clock, to count down to `reservation.expiresAt`.
    server_time: DateTime,
    /// Why no pair was held.
    user_errors: Vec<ReserveUserError>,
}

/// The mutation that holds a pair.
#[derive(Default)]
pub(super) struct ReserveMutation;

#[Object(serial)]
impl ReserveMutation {
    /// Holds one pair for the signed-in buyer. Never oversells; a hold lapses by itself.
    async fn reserve(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to hold.")] input: ReserveInput,
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
