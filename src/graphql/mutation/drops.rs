//! The mutations of drops.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};

use super::{check_key, user_error};
use crate::{
    drops::{CreateError, CreateRefusal, CreateRefusalCode, Intent, NewDrop, NewSize},
    graphql::{date_time::DateTime, drop::SneakerDrop, error::ApiError, money::MoneyInput, request::request},
    ids::{DropId, UserId},
    stock::StockError,
};

/// The initial stock of one size.
#[derive(InputObject)]
pub(super) struct DropSizeInput {
    /// The size as printed on the box, 1 to 32 characters, such as `US 9` or `EU 42.5`. Unique within the drop.
    size: String,
    /// Number of pairs, 1 to 100,000; all sizes of a drop together may have no more than that.
    stock: i32,
}

/// A new drop.
#[derive(InputObject)]
pub(super) struct CreateDropInput {
    /// The name, such as the model and its colourway, 1 to 200 characters.
    name: String,
    /// The description, at most 5,000 characters.
    description: Option<String>,
    /// URL of a picture, `http` or `https`, at most 2,048 characters.
    image_url: Option<String>,
    /// The price of one pair.
    price: MoneyInput,
    /// Start of the sale; now if omitted.
    starts_at: Option<DateTime>,
    /// End of the sale; none if omitted.
    ends_at: Option<DateTime>,
    /// How long a reservation holds a pair, in seconds, 1 to 86,400. Null means 60.
    #[graphql(default_with = "Some(60)")]
    hold_seconds: Option<i32>,
    /// Maximum number of pairs per buyer, counting live reservations and purchases, 1 to 10,000. Null means 1.
    #[graphql(default_with = "Some(1)")]
    purchase_limit: Option<i32>,
    /// Whether `reserve` requires an `admissionToken`. Null means false.
    #[graphql(default_with = "Some(false)")]
    admission_required: Option<bool>,
    /// Up to 100 sizes; for a drop in one size only, give `stock` instead.
    sizes: Option<Vec<DropSizeInput>>,
    /// Number of pairs of a drop in one size only, 1 to 100,000.
    stock: Option<i32>,
    /// Chosen by the client, one per intent; 1 to 255 printable characters, scoped to the administrator. A retry with
    /// the same key returns the drop that was created, in its current state. Refusals are not remembered. If omitted,
    /// each call creates a new drop: after a lost response, check `drops` before retrying.
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

/// Why `createDrop` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "CreateRefusalCode")]
pub(super) enum CreateDropErrorCode {
    /// The field is blank.
    Blank,
    /// The value is too long.
    TooLong,
    /// The value is malformed or out of bounds.
    Invalid,
    /// The value must be above zero.
    NotPositive,
    /// A size is listed twice.
    Duplicate,
    /// `endsAt` is not after `startsAt`, or has passed.
    EndsTooEarly,
    /// Both or neither of `sizes` and `stock` were given.
    SizesOrStock,
    /// This key was already used for a different drop.
    IdempotencyKeyReused,
}

user_error!(
    /// A reason why `createDrop` was refused.
    CreateDropUserError,
    CreateDropErrorCode
);

impl From<CreateRefusal> for CreateDropUserError {
    fn from(refusal: CreateRefusal) -> Self {
        let field: Vec<&str> = refusal.field.iter().map(String::as_str).collect();
        Self::new(refusal.code.into(), refusal.message, &field)
    }
}

/// The result of `createDrop`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct CreateDropPayload {
    /// The drop; null if the request was refused.
    drop: Option<SneakerDrop>,
    /// All malformed fields at once; if there are none, any other reason for the refusal.
    user_errors: Vec<CreateDropUserError>,
}

/// The drop to cancel.
#[derive(InputObject)]
pub(super) struct CancelDropInput {
    /// The drop's `id`.
    drop_id: ID,
}

/// Why `cancelDrop` was refused.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum CancelDropErrorCode {
    /// There is no drop with this id.
    DropNotFound,
}

user_error!(
    /// A reason why `cancelDrop` was refused.
    CancelDropUserError,
    CancelDropErrorCode
);

/// The result of `cancelDrop`.
#[derive(SimpleObject)]
#[graphql(serial)]
pub(super) struct CancelDropPayload {
    /// The cancelled drop; null if there is none.
    drop: Option<SneakerDrop>,
    /// Why the request was refused.
    user_errors: Vec<CancelDropUserError>,
}

/// Mutations of drops.
#[derive(Default)]
pub(super) struct DropMutation;

#[Object(serial)]
impl DropMutation {
    /// Creates a drop with its initial stock. Administrators only.
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

    /// Cancels a drop and its live holds. Administrators only. Cancelling twice changes nothing.
    async fn cancel_drop(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The drop to cancel.")] input: CancelDropInput,
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
