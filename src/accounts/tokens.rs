//! Access and refresh tokens: JWTs (RFC 7519) with a secret, an audience and a type each, so that neither passes
//! for the other.
//!
//! The successor of a refresh token is derived from it by a keyed hash: shown twice within the grace, a token gets
//! the same successor twice, and only hashes are stored.

use aws_lc_rs::{digest, hmac, rand};
use chrono::{DateTime, TimeDelta};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Caller;
use crate::{
    clock::Timestamp,
    config::TokenSecrets,
    ids::{self, SessionId, UserId},
};

const ISSUER: &str = "sneaker-drop";
/// RFC 9068, section 2.1, and in its manner.
const ACCESS: Kind = Kind { header_type: "at+jwt", audience: "sneaker-drop/api" };
const REFRESH: Kind = Kind { header_type: "rt+jwt", audience: "sneaker-drop/refresh" };

/// What clocks may differ by. Deadlines are compared with the database clock, so this covers only the way.
pub(super) const LEEWAY: TimeDelta = TimeDelta::seconds(2);
/// Ours have some 350 bytes; a longer one is not worth the hash.
const LONGEST_TOKEN: usize = 1024;

/// The token is forged, mangled, of another kind, or past its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token is not good, or not good any more")]
pub struct TokenRejected;

struct Kind {
    header_type: &'static str,
    audience: &'static str,
}

/// What a token says. All of it is required.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    /// The person.
    sub: Uuid,
    /// The session.
    sid: Uuid,
    /// Of a refresh token: what its hash and its successor are made from.
    pub(super) jti: String,
    iat: i64,
    exp: i64,
}

impl Claims {
    pub(super) fn caller(&self) -> Result<Caller, TokenRejected> {
        let expires_at = DateTime::from_timestamp(self.exp, 0).ok_or(TokenRejected)?;
        Ok(Caller { user_id: UserId(self.sub), session_id: SessionId(self.sid), expires_at })
    }
}

struct Keys {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Keys {
    fn new(secret: &SecretString) -> Self {
        let bytes = secret.expose_secret().as_bytes();
        Self { encoding: EncodingKey::from_secret(bytes), decoding: DecodingKey::from_secret(bytes) }
    }
}

pub(super) struct Tokens {
    access: Keys,
    refresh: Keys,
    succession: hmac::Key,
}

impl Tokens {
    pub(super) fn new(secrets: &TokenSecrets) -> Self {
        // A key of its own for the derivation: no two uses of one key can be played against each other.
        let refresh = hmac::Key::new(hmac::HMAC_SHA256, secrets.refresh.expose_secret().as_bytes());
        let derived = hmac::sign(&refresh, b"sneaker-drop refresh token succession");
        Self {
            access: Keys::new(&secrets.access),
            refresh: Keys::new(&secrets.refresh),
            succession: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
        }
    }

    pub(super) fn issue_access(
        &self,
        user: UserId,
        session: SessionId,
        from: Timestamp,
        until: Timestamp,
    ) -> String {
        issue(&ACCESS, &self.access, user, session, random_jti(), from, until)
    }

    pub(super) fn issue_refresh(
        &self,
        user: UserId,
        session: SessionId,
        jti: String,
        from: Timestamp,
        until: Timestamp,
    ) -> String {
        issue(&REFRESH, &self.refresh, user, session, jti, from, until)
    }

    /// Signature and claims are right; whether the time has run out is the caller's to ask.
    pub(super) fn verify_access(&self, token: &str) -> Result<Claims, TokenRejected> {
        verify(&ACCESS, &self.access, token)
    }

    /// As [`verify_access`](Self::verify_access).
    pub(super) fn verify_refresh(&self, token: &str) -> Result<Claims, TokenRejected> {
        verify(&REFRESH, &self.refresh, token)
    }

    /// The `jti` that follows this one.
    pub(super) fn successor(&self, jti: &str) -> String {
        ids::base64(hmac::sign(&self.succession, jti.as_bytes()).as_ref())
    }
}

/// What is stored of a refresh token. A `jti` has 256 random bits: a plain hash cannot be searched.
pub(super) fn hash(jti: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, jti.as_bytes()).as_ref().to_vec()
}

pub(super) fn random_jti() -> String {
    let mut bytes = [0; 32];
    match rand::fill(&mut bytes) {
        Ok(()) => ids::base64(&bytes),
        Err(_) => unreachable!("the system's random numbers do not run out"),
    }
}

fn issue(
    kind: &Kind,
    keys: &Keys,
    user: UserId,
    session: SessionId,
    jti: String,
    from: Timestamp,
    until: Timestamp,
) -> String {
    let header = Header { typ: Some(kind.header_type.to_owned()), ..Header::new(Algorithm::HS256) };
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: kind.audience.to_owned(),
        sub: user.0,
        sid: session.0,
        jti,
        iat: from.timestamp(),
        exp: until.timestamp(),
    };
    match jsonwebtoken::encode(&header, &claims, &keys.encoding) {
        Ok(token) => token,
        Err(error) => unreachable!("plain claims under a symmetric key: {error}"),
    }
}

fn verify(kind: &Kind, keys: &Keys, token: &str) -> Result<Claims, TokenRejected> {
    if token.len() > LONGEST_TOKEN {
        return Err(TokenRejected);
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[kind.audience]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    // The time is compared with the database clock, by the caller.
    validation.validate_exp = false;
    let data =
        jsonwebtoken::decode::<Claims>(token, &keys.decoding, &validation).map_err(|_| TokenRejected)?;
    match data.header.typ.as_deref() == Some(kind.header_type) {
        true => Ok(data.claims),
        false => Err(TokenRejected),
    }
}
