//! Sign-up, sign-in, refresh, logout.

use async_graphql::Request;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use serde_json::{Value, json};
use sneaker_drop::{
    client::Client,
    config::Limits,
    graphql::{Credentials, Gate, execute, schema},
};
use uuid::Uuid;

use crate::{
    harness::{ACCESS_SECRET, REFRESH_SECRET, TestApp, at_once, codes, drive, drive_still},
    token::sign,
};

const SESSION: &str = "session { accessToken accessTokenExpiresAt refreshToken refreshTokenExpiresAt
    viewer { email role user { username } } } userErrors { code field }";
const PASSWORD: &str = "analytical engine";

async fn signup(app: &TestApp, username: &str, email: &str, password: &str) -> Value {
    let query = format!("mutation($input: SignupInput!) {{ signup(input: $input) {{ {SESSION} }} }}");
    let input = json!({ "input": { "username": username, "email": email, "password": password } });
    app.data(None, &query, input).await["signup"].take()
}

async fn login(app: &TestApp, email: &str, password: &str) -> Value {
    let query = format!("mutation($input: LoginInput!) {{ login(input: $input) {{ {SESSION} }} }}");
    app.data(None, &query, json!({ "input": { "email": email, "password": password } })).await["login"].take()
}

async fn refresh(app: &TestApp, token: &str) -> Value {
    let query = format!("mutation($input: RefreshInput!) {{ refresh(input: $input) {{ {SESSION} }} }}");
    app.data(None, &query, json!({ "input": { "refreshToken": token } })).await["refresh"].take()
}

async fn logout(app: &TestApp, token: Option<&str>, input: Value) -> Value {
    let query = "mutation($input: LogoutInput) { logout(input: $input) { endedSessions } }";
    app.ask(token, query, json!({ "input": input })).await
}

fn text<'a>(payload: &'a Value, field: &str) -> &'a str {
    payload["session"][field].as_str().unwrap_or_else(|| panic!("no {field}: {payload}"))
}

