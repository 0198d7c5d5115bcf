//! `Money`.

use async_graphql::{InputObject, SimpleObject};

use crate::drops;

/// An amount of money in minor units (ISO 4217), so that no price is a float.
#[derive(Clone, SimpleObject)]
#[graphql(serial)]
pub(super) struct Money {
    /// The amount in the currency's minor unit: 18000 is 180.00 USD.
    amount: i32,
    /// ISO 4217 code, such as USD.
    currency: String,
}

impl From<drops::Money> for Money {
    fn from(money: drops::Money) -> Self {
        Self { amount: money.amount, currency: money.currency }
    }
}

/// A price.
#[derive(InputObject)]
pub(super) struct MoneyInput {
    /// The amount in the currency's minor unit, above zero: 18000 is 180.00 USD.
    amount: i32,
    /// ISO 4217 code in capital letters, such as USD.
    currency: String,
}

impl From<MoneyInput> for drops::Money {
    fn from(money: MoneyInput) -> Self {
        Self { amount: money.amount, currency: money.currency }
    }
}
