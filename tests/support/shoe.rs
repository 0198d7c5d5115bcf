//! What is sold.

use sneaker_drop::drops::{Money, NewDrop, NewSize};

/// A drop that is live at once.
pub fn shoe(sizes: &[(&str, i32)], hold_seconds: i32, purchase_limit: i32) -> NewDrop {
    let sizes = sizes.iter().map(|(size, stock)| NewSize { size: (*size).to_owned(), stock: *stock });
    NewDrop {
        name: "Meridian Low 'Chalk Gum'".to_owned(),
        description: None,
        image_url: None,
        price: Money { amount: 18_000, currency: "USD".to_owned() },
        starts_at: None,
        ends_at: None,
        hold_seconds,
        purchase_limit,
        admission_required: false,
        sizes: Some(sizes.collect()),
        stock: None,
        intent: None,
    }
}
