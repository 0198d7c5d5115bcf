//! A drop with a door in front of it.

use std::{collections::HashSet, time::Duration};

use chrono::{TimeDelta, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sneaker_drop::{
    accounts::Lifetimes,
    admission::Admissions,
    app::App,
    bus::{Bus, InProcess},
    config::{DatabaseConfig, Limits, TokenSecrets},
    db::Database,
    drops::{CreateError, CreateRefusalCode},
    ids::{DropId, NodeId},
    telemetry::Metrics,
};

use crate::harness::{
    ACCESS_SECRET, ADMISSION_SECRET, ADMISSION_SECRET_BEFORE, Buyer, HeldLock, REFRESH_SECRET, TestApp,
    at_once, cluster, codes, drive, eventually, global,
};

/// The claims as `docs/admission.md` has them, for now.
fn claims(drop: DropId, buyer: &Buyer) -> Value {
    let now = Utc::now().timestamp();
    json!({
        "aud": "sneaker-drop/admission", "sub": NodeId::User(buyer.user_id).encode(), "drop": global(drop),
        "jti": uuid::Uuid::now_v7().to_string(), "nbf": now, "exp": now + 60,
    })
}

/// Signed by whoever keeps the door, who has a library for JWTs and the secret.
fn sign(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

async fn reserve(
    app: &TestApp,
    buyer: &Buyer,
    drop: DropId,
    key: Option<&str>,
    token: Option<&str>,
) -> Value {
    let query = "mutation($input: ReserveInput!) { reserve(input: $input) {
        reservation { id } drop { id admissionRequired availableStock } serverTime userErrors { code field } } }";
    let input = json!({ "dropId": global(drop), "idempotencyKey": key, "admissionToken": token });
    app.data(Some(&buyer.token), query, json!({ "input": input })).await["reserve"].take()
}

