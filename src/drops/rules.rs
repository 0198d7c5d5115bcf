//! Validates new drops.

use std::collections::HashSet;

use unicode_normalization::UnicodeNormalization as _;
use url::Url;

use super::{DropState, Money};
use crate::{
    clock::Timestamp,
    ids::UserId,
    text::{is_blank, is_deceptive},
};

const LONGEST_NAME: usize = 200;
const LONGEST_DESCRIPTION: usize = 5_000;
const LONGEST_URL: usize = 2_048;
const LONGEST_SIZE: usize = 32;
const MOST_SIZES: usize = 100;
/// Each pair is a row, and one statement inserts them all (`db::LONG_STATEMENT`).
const MOST_PAIRS: i64 = 100_000;
const LONGEST_HOLD: i32 = 24 * 60 * 60;
const HIGHEST_LIMIT: i32 = 10_000;
/// The size of a drop that has only one.
const ONLY_SIZE: &str = "ONE";

/// A new drop as an administrator describes it.
#[derive(Clone, Debug)]
pub struct NewDrop {
    /// 1 to 200 characters.
    pub name: String,
    /// At most 5,000 characters.
    pub description: Option<String>,
    /// `http` or `https`, at most 2,048 characters.
    pub image_url: Option<String>,
    /// Above zero.
    pub price: Money,
    /// Defaults to now.
    pub starts_at: Option<Timestamp>,
    /// Defaults to never.
    pub ends_at: Option<Timestamp>,
    /// 1 second to a day.
    pub hold_seconds: i32,
    /// 1 to 10,000.
    pub purchase_limit: i32,
    /// Whether `reserve` requires an admission.
    pub admission_required: bool,
    /// Up to 100 sizes; excludes `stock`.
    pub sizes: Option<Vec<NewSize>>,
    /// Pairs of a drop that comes in one size; excludes `sizes`.
    pub stock: Option<i32>,
    /// Makes retries return the same drop.
    pub intent: Option<Intent>,
}

/// What a client wants once, and may request again.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The user.
    pub user: UserId,
    /// Chosen by the user, one per intent.
    pub key: String,
}

/// The opening stock of a size.
#[derive(Clone, Debug)]
pub struct NewSize {
    /// 1 to 32 characters, unique within the drop.
    pub size: String,
    /// Above zero; at most 100,000 for all sizes together.
    pub stock: i32,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateRefusalCode {
    /// Nothing visible in it.
    Blank,
    /// Longer than allowed.
    TooLong,
    /// Malformed or out of bounds.
    Invalid,
    /// Zero or less.
    NotPositive,
    /// Listed twice.
    Duplicate,
    /// The end is not after the start, or has passed.
    EndsTooEarly,
    /// Both or neither of `sizes` and `stock`.
    SizesOrStock,
    /// The key was used for another drop.
    IdempotencyKeyReused,
}

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRefusal {
    /// What is wrong.
    pub code: CreateRefusalCode,
    /// The path within the input.
    pub field: Vec<String>,
    /// A message for people.
    pub message: String,
}

impl CreateRefusal {
    fn new(code: CreateRefusalCode, field: &[&str], message: impl Into<String>) -> Self {
        Self { code, field: field.iter().map(|part| (*part).to_owned()).collect(), message: message.into() }
    }

    pub(crate) fn no_admission() -> Self {
        let message = "This server has no ADMISSION_SECRET: nobody could be admitted.";
        Self::new(CreateRefusalCode::Invalid, &["admissionRequired"], message)
    }

    pub(super) fn ends_too_early() -> Self {
        Self::new(
            CreateRefusalCode::EndsTooEarly,
            &["endsAt"],
            "A drop must end after its start, and not in the past.",
        )
    }

