//! Access tokens of buyers whom nobody has met before.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

/// Good for an hour, of a session of its own.
pub fn access_token(person: Uuid, secret: &str) -> String {
    let now = chrono::Utc::now().timestamp();
    let claims = json!({
        "iss": "sneaker-drop", "aud": "sneaker-drop/api", "sub": person, "sid": Uuid::now_v7(),
        "jti": Uuid::now_v7(), "iat": now, "exp": now + 3_600,
    });
    sign("at+jwt", &claims, secret)
}

pub fn sign(kind: &str, claims: &Value, secret: &str) -> String {
    let header = Header { typ: Some(kind.to_owned()), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}
