//! A cache of recently shown names: every page shows those of the same few buyers.

use std::time::Duration;

use tokio::time::Instant;

use super::PublicPerson;
use crate::{cache::Cache, ids::UserId};

/// Number of cached names.
const MOST: usize = 10_000;
/// No operation changes a name. If a person is anonymised by hand, that shows after this time.
const GOOD_FOR: Duration = Duration::from_secs(10);

pub(super) struct NameCache(Cache<UserId, (PublicPerson, Instant)>);

impl NameCache {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST))
    }

    /// Returns the person, and until when the name may be shown.
    pub(super) fn find(&self, id: UserId) -> Option<(PublicPerson, Instant)> {
        let (person, read) = self.0.get(&id)?;
        (read.elapsed() < GOOD_FOR).then(|| (person, read + GOOD_FOR))
    }

    pub(super) fn keep(&self, people: &[PublicPerson]) {
        let mut names = self.0.lock();
        for person in people {
            names.put(person.id, (person.clone(), Instant::now()));
        }
    }
}
