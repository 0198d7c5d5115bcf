//! Access and refresh tokens: JWTs (RFC 7519), each kind with its own secret, audience and type, so that neither passes
//! for the other.
//!
//! The successor of a refresh token is derived from it by a keyed hash: a token presented twice within the grace period
//! gets the same successor, and only hashes are stored.

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::{digest, hmac};
use chrono::{DateTime, TimeDelta};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};
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
/// As in RFC 9068, section 2.1; refresh tokens follow its pattern.
static ACCESS: LazyLock<Kind> = LazyLock::new(|| Kind::new("at+jwt", "sneaker-drop/api"));
static REFRESH: LazyLock<Kind> = LazyLock::new(|| Kind::new("rt+jwt", "sneaker-drop/refresh"));

/// Tolerance on expiry. It is compared with the database clock, so this only covers the time in transit.
pub(super) const LEEWAY: TimeDelta = TimeDelta::seconds(2);
/// Our tokens have some 350 bytes; a longer one is not worth verifying.
const LONGEST_TOKEN: usize = 1024;

/// The token is forged, malformed, of another kind, or expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token is invalid or expired")]
pub struct TokenRejected;

struct Kind {
    header_type: &'static str,
    audience: &'static str,
    validation: Validation,
}

impl Kind {
    fn new(header_type: &'static str, audience: &'static str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // The caller compares the expiry with the database clock.
        validation.validate_exp = false;
        Self { header_type, audience, validation }
    }
}

/// The claims of a token, all of them required.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    /// The person.
    sub: Uuid,
    /// The session.
    sid: Uuid,
    /// Of a refresh token: the input of its hash and its successor.
    pub(super) jti: String,
    iat: i64,
    exp: i64,
}

impl Claims {
    pub(super) fn caller(&self) -> Result<Caller, TokenRejected> {
        let expires_at = DateTime::from_timestamp(self.exp, 0).ok_or(TokenRejected)?;
        Ok(Caller { user_id: UserId(self.sub), session_id: SessionId(self.sid), expires_at })
    }

    /// Returns the claims with a lifetime of at most `lifetime`.
    pub(super) fn shortened(mut self, lifetime: Duration) -> Self {
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        self.exp = self.exp.min(self.iat.saturating_add(seconds));
        self
    }
}

/// A secret and the keys derived from it.
struct Key {
    /// The `kid` in a token's header, which reveals nothing about the secret.
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// Derives successors of refresh tokens. A separate key, so that no two uses of one can be played against each
    /// other.
    succession: hmac::Key,
}

impl Key {
    fn new(secret: &SecretString) -> Self {
        let bytes = secret.expose_secret().as_bytes();
        let all = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = |what: &[u8]| hmac::sign(&all, what);
        let id = derived(b"sneaker-drop key id");
        let id = ids::base64(id.as_ref().get(..9).unwrap_or_default());
        let succession = derived(b"sneaker-drop refresh token succession");
        Self {
            id,
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
            succession: hmac::Key::new(hmac::HMAC_SHA256, succession.as_ref()),
        }
    }
}

/// The secret that signs, and the second one during a rotation.
struct Ring {
    current: Key,
    previous: Option<Key>,
}

impl Ring {
    fn new(secret: &SecretString, previous: Option<&SecretString>) -> Self {
        Self { current: Key::new(secret), previous: previous.map(Key::new) }
    }

    /// Returns the claims of a token that one of the keys has signed, and that key. A `kid` must be that of the key;
    /// only the current key accepts a token without one.
    fn decode(&self, kind: &Kind, token: &str) -> Option<(TokenData<Claims>, &Key)> {
        let decode = |key: &Key| jsonwebtoken::decode::<Claims>(token, &key.decoding, &kind.validation).ok();
        let named =
            |data: &TokenData<Claims>, key: &Key| data.header.kid.as_deref().is_none_or(|id| id == key.id);
        if let Some(data) = decode(&self.current) {
            return named(&data, &self.current).then_some((data, &self.current));
        }
        let key = self.previous.as_ref()?;
        let data = decode(key).filter(|data| data.header.kid.as_deref() == Some(&key.id))?;
        Some((data, key))
    }
}

pub(super) struct Tokens {
    access: Ring,
    refresh: Ring,
}

impl Tokens {
    pub(super) fn new(secrets: &TokenSecrets) -> Self {
        Self {
            access: Ring::new(&secrets.access, secrets.previous_access.as_ref()),
            refresh: Ring::new(&secrets.refresh, secrets.previous_refresh.as_ref()),
        }
    }

    pub(super) fn issue_access(
        &self,
        user: UserId,
        session: SessionId,
        from: Timestamp,
        until: Timestamp,
    ) -> String {
        issue(&ACCESS, &self.access.current, user, session, ids::unguessable(), from, until)
    }

