//! Lists with pagination.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Datelike as _;
use uuid::Uuid;

use crate::{clock::Timestamp, ids::base64};

/// The paginated lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// Drops, by start.
    Drops,
    /// A drop's active holds, by deadline.
    LiveHolds,
    /// A person's reservations, by creation.
    Reservations,
    /// A person's purchases, by purchase time.
    Purchases,
}

impl List {
    const ALL: [Self; 4] = [Self::Drops, Self::LiveHolds, Self::Reservations, Self::Purchases];

    /// Returns the byte that identifies the list in cursors. Clients keep cursors, so these must not change.
    fn mark(self) -> u8 {
        match self {
            Self::Drops => b'd',
            Self::LiveHolds => b'h',
            Self::Reservations => b'r',
            Self::Purchases => b'p',
        }
    }
}

/// A position in a list that is ordered by an instant and, among equal instants, by an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The list.
    pub list: List,
    /// The instant of the entry, in whole microseconds as PostgreSQL keeps it.
    pub at: Timestamp,
    /// The id of the entry.
    pub id: Uuid,
}

impl Cursor {
    /// Returns the cursor as sent to clients.
    pub fn encode(&self) -> String {
        let micros = self.at.timestamp_micros().to_be_bytes();
        base64(&[[self.list.mark()].as_slice(), &micros, self.id.as_bytes()].concat())
    }

    /// Parses a cursor. Returns `None` if `text` is not one.
    pub fn decode(text: &str) -> Option<Self> {
        // 25 bytes are 34 characters.
        let bytes = (text.len() == 34).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
        let (mark, bytes) = bytes.split_first()?;
        let (micros, id) = bytes.split_at_checked(8)?;
        let list = List::ALL.into_iter().find(|list| list.mark() == *mark)?;
        let at = Timestamp::from_timestamp_micros(i64::from_be_bytes(micros.try_into().ok()?))?;
        // Limited to what PostgreSQL can compare with: the years 1 to 9999 are plenty.
        let years = 1..=9999;
        years.contains(&at.year()).then_some(Self { list, at, id: Uuid::from_slice(id).ok()? })
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Whether more follow.
    pub has_next: bool,
}

impl<T> Page<T> {
    /// Returns a page of the first `first` entries of `found`, for which one more was requested.
    pub fn of(mut found: Vec<T>, first: usize) -> Self {
        let has_next = found.len() > first;
        found.truncate(first);
        Self { items: found, has_next }
    }
}

impl<T: Clone> Page<T> {
    /// Returns a shorter page of the same list.
    pub fn shortened(&self, first: usize) -> Self {
        let items = self.items.iter().take(first).cloned().collect();
        Self { items, has_next: self.has_next || self.items.len() > first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_itself_and_nothing_else_does() {
        let at = Timestamp::from_timestamp_micros(1_790_000_000_123_456).unwrap();
        let cursor = Cursor { list: List::Drops, at, id: Uuid::now_v7() };
        for list in List::ALL {
            let cursor = Cursor { list, ..cursor };
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        let far = Cursor { at: Timestamp::MAX_UTC, ..cursor };
        let of_no_list = format!("A{}", &cursor.encode()[1..]);
        for text in ["", "cursor", &cursor.encode()[1..], &far.encode(), &of_no_list, &"x".repeat(9999)] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