    pub(super) fn key_reused() -> Self {
        Self::new(
            CreateRefusalCode::IdempotencyKeyReused,
            &["idempotencyKey"],
            "This key was already used for a different drop.",
        )
    }
}

/// A drop whose fields are valid, except for its times: the database compares those with its clock.
#[derive(Debug)]
pub(super) struct CheckedDrop {
    pub(super) new: NewDrop,
    pub(super) sizes: Vec<NewSize>,
}

impl CheckedDrop {
    /// Returns whether `state` was created from these fields.
    pub(super) fn is_made_as(&self, state: &DropState) -> bool {
        let (new, made) = (&self.new, &state.catalogue);
        let sizes = self.sizes.iter().map(|size| (&size.size, size.stock));
        new.name == made.name
            && new.description == made.description
            && new.image_url == made.image_url
            && new.price == made.price
            && new.starts_at.unwrap_or(made.created_at) == made.starts_at
            && new.ends_at == made.ends_at
            && new.hold_seconds == made.hold_seconds
            && new.purchase_limit == made.purchase_limit
            && new.admission_required == made.admission_required
            && sizes.eq(state.sizes.iter().map(|size| (&size.size, size.count.total)))
    }
}

/// Checks every field, so that a form can show all errors at once.
pub(super) fn check(mut new: NewDrop) -> Result<CheckedDrop, Vec<CreateRefusal>> {
    use CreateRefusalCode::{Blank, Invalid, NotPositive, SizesOrStock, TooLong};

    let mut refusals = Vec::new();
    new.name = new.name.trim().to_owned();
    if is_blank(&new.name) {
        refusals.push(CreateRefusal::new(Blank, &["name"], "A drop must have a name."));
    } else if new.name.chars().count() > LONGEST_NAME {
        let message = format!("A name may have at most {LONGEST_NAME} characters.");
        refusals.push(CreateRefusal::new(TooLong, &["name"], message));
    } else if new.name.chars().any(|c| c.is_control() || is_deceptive(c)) {
        refusals.push(CreateRefusal::new(
            Invalid,
            &["name"],
            "A name must not have control or hidden characters.",
        ));
    }
    if let Some(text) = &new.description {
        if text.chars().count() > LONGEST_DESCRIPTION {
            let message = format!("A description may have at most {LONGEST_DESCRIPTION} characters.");
            refusals.push(CreateRefusal::new(TooLong, &["description"], message));
        } else if text.chars().any(|c| is_deceptive(c) || c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        {
            let message =
                "A description must not have control or hidden characters except line breaks and tabs.";
            refusals.push(CreateRefusal::new(Invalid, &["description"], message));
        }
    }
    if let Some(text) = &mut new.image_url {
        if text.len() > LONGEST_URL {
            let message = format!("A URL may have at most {LONGEST_URL} characters.");
            refusals.push(CreateRefusal::new(TooLong, &["imageUrl"], message));
        } else {
            match Url::parse(text) {
                // In normalised form: unusual characters are percent-encoded now.
                Ok(url) if matches!(url.scheme(), "http" | "https") => *text = url.into(),
                _ => {
                    let message = "This is not an http or https URL.";
                    refusals.push(CreateRefusal::new(Invalid, &["imageUrl"], message));
                }
            }
        }
    }
    if new.price.amount <= 0 {
        refusals.push(CreateRefusal::new(NotPositive, &["price", "amount"], "A price must be above zero."));
    }
    if new.price.currency.len() != 3 || !new.price.currency.chars().all(|c| c.is_ascii_uppercase()) {
        let message = "A currency must be three capital letters, as in ISO 4217.";
        refusals.push(CreateRefusal::new(Invalid, &["price", "currency"], message));
    }
    check_range(&mut refusals, "holdSeconds", new.hold_seconds, LONGEST_HOLD);
    check_range(&mut refusals, "purchaseLimit", new.purchase_limit, HIGHEST_LIMIT);
    for (field, instant) in [("startsAt", new.starts_at), ("endsAt", new.ends_at)] {
        if instant.is_some_and(|instant| !(0..=253_402_300_799).contains(&instant.timestamp())) {
            refusals.push(CreateRefusal::new(Invalid, &[field], "A time must lie between 1970 and 9999."));
        }
    }

    let sizes = match (new.sizes.take(), new.stock) {
        (Some(sizes), None) if !sizes.is_empty() => sizes,
        (None, Some(stock)) => vec![NewSize { size: ONLY_SIZE.to_owned(), stock }],
        (sizes, stock) => {
            let field = if stock.is_none() && sizes.is_some() { "sizes" } else { "stock" };
            let message = "Give either sizes, at least one, or the stock of a drop in one size.";
            refusals.push(CreateRefusal::new(SizesOrStock, &[field], message));
            Vec::new()
        }
    };
    let sizes = check_sizes(&mut refusals, sizes, new.stock.is_some());
    if refusals.is_empty() { Ok(CheckedDrop { new, sizes }) } else { Err(refusals) }
}

fn check_range(refusals: &mut Vec<CreateRefusal>, field: &str, value: i32, most: i32) {
    if value <= 0 {
        refusals.push(CreateRefusal::new(
            CreateRefusalCode::NotPositive,
            &[field],
            "This number must be above zero.",
        ));
    } else if value > most {
        let message = format!("This number may be at most {most}.");
        refusals.push(CreateRefusal::new(CreateRefusalCode::Invalid, &[field], message));
    }
}

fn check_sizes(refusals: &mut Vec<CreateRefusal>, sizes: Vec<NewSize>, only_stock: bool) -> Vec<NewSize> {
    use CreateRefusalCode::{Blank, Duplicate, Invalid, NotPositive, TooLong};

    if sizes.len() > MOST_SIZES {
        let message = format!("A drop may have at most {MOST_SIZES} sizes.");
        refusals.push(CreateRefusal::new(TooLong, &["sizes"], message));
        return sizes;
    }
    let mut seen = HashSet::new();
    let mut checked = Vec::with_capacity(sizes.len());
    for (index, NewSize { size, stock }) in sizes.into_iter().enumerate() {
        let index = index.to_string();
        // Normalised for lookups: the same characters typed on another system are the same size.
        let size: String = size.trim().nfc().collect();
        let at = ["sizes", &index, "size"];
        if is_blank(&size) {
            refusals.push(CreateRefusal::new(Blank, &at, "A size must have a name, as printed on the box."));
        } else if size.chars().count() > LONGEST_SIZE {
            let message = format!("A size may have at most {LONGEST_SIZE} characters.");
            refusals.push(CreateRefusal::new(TooLong, &at, message));
        } else if size.chars().any(|c| c.is_control() || is_deceptive(c)) {
            refusals.push(CreateRefusal::new(
                Invalid,
                &at,
                "A size must not have control or hidden characters.",
            ));
        } else if !seen.insert(size.to_lowercase()) {
            refusals.push(CreateRefusal::new(Duplicate, &at, "This size is listed twice."));
        }
        if stock <= 0 {
            let only = ["stock"];
            let of_size = ["sizes", &index, "stock"];
            let at: &[&str] = if only_stock { &only } else { &of_size };
            refusals.push(CreateRefusal::new(NotPositive, at, "A stock must be above zero."));
        }
        checked.push(NewSize { size, stock });
    }
    if checked.iter().map(|size| i64::from(size.stock)).sum::<i64>() > MOST_PAIRS {
        let at = if only_stock { "stock" } else { "sizes" };
        refusals.push(CreateRefusal::new(
            Invalid,
            &[at],
            format!("A drop may have at most {MOST_PAIRS} pairs."),
        ));
    }
    checked
}