    pub(super) fn issue_refresh(
        &self,
        user: UserId,
        session: SessionId,
        jti: String,
        from: Timestamp,
        until: Timestamp,
    ) -> String {
        issue(&REFRESH, &self.refresh.current, user, session, jti, from, until)
    }

    /// Verifies the signature and the claims, but not the expiry, which the caller has to check.
    pub(super) fn verify_access(&self, token: &str) -> Result<Claims, TokenRejected> {
        Ok(verify(&ACCESS, &self.access, token)?.0)
    }

    /// Verifies as [`verify_access`](Self::verify_access) does, and returns the successor's `jti` as well. That is
    /// derived with the token's own key, so servers with the new and with the old secret agree on it.
    pub(super) fn verify_refresh(&self, token: &str) -> Result<(Claims, String), TokenRejected> {
        let (claims, key) = verify(&REFRESH, &self.refresh, token)?;
        let successor = ids::base64(hmac::sign(&key.succession, claims.jti.as_bytes()).as_ref());
        Ok((claims, successor))
    }
}

/// Returns what is stored of a refresh token. A `jti` has 256 random bits, so a plain hash cannot be searched.
pub(super) fn hash(jti: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, jti.as_bytes()).as_ref().to_vec()
}

fn issue(
    kind: &Kind,
    key: &Key,
    user: UserId,
    session: SessionId,
    jti: String,
    from: Timestamp,
    until: Timestamp,
) -> String {
    let header = Header {
        typ: Some(kind.header_type.to_owned()),
        kid: Some(key.id.clone()),
        ..Header::new(Algorithm::HS256)
    };
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: kind.audience.to_owned(),
        sub: user.0,
        sid: session.0,
        jti,
        iat: from.timestamp(),
        exp: until.timestamp(),
    };
    match jsonwebtoken::encode(&header, &claims, &key.encoding) {
        Ok(token) => token,
        Err(error) => unreachable!("plain claims under a symmetric key: {error}"),
    }
}

fn verify<'a>(kind: &Kind, ring: &'a Ring, token: &str) -> Result<(Claims, &'a Key), TokenRejected> {
    if token.len() > LONGEST_TOKEN {
        return Err(TokenRejected);
    }
    let (data, key) = ring.decode(kind, token).ok_or(TokenRejected)?;
    match data.header.typ.as_deref() == Some(kind.header_type) {
        true => Ok((data.claims, key)),
        false => Err(TokenRejected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(name: &str) -> TokenSecrets {
        let secret = |use_of: &str| format!("{name}-{use_of}-secret-0123456789abcdef").into();
        TokenSecrets::new(secret("access"), secret("refresh"))
    }

    fn pair(tokens: &Tokens) -> (String, String) {
        let (user, session, from) = (UserId::new(), SessionId::new(), chrono::Utc::now());
        let until = from + TimeDelta::minutes(5);
        let refresh = tokens.issue_refresh(user, session, ids::unguessable(), from, until);
        (tokens.issue_access(user, session, from, until), refresh)
    }

    #[test]
    fn tokens_of_the_secret_before_stay_good_and_are_succeeded_alike() {
        let (old, new) = (secrets("old"), secrets("new"));
        let before = Tokens::new(&old);
        let (access, refresh) = pair(&before);
        let during = Tokens::new(&TokenSecrets {
            previous_access: Some(old.access.clone()),
            previous_refresh: Some(old.refresh.clone()),
            ..new.clone()
        });
        assert!(during.verify_access(&access).is_ok());
        let successor = |tokens: &Tokens| tokens.verify_refresh(&refresh).unwrap().1;
        assert_eq!(successor(&before), successor(&during), "servers with either secret agree");
        let (newer_access, newer_refresh) = pair(&during);
        assert!(before.verify_access(&newer_access).is_err());
        assert!(before.verify_refresh(&newer_refresh).is_err());
        let after = Tokens::new(&new);
        assert!(after.verify_access(&newer_access).is_ok());
        assert!(after.verify_access(&access).is_err());
        assert!(after.verify_refresh(&refresh).is_err());
    }

    #[test]
    fn a_key_id_chooses_among_ours_and_nothing_else() {
        let tokens = Tokens::new(&secrets("some"));
        let (access, _) = pair(&tokens);
        let claims = tokens.verify_access(&access).unwrap();
        for (kid, good) in [
            (None, true),
            (Some(tokens.access.current.id.as_str()), true),
            (Some(tokens.refresh.current.id.as_str()), false),
            (Some(""), false),
            (Some("../../etc/passwd"), false),
        ] {
            let header = Header {
                typ: Some(ACCESS.header_type.to_owned()),
                kid: kid.map(str::to_owned),
                ..Header::new(Algorithm::HS256)
            };
            let token = jsonwebtoken::encode(&header, &claims, &tokens.access.current.encoding).unwrap();
            assert_eq!(tokens.verify_access(&token).is_ok(), good, "{kid:?}");
        }
    }
}
