//! Access tokens and admissions, each under the right key: whatever header and claims a client invents, one that is let in
//! says all that it has to.
//!
//! The input is a header and claims, parted by a zero. Without one it is a token as it is.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sneaker_drop::{
    accounts::{Accounts, Lifetimes},
    admission::Admissions,
    bus::{Bus, InProcess},
    config::{AdmissionSecrets, DatabaseConfig, Limits, TokenSecrets},
    db::Database,
    ids::{DropId, NodeId, UserId},
    telemetry::Metrics,
};

const ACCESS: &str = "fuzz-access-secret-0123456789abcdef";
const ADMISSION: &str = "fuzz-admission-secret-0123456789ab";

static ACCOUNTS: LazyLock<Accounts> = LazyLock::new(|| {
    let metrics = Metrics::default();
    // Nobody is there: authenticating asks no database.
    let url = "postgres://nobody@127.0.0.1:1/nothing".to_owned();
    let settings = DatabaseConfig { url: Some(url.into()), direct_url: None, pool_size: 2 };
    let db = Database::new(&settings, &metrics).unwrap();
    let secrets = TokenSecrets::new(ACCESS.into(), "fuzz-refresh-secret-0123456789abcde".into());
    let lifetimes = Lifetimes { access: Duration::from_secs(900), refresh: Duration::from_secs(900) };
    let bus = Bus::over(InProcess::default(), &metrics);
    Accounts::new(&db, &secrets, lifetimes, &Limits::default(), &bus, &metrics)
});

static ADMISSIONS: LazyLock<Admissions> = LazyLock::new(|| {
    Admissions::new(Some(&AdmissionSecrets { current: ADMISSION.into(), previous: None }))
});

fn sign(header: &[u8], claims: &[u8], secret: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A claim that is one text, or the one entry of a list.
fn says(claims: &Value, name: &str, text: &str) -> bool {
    claims[name] == text || claims[name] == Value::from(vec![text])
}

fuzz_target!(|input: &[u8]| {
    let buyer = UserId(uuid::Uuid::from_u128(7));
    let drop = DropId(uuid::Uuid::from_u128(9));
    let Some(place) = input.iter().position(|byte| *byte == 0) else {
        let token = String::from_utf8_lossy(input);
        assert!(ACCOUNTS.authenticate(&token).is_err() && ADMISSIONS.verify(&token, drop, buyer).is_none());
        return;
    };
    let (header, claims) = (&input[..place], &input[place + 1..]);
    let read = |bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let (said_header, said) = (read(header), read(claims));
    if let Ok(caller) = ACCOUNTS.authenticate(&sign(header, claims, ACCESS)) {
        assert!(said_header["alg"] == "HS256" && said_header["typ"] == "at+jwt", "{said_header}");
        assert!(says(&said, "aud", "sneaker-drop/api") && says(&said, "iss", "sneaker-drop"), "{said}");
        assert!(said["jti"].is_string() && said["iat"].is_i64(), "{said}");
        assert_eq!(said["exp"].as_i64(), Some(caller.expires_at.timestamp()));
    }
    if let Some(admission) = ADMISSIONS.verify(&sign(header, claims, ADMISSION), drop, buyer) {
        assert!(said_header["alg"] == "HS256" && says(&said, "aud", "sneaker-drop/admission"), "{said}");
        assert!(said["sub"] == NodeId::User(buyer).encode() && said["drop"] == NodeId::Drop(drop).encode());
        assert_eq!(said["jti"], admission.id);
        assert!((1..=64).contains(&admission.id.len()));
    }
});
