//! The root mutation type, merged from one file per feature.

mod accounts;
mod cancel_reservation;
mod drops;
mod purchase;
mod reserve;

use async_graphql::{Interface, MergedObject};

use super::{drop::SneakerDrop, error::ApiError, reservation::Reservation};
use crate::stock::Answer;
use accounts::{AccountMutation, LoginUserError, RefreshUserError, SignupUserError};
use cancel_reservation::{CancelReservationMutation, CancelReservationUserError};
use drops::{CancelDropUserError, CreateDropUserError, DropMutation};
use purchase::{PurchaseMutation, PurchaseUserError};
use reserve::{ReserveMutation, ReserveUserError};

/// The root of all mutations. Each one except `logout` reports expected refusals in `userErrors`: it succeeded if and
/// only if that list is empty.
#[derive(MergedObject, Default)]
pub struct Mutation(
    AccountMutation,
    DropMutation,
    ReserveMutation,
    PurchaseMutation,
    CancelReservationMutation,
);

/// An expected refusal, returned as data: a mutation succeeded if and only if `userErrors` is empty.
/// Unexpected faults are top-level errors with `extensions.code`.
#[derive(Interface)]
#[graphql(
    field(
        name = "message",
        ty = "String",
        desc = "A human-readable text, which may change. Branch on `code`."
    ),
    field(
        name = "field",
        ty = "Option<Vec<String>>",
        desc = "Path of the input field at fault, such as [\"input\", \"email\"]; null if no single field is."
    )
)]
pub(super) enum UserError {
    /// Of `signup`.
    Signup(SignupUserError),
    /// Of `login`.
    Login(LoginUserError),
    /// Of `refresh`.
    Refresh(RefreshUserError),
    /// Of `createDrop`.
    CreateDrop(CreateDropUserError),
    /// Of `cancelDrop`.
    CancelDrop(CancelDropUserError),
    /// Of `reserve`.
    Reserve(ReserveUserError),
    /// Of `purchase`.
    Purchase(PurchaseUserError),
    /// Of `cancelReservation`.
    CancelReservation(CancelReservationUserError),
}

const LONGEST_KEY: usize = 255;

/// Checks that `key`, if given, is a valid idempotency key.
fn check_key(key: Option<&str>) -> Result<(), ApiError> {
    let Some(key) = key else { return Ok(()) };
    let length = key.chars().count();
    match (1..=LONGEST_KEY).contains(&length) && !key.chars().any(char::is_control) {
        true => Ok(()),
        false => {
            let message = format!("idempotencyKey: a key has 1 to {LONGEST_KEY} printable characters.");
            Err(ApiError::BadUserInput(message))
        }
    }
}

/// Returns the parts of a stock answer that every payload has.
fn parts<R>(answer: &Answer<R>) -> (Option<Reservation>, Option<SneakerDrop>) {
    let (reservation, drop) = (answer.reservation.clone(), SneakerDrop::new(answer.state.clone()));
    (reservation.map(|reservation| Reservation::new(reservation, Some(drop.clone()))), Some(drop))
}

/// Defines a user error type for an enum of codes.
macro_rules! user_error {
    ($(#[$doc:meta])* $name:ident, $code:ident) => {
        $(#[$doc])*
        pub(in crate::graphql) struct $name {
            code: $code,
            message: String,
            field: Option<Vec<String>>,
        }

        impl $name {
            /// `field` is the path below `input`; empty if no single field is at fault.
            fn new(code: $code, message: impl Into<String>, field: &[&str]) -> Self {
                let path = std::iter::once("input").chain(field.iter().copied()).map(str::to_owned);
                Self { code, message: message.into(), field: (!field.is_empty()).then(|| path.collect()) }
            }
        }

        $(#[$doc])*
        #[async_graphql::Object(serial)]
        impl $name {
            /// The machine-readable reason.
            async fn code(&self) -> $code {
                self.code
            }

            /// A human-readable text, which may change. Branch on `code`.
            pub(super) async fn message(&self) -> String {
                self.message.clone()
            }

            /// Path of the input field at fault, such as ["input", "email"]; null if no single field is.
            pub(super) async fn field(&self) -> Option<Vec<String>> {
                self.field.clone()
            }
        }
    };
}

use user_error;
