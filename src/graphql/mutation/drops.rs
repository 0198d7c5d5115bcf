//! Creating and withdrawing drops.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{check_key, user_error};
use crate::{
    drops::{CreateError, CreateRefusal, CreateRefusalCode, Intent, NewDrop, NewSize},
    graphql::{date_time::DateTime, drop::SneakerDrop, error::ApiError, money::MoneyInput, request::request},
    ids::{DropId, UserId},
    stock::StockError,
};

/// The opening stock of one size.
#[derive(InputObject)]
pub(super) struct DropSizeInput {
    /// As printed on the box, 1 to 32 characters: `US 9`, `EU 42.5`. Once per drop.
    size: String,
    /// Pairs of this size, 1 to 100,000; all sizes of a drop together have no more than that.
    stock: i32,
}

/// A new drop.
#[derive(InputObject)]
pub(super) struct CreateDropInput {
    /// Such as the model and its colourway, 1 to 200 characters.
    name: String,
    /// A text about it, at most 5,000 characters.
    description: Option<String>,
    /// A picture, `http` or `https`, at most 2,048 characters.
    image_url: Option<String>,
    /// What one pair costs.
    price: MoneyInput,
    /// Now, when left out.
    starts_at: Option<DateTime>,
    /// No end, when left out.
    ends_at: Option<DateTime>,
    /// How long a reservation holds a pair, in seconds, 1 to 86,400. Null means 60.
    #[graphql(default_with = "Some(60)")]
    hold_seconds: Option<i32>,
    /// Pairs one buyer may have, live reservations and purchases together, 1 to 10,000. Null means 1.
    #[graphql(default_with = "Some(1)")]
    purchase_limit: Option<i32>,
    /// Whether `reserve` wants an `admissionToken`. Null means that it does not.
    #[graphql(default_with = "Some(false)")]
    admission_required: Option<bool>,
    /// Up to 100 sizes; or `stock` for a drop that comes in one size only.
    sizes: Option<Vec<DropSizeInput>>,
    /// Pairs of a drop that comes in one size only, 1 to 100,000.
    stock: Option<i32>,
    /// Chosen by the client, once per intent; 1 to 255 printable characters, scoped to the administrator. A retry with the
    /// same key gets the drop that was made, as it is today. Refusals are not remembered. Left out, each call makes a drop of
    /// its own: after an answer that was lost, look at `drops` before trying again.
    idempotency_key: Option<String>,
}

impl CreateDropInput {
    fn made_by(self, user: UserId) -> NewDrop {
        let size = |size: DropSizeInput| NewSize { size: size.size, stock: size.stock };
        NewDrop {
            name: self.name,
            description: self.description,
            image_url: self.image_url,
            price: self.price.into(),
            starts_at: self.starts_at.map(|at| at.0),
            ends_at: self.ends_at.map(|at| at.0),
            hold_seconds: self.hold_seconds.unwrap_or(60),
            purchase_limit: self.purchase_limit.unwrap_or(1),
            admission_required: self.admission_required.unwrap_or(false),
            sizes: self.sizes.map(|sizes| sizes.into_iter().map(size).collect()),
            stock: self.stock,
            intent: self.idempotency_key.map(|key| Intent { user, key }),
        }
    }
}

/// Why a drop was not made.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "CreateRefusalCode")]
pub(super) enum CreateDropErrorCode {
    /// There is nothing in the field.
    Blank,
    /// Longer than the field may be.
    TooLong,
    /// Not of the field's form, or outside its bounds.
    Invalid,
    /// Zero or less where more is wanted.
    NotPositive,
    /// A size is there twice.
    Duplicate,
    /// `endsAt` does not come after `startsAt`, or has passed.
    EndsTooEarly,
    /// Both or neither of `sizes` and `stock`.
    SizesOrStock,
    /// This key was used before for a drop that differs from this one.
    IdempotencyKeyReused,
}

user_error!(
    /// A refusal of `createDrop`.
    CreateDropUserError,
    CreateDropErrorCode
);

impl From<CreateRefusal> for CreateDropUserError {
    fn from(refusal: CreateRefusal) -> Self {
        let field: Vec<&str> = refusal.field.iter().map(String::as_str).collect();
        Self::new(refusal.code.into(), refusal.message, &field)
    }
}

/// What came of `createDrop`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct CreateDropPayload {
    /// The drop; null when it was refused.
    drop: Option<SneakerDrop>,
    /// Every field that is malformed, at once; where none is, what else stands in the way.
    user_errors: Vec<CreateDropUserError>,
}

/// A drop to be withdrawn.
#[derive(InputObject)]
pub(super) struct CancelDropInput {
    /// Which.
    drop_id: ID,
}

/// Why a drop was not withdrawn.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum CancelDropErrorCode {
    /// There is no drop with this id.
    DropNotFound,
}

user_error!(
    /// A refusal of `cancelDrop`.
    CancelDropUserError,
    CancelDropErrorCode
);

/// What came of `cancelDrop`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct CancelDropPayload {
    /// The drop, withdrawn; null when there is none.
    drop: Option<SneakerDrop>,
    /// Why it was refused.
    user_errors: Vec<CancelDropUserError>,
}

/// Mutations of drops.
#[derive(Default)]
pub(super) struct DropMutation;

#[Object(serial)]
impl DropMutation {
    /// Announces a drop with its opening stock. Administrators only.
    async fn create_drop(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new drop.")] input: CreateDropInput,
    ) -> Result<CreateDropPayload, ApiError> {
        let request = request(ctx);
        let admin = request.admin().await?;
        check_key(input.idempotency_key.as_deref())?;
        match request.app().create_drop(input.made_by(admin.id)).await {
            Ok(state) => {
                Ok(CreateDropPayload { drop: Some(SneakerDrop::new(state)), user_errors: Vec::new() })
            }
            Err(CreateError::Refused(refusals)) => Ok(CreateDropPayload {
                drop: None,
                user_errors: refusals.into_iter().map(Into::into).collect(),
            }),
            Err(CreateError::Db(error)) => Err(error.into()),
        }
    }

    /// Withdraws a drop and cancels its live holds. Administrators only. Doing it twice changes nothing.
    async fn cancel_drop(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which drop.")] input: CancelDropInput,
    ) -> Result<CancelDropPayload, ApiError> {
        let request = request(ctx);
        request.admin().await?;
        let not_found = || {
            let code = CancelDropErrorCode::DropNotFound;
            let user_error = CancelDropUserError::new(code, "There is no such drop.", &["dropId"]);
            CancelDropPayload { drop: None, user_errors: vec![user_error] }
        };
        let Some(id) = DropId::decode(&input.drop_id) else { return Ok(not_found()) };
        match request.app().stock.cancel_drop(id).await {
            Ok(answer) => {
                Ok(CancelDropPayload { drop: Some(SneakerDrop::new(answer.state)), user_errors: Vec::new() })
            }
            Err(StockError::DropNotFound) => Ok(not_found()),
            Err(error) => Err(error.into()),
        }
    }
}
