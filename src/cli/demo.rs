//! Realistic demo data, created through the services like everything else.

use std::net::Ipv4Addr;

use chrono::{TimeDelta, Utc};

use super::Failure;
use crate::{
    accounts::{AccountError, Role},
    app::App,
    client::Client,
    drops::{DropStatus, ListDrops, Money, NewDrop, NewSize},
    ids::{DropId, ReservationId, UserId},
    stock::Reserve,
};

/// Printed for people to sign in with.
pub(super) const SIGN_INS: &str = "Demo sign-ins (password of all: drop-day-2026):
  admin@sneaker-drop.example   administrator: may create and cancel drops
  mika@sneaker-drop.example    buyer, has bought a pair, and holds one in the first minute
  noor@sneaker-drop.example    buyer
  theo@sneaker-drop.example    buyer
  june@sneaker-drop.example    buyer";

const PASSWORD: &str = "drop-day-2026";
const ADMIN: &str = "admin@sneaker-drop.example";
const EVERY_STATUS: [DropStatus; 5] =
    [DropStatus::Live, DropStatus::SoldOut, DropStatus::Scheduled, DropStatus::Ended, DropStatus::Cancelled];
const BUYERS: [&str; 4] = ["mika", "noor", "theo", "june"];

/// Adds the demo data. Each step is skipped if it was done before, so a repeated or interrupted run adds only what is
/// missing.
pub(super) async fn seed(app: &App) -> Result<(), Failure> {
    ensure_person(app, "drop_desk", ADMIN).await?;
    app.accounts.set_role(ADMIN, Role::Admin).await?;
    let mut buyers = Vec::new();
    for name in BUYERS {
        buyers.push(ensure_person(app, name, &format!("{name}@sneaker-drop.example")).await?);
    }
    let live = ensure_drop(app, live_drop()).await?;
    ensure_drop(app, next_drop()).await?;
    ensure_drop(app, later_drop()).await?;
    let gone = ensure_drop(app, gone_drop()).await?;
    for buyer in &buyers {
        buy(app, *buyer, gone, None).await?;
    }
    for (buyer, size) in buyers.iter().zip(["US 9", "US 9", "US 10.5"]) {
        buy(app, *buyer, live, Some(size)).await?;
    }
    if let Some(buyer) = buyers.first() {
        hold(app, *buyer, live, Some("US 11")).await?;
    }
    Ok(())
}

fn here() -> Client {
    Client::at(Ipv4Addr::LOCALHOST.into())
}

async fn ensure_person(app: &App, username: &str, email: &str) -> Result<UserId, Failure> {
    if let Some(there) =
        app.accounts.login(email, PASSWORD, here()).await.map_err(|error| error.to_string())?
    {
        return Ok(there.user_id);
    }
    match app.accounts.signup(username, email, PASSWORD, here()).await {
        Ok(tokens) => Ok(tokens.user_id),
        Err(AccountError::Refused(refusals)) => {
            let why: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            Err(format!("demo account {username}: {}", why.join(" ")).into())
        }
        Err(error) => Err(error.to_string().into()),
    }
}

async fn ensure_drop(app: &App, drop: NewDrop) -> Result<DropId, Failure> {
    let mut list = ListDrops { first: 50, after: None, statuses: EVERY_STATUS.to_vec(), reverse: false };
    loop {
        let page = app.drops.list(&list).await?;
        if let Some(there) = page.items.iter().find(|state| state.catalogue.name == drop.name) {
            return Ok(there.id);
        }
        match page.items.last() {
            Some(last) if page.has_next => list.after = Some(last.cursor()),
            _ => break,
        }
    }
    let name = drop.name.clone();
    let made = app.create_drop(drop).await.map_err(|error| format!("demo drop {name}: {error}"))?;
    Ok(made.id)
}

/// Reserves with a key, so that a repeated run finds the first hold. Refused if somebody has used the demo account
/// meanwhile.
async fn hold(
    app: &App,
    user: UserId,
    drop_id: DropId,
    size: Option<&str>,
) -> Result<Option<ReservationId>, Failure> {
    let key = format!("demo {}", size.unwrap_or_default());
    let reserve =
        Reserve { drop_id, size: size.map(str::to_owned), idempotency_key: Some(key), admission: None };
    let answer = app.stock.reserve(user, reserve).await?;
    Ok(answer.reservation.filter(|_| answer.refusal.is_none()).map(|reservation| reservation.id))
}

async fn buy(app: &App, user: UserId, drop_id: DropId, size: Option<&str>) -> Result<(), Failure> {
    if let Some(id) = hold(app, user, drop_id, size).await? {
        app.stock.purchase(user, id).await?;
    }
    Ok(())
}

fn sizes(sizes: &[(&str, i32)]) -> Option<Vec<NewSize>> {
    Some(sizes.iter().map(|(size, stock)| NewSize { size: (*size).to_owned(), stock: *stock }).collect())
}

fn drop(name: &str, description: &str, amount: i32, currency: &str) -> NewDrop {
    NewDrop {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        image_url: None,
        price: Money { amount, currency: currency.to_owned() },
        starts_at: None,
        ends_at: None,
        hold_seconds: 60,
        purchase_limit: 1,
        admission_required: false,
        sizes: None,
        stock: None,
        intent: None,
    }
}

fn live_drop() -> NewDrop {
    let about =
        "Full-grain leather in chalk over a gum sole. Numbered inside the tongue, 200 pairs worldwide.";
    let counts = [
        ("US 7", 12),
        ("US 8", 24),
        ("US 8.5", 28),
        ("US 9", 36),
        ("US 9.5", 32),
        ("US 10", 30),
        ("US 10.5", 20),
        ("US 11", 12),
        ("US 12", 6),
    ];
    NewDrop {
        purchase_limit: 2,
        sizes: sizes(&counts),
        ..drop("Meridian Low 'Chalk Gum'", about, 18_000, "USD")
    }
}

fn next_drop() -> NewDrop {
    let about = "Ripstop runner with a reflective heel, made with the Harbour Track Club.";
    let counts = [("EU 40", 10), ("EU 41", 15), ("EU 42", 25), ("EU 42.5", 20), ("EU 43", 20), ("EU 44", 10)];
    NewDrop {
        starts_at: Some(Utc::now() + TimeDelta::minutes(10)),
        ends_at: Some(Utc::now() + TimeDelta::days(1)),
        sizes: sizes(&counts),
        ..drop("Harbour Runner 2 'Night Tide'", about, 16_500, "EUR")
    }
}

fn later_drop() -> NewDrop {
    let about = "The 1994 court shoe, rebuilt on its original last.";
    let counts = [("US 8", 40), ("US 9", 60), ("US 10", 60), ("US 11", 40)];
    NewDrop {
        starts_at: Some(Utc::now() + TimeDelta::days(3)),
        sizes: sizes(&counts),
        ..drop("Courtline 94 'Clay'", about, 14_000, "USD")
    }
}

fn gone_drop() -> NewDrop {
    let about = "Hand-dyed sample run of four pairs, signed by the dyer.";
    NewDrop { stock: Some(4), ..drop("Indigo Sample 004", about, 42_000, "USD") }
}
