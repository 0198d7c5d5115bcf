//! Whoever tries too often is slowed down, and whose account it is gets in.

use std::net::IpAddr;

use reqwest::header;
use serde_json::{Value, json};
use sneaker_drop::{accounts::AccountError, client::Client};

use crate::{
    harness::{TestApp, drive, drive_still, global},
    proxy::Weather,
};

const PASSWORD: &str = "analytical engine";

fn at(address: &str) -> Client {
    Client::at(address.parse::<IpAddr>().unwrap())
}

/// `Some`: was it the right one; `None`: it was not tried.
async fn log_in(app: &TestApp, email: &str, password: &str, client: Client) -> Option<bool> {
    match app.app.accounts.login(email, password, client).await {
        Ok(tokens) => Some(tokens.is_some()),
        Err(AccountError::TooMany { retry_after }) => {
            assert!(!retry_after.is_zero() && retry_after.as_secs() <= 60, "{retry_after:?}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guesser_is_slowed_down_and_the_owner_gets_in() {
    drive(async |app| {
        let (home, elsewhere) = (at("192.0.2.1"), at("198.51.100.7"));
        let email = "ada@example.com";
        app.app.accounts.signup("ada", email, PASSWORD, home).await.unwrap();
        assert_eq!(log_in(app, email, PASSWORD, home).await, Some(true));
        for _ in 0..10 {
            assert_eq!(log_in(app, email, "a wrong password", elsewhere).await, Some(false));
        }
        // Not even the right one, or it could be guessed on. Nor from another address that is new to the account.
        assert_eq!(log_in(app, email, PASSWORD, elsewhere).await, None);
        assert_eq!(log_in(app, email, PASSWORD, at("203.0.113.9")).await, None);
        assert_eq!(log_in(app, " ADA@Example.com", PASSWORD, elsewhere).await, None, "the same account");
        for _ in 0..12 {
            assert_eq!(log_in(app, email, PASSWORD, home).await, Some(true), "right ones do not count");
        }
        for _ in 0..10 {
            assert_eq!(log_in(app, email, "a wrong password", home).await, Some(false));
        }
        assert_eq!(log_in(app, email, PASSWORD, home).await, None, "at home one may guess as often");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_found_no_database_is_none() {
    drive_still(async |app| {
        let (network, client) = (app.network().await, at("192.0.2.1"));
        let server = app.still_second_behind(&network).await;
        app.app.accounts.signup("ada", "ada@example.com", PASSWORD, client).await.unwrap();
        network.set(Weather::Closed);
        for _ in 0..12 {
            let tried = server.app.accounts.login("ada@example.com", PASSWORD, client).await;
            assert!(matches!(tried, Err(AccountError::Db(_))), "{tried:?}");
        }
        network.set(Weather::Fair);
        assert_eq!(log_in(&server, "ada@example.com", PASSWORD, client).await, Some(true));
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_there_is_limited_just_the_same() {
    drive(async |app| {
        for _ in 0..10 {
            let tried = log_in(app, "nobody@example.com", "a wrong password", at("192.0.2.1")).await;
            assert_eq!(tried, Some(false));
        }
        assert_eq!(log_in(app, "nobody@example.com", "a wrong password", at("192.0.2.1")).await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_password_on_many_accounts_is_limited_by_address() {
    drive(async |app| {
        let mut tried = 0;
        loop {
            // One network of 64 bits is one address.
            let client = at(&format!("2001:db8:1:2::{tried:x}"));
            let email = format!("person{tried}@example.com");
            if log_in(app, &email, "summer 2026!", client).await.is_none() {
                break;
            }
            tried += 1;
            // One more for each second that this takes.
            assert!(tried < 300);
        }
        assert!(tried >= 60, "{tried}");
        let client = at("2001:db8:1:2:ffff::1");
        let signup = app.app.accounts.signup("newcomer", "new@example.com", PASSWORD, client).await;
        assert!(matches!(signup, Err(AccountError::TooMany { .. })), "a sign-up costs as much");
        assert_eq!(log_in(app, "x@example.com", "summer 2026!", at("2001:db8:1:3::1")).await, Some(false));
    })
    .await;
}

/// The answer with its `Retry-After`.
async fn ask(app: &TestApp, token: &str, query: &str) -> (Value, Option<u64>) {
    let request = app.client().post(app.url("/graphql")).bearer_auth(token).json(&json!({ "query": query }));
    let answer = request.send().await.unwrap();
    let retry_after = answer.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.map(|seconds| seconds.to_str().unwrap().parse().unwrap());
    (answer.json().await.unwrap(), retry_after)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reserves_and_gives_back_in_turn_is_slowed_down_and_may_buy() {
    drive_still(async |app| {
        let (bot, drop) = (app.buyer().await, app.drop(&[("ONE", 3)]).await);
        // A few more than the limit where this is slow: some come back meanwhile.
        let mut turns = 0;
        let (hold, answer, retry_after) = loop {
            let hold = app.hold(&bot, drop, "ONE").await;
            let cancel = format!(
                "mutation {{ cancelReservation(input: {{ reservationId: \"{hold}\" }}) {{ userErrors {{ code }} }} }}"
            );
            let (answer, retry_after) = ask(app, &bot.token, &cancel).await;
            if answer["errors"].is_array() {
                break (hold, answer, retry_after);
            }
            turns += 1;
            assert!(turns < 30);
        };
        assert!(turns >= 10, "{turns}");
        let extensions = &answer["errors"][0]["extensions"];
        assert_eq!(extensions["code"], "RATE_LIMITED", "{answer}");
        let millis = extensions["retryAfterMs"].as_u64().unwrap();
        assert!((1..=6_000).contains(&millis), "{millis}");
        assert_eq!(retry_after, Some(millis.div_ceil(1_000)));
        assert_eq!(app.purchase(&bot, &hold).await["userErrors"], json!([]));

        let reserve = format!(
            "mutation {{ reserve(input: {{ dropId: \"{}\" }}) {{ userErrors {{ code }} }} }}",
            global(drop)
        );
        let mut asked = turns + 1;
        let (answer, retry_after) = loop {
            let (answer, retry_after) = ask(app, &bot.token, &reserve).await;
            if answer["errors"].is_array() {
                break (answer, retry_after);
            }
            assert_eq!(answer["data"]["reserve"]["userErrors"][0]["code"], "LIMIT_REACHED", "{answer}");
            assert_eq!(retry_after, None);
            asked += 1;
            assert!(asked < 300);
        };
        assert!(asked >= 60, "{asked}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "RATE_LIMITED", "{answer}");
        assert_eq!(retry_after, Some(1));
        // Somebody else is somebody else.
        app.hold(&app.buyer().await, drop, "ONE").await;
    })
    .await;
}
