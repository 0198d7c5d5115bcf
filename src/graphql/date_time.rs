//! The scalar `DateTime`.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};

use chrono::{SubsecRound as _, Timelike as _};

use crate::clock::{Timestamp, to_rfc3339};

/// An instant as the API sends and receives it.
#[derive(Clone, Copy)]
pub(super) struct DateTime(pub(super) Timestamp);

/// An RFC 3339 instant in UTC with exactly three decimals and `Z`: `2026-11-22T18:00:00.000Z`. Input may have any
/// offset, and is truncated to milliseconds.
#[Scalar(name = "DateTime", specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        let parsed = chrono::DateTime::parse_from_rfc3339(text).ok();
        // chrono accepts a leap second in any minute; PostgreSQL reads it as the first second of the next one.
        let parsed = parsed.filter(|at| at.nanosecond() < 1_000_000_000);
        parsed
            .map(|at| Self(at.to_utc().trunc_subsecs(3)))
            .ok_or_else(|| InputValueError::custom("not an instant as in RFC 3339"))
    }

    fn to_value(&self) -> Value {
        Value::String(to_rfc3339(self.0))
    }
}