async fn guarded(app: &TestApp, limit: i32) -> DropId {
    let guard = |new: &mut sneaker_drop::drops::NewDrop| {
        new.admission_required = true;
        new.purchase_limit = limit;
    };
    app.drop_like(&[("ONE", 20)], guard).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_was_admitted_gets_a_pair_and_each_admission_gets_one() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, guarded(app, 3).await);
        let refused = reserve(app, &buyer, drop, Some("a"), None).await;
        assert_eq!(codes(&refused), ["ADMISSION_REQUIRED"]);
        assert_eq!(refused["userErrors"][0]["field"], json!(["input", "admissionToken"]));
        assert_eq!(
            refused["drop"],
            json!({ "id": global(drop), "admissionRequired": true, "availableStock": 20 })
        );
        assert!(refused["serverTime"].is_string());

        let token = sign(&claims(drop, &buyer), ADMISSION_SECRET);
        let first = reserve(app, &buyer, drop, Some("a"), Some(&token)).await;
        assert_eq!(codes(&first), [] as [&str; 0], "{first}");
        let again = reserve(app, &buyer, drop, Some("a"), Some(&token)).await;
        assert_eq!(again["reservation"], first["reservation"], "a retry gets the first one");
        let second = reserve(app, &buyer, drop, Some("b"), Some(&token)).await;
        assert_eq!(codes(&second), ["ADMISSION_REQUIRED"], "used");
        app.cancel(&buyer, first["reservation"]["id"].as_str().unwrap()).await;
        let third = reserve(app, &buyer, drop, Some("c"), Some(&token)).await;
        assert_eq!(codes(&third), ["ADMISSION_REQUIRED"], "used, whatever became of it");
        let before = sign(&claims(drop, &buyer), ADMISSION_SECRET_BEFORE);
        assert_eq!(codes(&reserve(app, &buyer, drop, None, Some(&before)).await), [] as [&str; 0]);

        let open = app.drop(&[("ONE", 1)]).await;
        let payload = reserve(app, &buyer, open, None, Some("whatever")).await;
        assert_eq!(codes(&payload), [] as [&str; 0], "a drop without a door asks nobody");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_but_the_doors_for_this_buyer_and_drop_and_time_is_good() {
    drive(async |app| {
        let (buyer, other) = (app.buyer().await, app.buyer().await);
        let (drop, elsewhere) = (guarded(app, 20).await, guarded(app, 20).await);
        let good = claims(drop, &buyer);
        let with = |change: Value| {
            let mut claims = good.clone();
            for (name, value) in change.as_object().unwrap() {
                match value {
                    Value::Null => drop_claim(&mut claims, name),
                    value => claims[name] = value.clone(),
                }
            }
            sign(&claims, ADMISSION_SECRET)
        };
        let now = Utc::now().timestamp();
        let body = sign(&good, ADMISSION_SECRET);
        let parts: Vec<&str> = body.split('.').collect();
        let none = jsonwebtoken::encode(
            &Header { alg: Algorithm::HS384, ..Header::default() },
            &good,
            &EncodingKey::from_secret(ADMISSION_SECRET.as_bytes()),
        );
        let bad = [
            sign(&claims(drop, &other), ADMISSION_SECRET),
            sign(&claims(elsewhere, &buyer), ADMISSION_SECRET),
            sign(&good, ACCESS_SECRET),
            buyer.token.clone(),
            none.unwrap(),
            // {"alg":"none"}
            format!("eyJhbGciOiJub25lIn0.{}.", parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            with(json!({ "aud": "sneaker-drop/api" })),
            with(json!({ "aud": null })),
            with(json!({ "sub": null })),
            with(json!({ "sub": buyer.user_id.to_string() })),
            with(json!({ "drop": null })),
            with(json!({ "jti": null })),
            with(json!({ "jti": "" })),
            with(json!({ "jti": "x".repeat(65) })),
            with(json!({ "jti": "a\u{0}b" })),
            with(json!({ "nbf": null })),
            with(json!({ "exp": null })),
            with(json!({ "exp": "tomorrow" })),
            with(json!({ "exp": i64::MAX })),
            with(json!({ "nbf": i64::MIN })),
            with(json!({ "exp": now - 10, "nbf": now - 60 })),
            with(json!({ "nbf": now + 30 })),
            with(json!({ "padding": "x".repeat(2_000) })),
            String::new(),
            "\u{0}".to_owned(),
            "..".to_owned(),
        ];
        for token in &bad {
            let payload = reserve(app, &buyer, drop, None, Some(token)).await;
            assert_eq!(codes(&payload), ["ADMISSION_REQUIRED"], "{token}");
        }
        assert_eq!(codes(&reserve(app, &buyer, drop, None, Some(&body)).await), [] as [&str; 0]);
    })
    .await;
}

fn drop_claim(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_admission_shown_by_many_requests_at_once_is_used_once() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, guarded(app, 20).await);
        let token = sign(&claims(drop, &buyer), ADMISSION_SECRET);
        let keys: Vec<String> = (0..40).map(|number| format!("key {number}")).collect();
        let told = at_once(keys.iter().map(|key| reserve(app, &buyer, drop, Some(key), Some(&token)))).await;
        let held = |payload: &&Value| payload["reservation"]["id"].is_string();
        assert_eq!(told.iter().filter(held).count(), 1);
        let mut refusals: HashSet<&str> = told.iter().flat_map(codes).collect();
        assert!(refusals.remove("ADMISSION_REQUIRED") && refusals.is_empty(), "{refusals:?}");
        assert_eq!(app.counts(drop).await, [19, 1, 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_costs_no_transaction() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, guarded(app, 1).await);
        eventually(async || app.app.feed.find(drop).is_some()).await;
        let lock = HeldLock::take(app, drop).await;
        for _ in 0..20 {
            let payload = reserve(app, &buyer, drop, None, None).await;
            assert_eq!(codes(&payload), ["ADMISSION_REQUIRED"], "answered while the drop is locked");
        }
        lock.release().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_drop_wants_admissions_where_nobody_could_be_admitted() {
    drive(async |app| {
        let metrics = Metrics::default();
        let url = cluster().await.url(&app.database);
        let settings = DatabaseConfig { url: Some(url.into()), direct_url: None, pool_size: 2 };
        let doorless = App::new(
            Database::new(&settings, &metrics).unwrap(),
            &TokenSecrets::new(ACCESS_SECRET.into(), REFRESH_SECRET.into()),
            Admissions::new(None),
            Lifetimes { access: Duration::from_secs(900), refresh: Duration::from_secs(900) },
            &Limits::default(),
            Bus::over(InProcess::default(), &metrics),
            metrics,
        );
        let mut new = crate::shoe::shoe(&[("ONE", 1)], 60, 1);
        new.admission_required = true;
        let Err(CreateError::Refused(refusals)) = doorless.create_drop(new).await else {
            panic!("a drop that nobody can enter was made");
        };
        assert_eq!(
            (refusals[0].code, &refusals[0].field[..]),
            (CreateRefusalCode::Invalid, &["admissionRequired".to_owned()][..])
        );
        let (buyer, drop) = (Buyer::unknown(), DropId::new());
        let (from, until) = (Utc::now(), Utc::now() + TimeDelta::minutes(1));
        assert_eq!(doorless.admissions.issue(drop, buyer.user_id, from, until), None);
        assert_eq!(doorless.admissions.verify(&sign(&claims(drop, &buyer), ""), drop, buyer.user_id), None);
    })
    .await;
}
