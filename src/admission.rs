//! Admission tokens, for a waiting room or a challenge in front of a drop.
//!
//! The waiting room signs a token for one buyer and one drop; `reserve` accepts it once. It needs the secret and
//! nothing else of this program: `docs/admission.md` has the format. The use of a token is recorded with its
//! reservation, and checked under the drop's lock.

use chrono::{DateTime, TimeDelta};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    config::AdmissionSecrets,
    ids::{DropId, NodeId, UserId},
};

const AUDIENCE: &str = "sneaker-drop/admission";
/// Tolerated difference between the waiting room's clock and the database's.
const LEEWAY: TimeDelta = TimeDelta::seconds(2);
/// Our tokens have some 300 bytes; a longer one is not worth the hash.
const LONGEST_TOKEN: usize = 1024;
const LONGEST_ID: usize = 64;

/// A verified token, which was issued for the buyer and the drop that it was presented for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The token's id, recorded when it is used.
    pub id: String,
    /// Start of its validity, by the database clock.
    pub from: Timestamp,
    /// End of its validity.
    pub until: Timestamp,
}

/// The signed claims, all required.
#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    /// The buyer, as `User.id`.
    sub: String,
    /// The drop, as `Drop.id`.
    drop: String,
    jti: String,
    nbf: i64,
    exp: i64,
}

/// Issues and verifies admission tokens.
pub struct Admissions {
    signing: Option<EncodingKey>,
    /// The secret that signs, then the previous one.
    verifying: Vec<DecodingKey>,
    validation: Validation,
}

impl Admissions {
    /// Uses these secrets. Without any, no token is valid.
    pub fn new(secrets: Option<&AdmissionSecrets>) -> Self {
        let all = secrets.into_iter().flat_map(|secrets| [Some(&secrets.current), secrets.previous.as_ref()]);
        let verifying = |secret: &SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud", "sub", "exp", "nbf"]);
        // The time is compared with the database clock.
        validation.validate_exp = false;
        Self {
            validation,
            signing: secrets
                .map(|secrets| EncodingKey::from_secret(secrets.current.expose_secret().as_bytes())),
            verifying: all.flatten().map(verifying).collect(),
        }
    }

    /// Returns whether any token can be valid.
    pub fn are_possible(&self) -> bool {
        !self.verifying.is_empty()
    }

    /// Issues a token for one reservation of this drop by this buyer. `None`: there is no secret to sign with.
    pub fn issue(&self, drop: DropId, buyer: UserId, from: Timestamp, until: Timestamp) -> Option<String> {
        let claims = Claims {
            aud: AUDIENCE.to_owned(),
            sub: NodeId::User(buyer).encode(),
            drop: NodeId::Drop(drop).encode(),
            jti: Uuid::now_v7().to_string(),
            nbf: from.timestamp(),
            exp: until.timestamp(),
        };
        match jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, self.signing.as_ref()?) {
            Ok(token) => Some(token),
            Err(error) => unreachable!("plain claims under a symmetric key: {error}"),
        }
    }

    /// Returns the token's claims, if it was signed for this drop and this buyer. Its validity period and whether it
    /// was used are checked under the drop's lock.
    pub fn verify(&self, token: &str, drop: DropId, buyer: UserId) -> Option<Admission> {
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        let verified = |key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok();
        let claims = self.verifying.iter().find_map(verified)?.claims;
        let is_theirs = NodeId::decode(&claims.sub) == Some(NodeId::User(buyer))
            && NodeId::decode(&claims.drop) == Some(NodeId::Drop(drop));
        let has_id = (1..=LONGEST_ID).contains(&claims.jti.len()) && !claims.jti.contains(char::is_control);
        let at = |seconds, leeway| DateTime::from_timestamp(seconds, 0)?.checked_add_signed(leeway);
        let (from, until) = (at(claims.nbf, -LEEWAY)?, at(claims.exp, LEEWAY)?);
        (is_theirs && has_id).then_some(Admission { id: claims.jti, from, until })
    }
}
