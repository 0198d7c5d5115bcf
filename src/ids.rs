//! The ids of things, inside and on the wire.
//!
//! Inside, each kind of id is a type of its own around a UUIDv7 made by the program. On the wire an id is
//! opaque: a prefix that tells its kind, then the bytes in base64url. One thing has exactly one such string;
//! anything else, however close, decodes to nothing.

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use diesel_derive_newtype::DieselNewType;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, DieselNewType)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later than those made before it.
            #[expect(clippy::new_without_default, reason = "each call gives another id")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// A drop.
    DropId
);
uuid_id!(
    /// A person.
    UserId
);
uuid_id!(
    /// One sign-in on one device: a family of refresh tokens.
    SessionId
);
uuid_id!(
    /// A reservation within its drop; see [`ReservationId`].
    HoldId
);

/// A reservation, and the purchase it may have become. The drop comes with it because it leads every key of
/// the stock tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId {
    /// The drop whose pair is held.
    pub drop_id: DropId,
    /// The hold within the drop.
    pub hold_id: HoldId,
}

/// What a global id on the wire names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeId {
    /// `drop_..`
    Drop(DropId),
    /// `user_..`
    User(UserId),
    /// `res_..`
    Reservation(ReservationId),
    /// `pur_..`, named by the reservation it came from.
    Purchase(ReservationId),
}

/// The longest global id that can name anything: `drop_` and the like, then 32 bytes in base64.
const LONGEST: usize = 48;

impl NodeId {
    /// The string for the wire.
    pub fn encode(&self) -> String {
        match self {
            Self::Drop(id) => format!("drop_{}", base64(id.0.as_bytes())),
            Self::User(id) => format!("user_{}", base64(id.0.as_bytes())),
            Self::Reservation(id) => format!("res_{}", encode_pair(id)),
            Self::Purchase(id) => format!("pur_{}", encode_pair(id)),
        }
    }

    /// What `text` names, or `None` when it is no global id.
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let (prefix, encoded) = text.split_once('_')?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        match prefix {
            "drop" => Some(Self::Drop(DropId(Uuid::from_slice(&bytes).ok()?))),
            "user" => Some(Self::User(UserId(Uuid::from_slice(&bytes).ok()?))),
            "res" => Some(Self::Reservation(decode_pair(&bytes)?)),
            "pur" => Some(Self::Purchase(decode_pair(&bytes)?)),
            _ => None,
        }
    }
}

impl DropId {
    /// The drop named by a global id; `None` for anything else, another kind's id included.
    pub fn decode(text: &str) -> Option<Self> {
        match NodeId::decode(text)? {
            NodeId::Drop(id) => Some(id),
            _ => None,
        }
    }
}

impl ReservationId {
    /// The reservation named by a global id; `None` for anything else, another kind's id included.
    pub fn decode(text: &str) -> Option<Self> {
        match NodeId::decode(text)? {
            NodeId::Reservation(id) => Some(id),
            _ => None,
        }
    }
}

/// The id of the signed-in person as only they see themselves; a cache key, it finds nothing.
pub fn viewer_id(user: UserId) -> String {
    format!("viewer_{}", base64(user.0.as_bytes()))
}

/// The id of one size of a drop; a cache key, it finds nothing.
pub fn drop_size_id(drop_id: DropId, size: &str) -> String {
    let bytes = [drop_id.0.as_bytes().as_slice(), size.as_bytes()].concat();
    format!("size_{}", base64(&bytes))
}

/// Bytes as base64url without padding: ids and cursors.
pub fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A text of 256 random bits that nobody guesses: secrets, and the ids of tokens.
pub fn unguessable() -> String {
    let mut bytes = [0; 32];
    match rand::fill(&mut bytes) {
        Ok(()) => base64(&bytes),
        Err(_) => unreachable!("the system's random numbers do not run out"),
    }
}

fn encode_pair(id: &ReservationId) -> String {
    let bytes = [id.drop_id.0.as_bytes().as_slice(), id.hold_id.0.as_bytes()].concat();
    base64(&bytes)
}

fn decode_pair(bytes: &[u8]) -> Option<ReservationId> {
    let (drop_id, hold_id) = bytes.split_at_checked(16)?;
    Some(ReservationId {
        drop_id: DropId(Uuid::from_slice(drop_id).ok()?),
        hold_id: HoldId(Uuid::from_slice(hold_id).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_back_as_itself() {
        let reservation = ReservationId { drop_id: DropId::new(), hold_id: HoldId::new() };
        for id in [
            NodeId::Drop(reservation.drop_id),
            NodeId::User(UserId::new()),
            NodeId::Reservation(reservation),
            NodeId::Purchase(reservation),
        ] {
            assert_eq!(NodeId::decode(&id.encode()), Some(id));
        }
    }

    #[test]
    fn what_is_no_id_decodes_to_nothing() {
        let drop = NodeId::Drop(DropId::new()).encode();
        let truncated = &drop[..drop.len() - 1];
        let padded = format!("{drop}=");
        // The last character of 16 bytes carries two bits: another with the same two must not be an alias.
        let alias: Vec<String> =
            ('A'..='Z').map(|c| format!("{truncated}{c}")).filter(|text| *text != drop).collect();
        let decoded = alias.iter().filter(|text| NodeId::decode(text) == NodeId::decode(&drop)).count();
        assert_eq!(decoded, 0);
        for text in
            ["", "_", "drop_", "drop", truncated, &padded, &drop.replace("drop", "res"), &"x".repeat(9999)]
        {
            assert_eq!(NodeId::decode(text), None, "{text}");
        }
        assert_eq!(ReservationId::decode(&drop), None);
    }
}