async fn is_good(app: &TestApp, access_token: &str) -> bool {
    app.ask(Some(access_token), "{ viewer { email } }", Value::Null).await["data"]["viewer"].is_object()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_up_and_in_again() {
    drive(async |app| {
        let made = signup(app, "Ada", " Ada@Example.com ", PASSWORD).await;
        let viewer = json!({ "email": "ada@example.com", "role": "BUYER", "user": { "username": "Ada" } });
        assert_eq!(made["session"]["viewer"], viewer);
        assert!(is_good(app, text(&made, "accessToken")).await);
        let back = login(app, "ADA@example.COM", PASSWORD).await;
        assert_eq!(back["session"]["viewer"], viewer);
        let at = |field| chrono::DateTime::parse_from_rfc3339(text(&back, field)).unwrap().to_utc();
        assert!((at("accessTokenExpiresAt") - Utc::now()).num_seconds() > 880);
        assert!(at("refreshTokenExpiresAt") > at("accessTokenExpiresAt"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_or_wrong_is_refused() {
    drive(async |app| {
        signup(app, "Ada", "ada@example.com", PASSWORD).await;
        for (name, email, password, expected) in [
            ("ada", "other@example.com", PASSWORD, vec!["USERNAME_TAKEN"]),
            ("Bea", "ADA@example.com", PASSWORD, vec!["EMAIL_TAKEN"]),
            ("x", "nonsense", "short", vec!["USERNAME_INVALID", "EMAIL_INVALID", "PASSWORD_TOO_SHORT"]),
            ("Bea", "bea@example.com", "1234567890", vec!["PASSWORD_TOO_COMMON"]),
            ("Bea", "bea@example.com", &"x".repeat(129), vec!["PASSWORD_TOO_LONG"]),
            ("Be\u{0}a", "b\u{0}@example.com", PASSWORD, vec!["USERNAME_INVALID", "EMAIL_INVALID"]),
        ] {
            let payload = signup(app, name, email, password).await;
            assert_eq!(codes(&payload), expected, "{name} {email}");
            assert!(payload["session"].is_null());
        }
        assert_eq!(app.count("SELECT count(*) AS count FROM users").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_signed_up_ten_times_at_once_is_one_account() {
    drive(async |app| {
        let made = at_once((0..10).map(|_| signup(app, "Ada", "ada@example.com", PASSWORD))).await;
        assert_eq!(made.iter().filter(|payload| payload["session"].is_object()).count(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_and_a_wrong_password_get_the_same_answer_for_the_same_work() {
    drive(async |app| {
        signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let before = app.app.metrics.password_hashes.get();
        let wrong = login(app, "ada@example.com", "another password").await;
        let unknown = login(app, "nobody@example.com", "another password").await;
        let strange = login(app, "nob\u{0}dy", "another password").await;
        assert_eq!(codes(&wrong), ["INVALID_CREDENTIALS"]);
        assert!(wrong == unknown && wrong == strange);
        assert_eq!(app.app.metrics.password_hashes.get() - before, 3, "each was hashed");
        assert!(login(app, "ada@example.com", &"x".repeat(50_000)).await["session"].is_null());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_hands_out_the_next_token_and_parallel_ones_the_same() {
    drive(async |app| {
        let made = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let first = text(&made, "refreshToken");
        let traded = at_once((0..8).map(|_| refresh(app, first))).await;
        let second = text(&traded[0], "refreshToken");
        assert_ne!(first, second);
        assert!(traded.iter().all(|payload| text(payload, "refreshToken") == second));
        assert!(is_good(app, text(&traded[0], "accessToken")).await);
        let third = refresh(app, second).await;
        assert_ne!(text(&third, "refreshToken"), second);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_refresh_token_ends_its_family_after_the_grace() {
    drive(async |app| {
        let made = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let other_device = login(app, "ada@example.com", PASSWORD).await;
        let first = text(&made, "refreshToken");
        let traded = refresh(app, first).await;
        app.sql("UPDATE sessions SET rotated_at = rotated_at - interval '11 s'").await;
        assert_eq!(codes(&refresh(app, first).await), ["INVALID_REFRESH_TOKEN"]);
        let after = refresh(app, text(&traded, "refreshToken")).await;
        assert_eq!(codes(&after), ["INVALID_REFRESH_TOKEN"], "the newest token of the family is dead too");
        assert!(!is_good(app, text(&traded, "accessToken")).await, "and so are its access tokens");
        assert!(is_good(app, text(&other_device, "accessToken")).await);
        assert_eq!(
            app.count("SELECT count(*) AS count FROM sessions WHERE end_reason = 'token_reused'").await,
            1
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_are_stored_as_hashes_only() {
    drive(async |app| {
        let made = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let token = text(&made, "refreshToken");
        let payload = token.split('.').nth(1).unwrap();
        let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let jti = claims["jti"].as_str().unwrap();
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let stored = format!(
            "SELECT count(*) AS count FROM sessions WHERE sessions::text LIKE '%{jti}%' OR sessions::text LIKE '%{}%'",
            hex(jti)
        );
        assert_eq!(app.count(&stored).await, 0);
    })
    .await;
}

/// As with another PostgreSQL after a failover, or a clock that was ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_is_known_after_the_databases_clock_was_set_back() {
    drive_still(async |app| {
        // Found before PostgreSQL's own by whoever connects from now on.
        app.sql("CREATE SCHEMA set_clock").await;
        app.sql("CREATE TABLE set_clock.ahead AS SELECT interval '0' AS by").await;
        app.sql(
            "CREATE FUNCTION set_clock.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
             'SELECT pg_catalog.statement_timestamp() + by FROM set_clock.ahead'",
        )
        .await;
        let search =
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = set_clock, pg_catalog, public',
                      current_database()); END $$";
        app.sql(search).await;
        let elsewhere = app.still_second().await;
        let accounts = &elsewhere.app.accounts;
        let signed_up = signup(app, "mika", "mika@buyers.example", "long enough 12").await;
        let token = text(&signed_up, "accessToken");
        accounts.look_for_ended().await.unwrap();
        assert!(accounts.authenticate(token).is_ok());

        app.sql("UPDATE set_clock.ahead SET by = interval '20 minutes'").await;
        accounts.look_for_ended().await.unwrap();
        app.sql("UPDATE sessions SET ended_at = pg_catalog.statement_timestamp(), end_reason = 'logout'")
            .await;
        accounts.look_for_ended().await.unwrap();
        app.sql("UPDATE set_clock.ahead SET by = interval '0'").await;
        accounts.look_for_ended().await.unwrap();
        assert!(accounts.authenticate(token).is_err(), "its session has ended");
        elsewhere.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_ends_this_session_or_every_one() {
    drive(async |app| {
        let here = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let there = login(app, "ada@example.com", PASSWORD).await;
        let elsewhere = login(app, "ada@example.com", PASSWORD).await;
        let stranger = signup(app, "Bea", "bea@example.com", PASSWORD).await;

        let ended = logout(app, Some(text(&here, "accessToken")), Value::Null).await;
        assert_eq!(ended["data"]["logout"]["endedSessions"], 1);
        assert!(!is_good(app, text(&here, "accessToken")).await);
        assert_eq!(codes(&refresh(app, text(&here, "refreshToken")).await), ["INVALID_REFRESH_TOKEN"]);
        assert!(is_good(app, text(&there, "accessToken")).await);

        // A token that has run out does not keep anyone from logging out by the other.
        let input = json!({ "refreshToken": text(&there, "refreshToken"), "everywhere": true });
        let ended = logout(app, Some("run-out"), input.clone()).await;
        assert_eq!(ended["data"]["logout"]["endedSessions"], 2);
        assert!(!is_good(app, text(&elsewhere, "accessToken")).await);
        assert!(is_good(app, text(&stranger, "accessToken")).await);
        assert_eq!(
            logout(app, None, input).await["data"]["logout"]["endedSessions"],
            0,
            "twice ends nothing"
        );
        let nonsense = json!({ "refreshToken": "nonsense", "everywhere": null });
        assert_eq!(logout(app, None, nonsense).await["data"]["logout"]["endedSessions"], 0);
        let nobody = logout(app, None, Value::Null).await;
        assert_eq!(nobody["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    })
    .await;
}

/// Out of an old backup, say.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_has_run_out_ends_nothing() {
    drive(async |app| {
        let lives = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let ran_out = login(app, "ada@example.com", PASSWORD).await;
        let claims = |made: &Value| {
            let claims = text(made, "refreshToken").split('.').nth(1).unwrap().to_owned();
            serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
        };
        app.sql(&format!(
            "UPDATE sessions SET expires_at = now() WHERE id = '{}'",
            claims(&ran_out)["sid"].as_str().unwrap()
        ))
        .await;
        // The session of the first went on by other tokens.
        let mut old = claims(&lives);
        old["exp"] = json!(old["iat"].as_i64().unwrap() - 10);
        let old = sign("rt+jwt", &old, REFRESH_SECRET);
        for token in [text(&ran_out, "refreshToken"), &old] {
            for everywhere in [false, true] {
                let input = json!({ "refreshToken": token, "everywhere": everywhere });
                assert_eq!(logout(app, None, input).await["data"]["logout"]["endedSessions"], 0);
            }
        }
        assert!(is_good(app, text(&lives, "accessToken")).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_elsewhere_is_refused_here() {
    drive_still(async |app| {
        let made = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let second = app.second().await;
        logout(&second, Some(text(&made, "accessToken")), Value::Null).await;
        app.app.accounts.look_for_ended().await.unwrap();
        assert!(!is_good(app, text(&made, "accessToken")).await);
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_changes_ends_the_sessions() {
    drive_still(async |app| {
        let made = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        assert!(
            app.app.accounts.set_role(" ADA@example.com", sneaker_drop::accounts::Role::Admin).await.unwrap()
        );
        app.app.accounts.look_for_ended().await.unwrap();
        assert!(!is_good(app, text(&made, "accessToken")).await);
        assert_eq!(login(app, "ada@example.com", PASSWORD).await["session"]["viewer"]["role"], "ADMIN");
        assert!(
            !app.app
                .accounts
                .set_role("nobody@example.com", sneaker_drop::accounts::Role::Admin)
                .await
                .unwrap()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_expired_or_mixed_up_token_is_accepted() {
    drive(async |app| {
        let made = signup(app, "Ada", "ada@example.com", PASSWORD).await;
        let now = Utc::now().timestamp();
        let good = json!({
            "iss": "sneaker-drop", "aud": "sneaker-drop/api", "sub": Uuid::now_v7(), "sid": Uuid::now_v7(), "jti": "j",
            "iat": now, "exp": now + 900,
        });
        let with = |field: &str, value: Value| {
            let mut claims = good.clone();
            claims[field] = value;
            claims
        };
        let without = |field: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(field);
            claims
        };
        // The forger's kit works: the same claims under the right key are let in (and belong to nobody).
        assert!(app.app.accounts.authenticate(&sign("at+jwt", &good, ACCESS_SECRET)).is_ok());
        let mut forged = vec![
            text(&made, "refreshToken").to_owned(),
            sign("at+jwt", &good, REFRESH_SECRET),
            sign("at+jwt", &good, "another-secret-of-thirty-two-bytes-"),
            sign("JWT", &good, ACCESS_SECRET),
            sign("rt+jwt", &good, ACCESS_SECRET),
            format!("{}.", text(&made, "accessToken").rsplit_once('.').unwrap().0),
            text(&made, "accessToken").to_uppercase(),
            "x".repeat(100_000),
            String::new(),
        ];
        for (field, value) in [
            ("iss", json!("another")), ("aud", json!("sneaker-drop/refresh")), ("aud", json!(["x"])),
            ("exp", json!(now - 10)), ("exp", json!("soon")), ("iat", json!(now - 1_000)), ("sub", json!("nobody")), ("sid", json!(7)),
        ] {
            forged.push(sign("at+jwt", &with(field, value), ACCESS_SECRET));
        }
        for field in ["iss", "aud", "sub", "sid", "jti", "iat", "exp"] {
            forged.push(sign("at+jwt", &without(field), ACCESS_SECRET));
        }
        let base64 = |text: &str| sneaker_drop::ids::base64(text.as_bytes());
        for header in [r#"{"alg":"none","typ":"at+jwt"}"#, r#"{"alg":"HS512","typ":"at+jwt"}"#, r#"{"alg":"RS256","typ":"at+jwt"}"#] {
            let signature = sign("at+jwt", &good, ACCESS_SECRET).rsplit_once('.').unwrap().1.to_owned();
            forged.push(format!("{}.{}.{signature}", base64(header), base64(&good.to_string())));
            forged.push(format!("{}.{}.", base64(header), base64(&good.to_string())));
        }
        for token in &forged {
            assert!(app.app.accounts.authenticate(token).is_err(), "{token:.80}");
        }
        // An access token is no refresh token either.
        assert_eq!(codes(&refresh(app, text(&made, "accessToken")).await), ["INVALID_REFRESH_TOKEN"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_hash_is_made_anew_at_the_next_sign_in() {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};

    drive(async |app| {
        let (client, password) = (Client::at(std::net::Ipv4Addr::LOCALHOST.into()), "analytical engine");
        app.app.accounts.signup("ada", "ada@example.com", password, client).await.unwrap();
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(1_024, 1, 1, None).unwrap());
        let weak = weak.hash_password(password.as_bytes()).unwrap().to_string();
        app.sql(&format!("UPDATE users SET password_hash = '{weak}'")).await;
        let strong =
            "SELECT count(*) AS count FROM users WHERE password_hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'";
        let login =
            async |password| app.app.accounts.login("ada@example.com", password, client).await.unwrap();
        assert!(login("another password").await.is_none());
        assert_eq!(app.count(strong).await, 0, "nobody has shown the password");
        assert!(login(password).await.is_some());
        assert_eq!(app.count(strong).await, 1);
        assert!(login(password).await.is_some());
    })
    .await;
}

/// Without an error the client would take it for the answer to somebody who is not signed in.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_a_query_is_on_its_way_is_told() {
    drive_still(async |app| {
        let made = signup(app, "ada", "ada@example.com", PASSWORD).await;
        let token = text(&made, "accessToken");
        let credentials = Credentials::SignedIn(app.app.accounts.authenticate(token).unwrap());
        let (limits, here) = (Limits::default(), Client::at(std::net::Ipv4Addr::LOCALHOST.into()));
        let (gate, schema) = (Gate::new(&limits, true), schema(true, &limits));
        let ask = async || {
            let admitted = gate.admit(Request::new("{ viewer { email } }"), &credentials).unwrap();
            json!(execute(&schema, admitted, &app.app, credentials, here).await.response)
        };
        assert_eq!(ask().await["data"]["viewer"]["email"], "ada@example.com");
        logout(app, Some(token), Value::Null).await;
        assert_eq!(ask().await["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    })
    .await;
}
