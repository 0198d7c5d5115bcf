//! The names of people who were shown lately: every page shows those of the same few buyers.

use std::time::Duration;

use tokio::time::Instant;

use super::PublicPerson;
use crate::{cache::Cache, ids::UserId};

/// Names that are kept.
const MOST: usize = 10_000;
/// No operation changes a name. Where somebody is made anonymous by hand, it shows this much later.
const GOOD_FOR: Duration = Duration::from_secs(10);

pub(super) struct NameCache(Cache<UserId, (PublicPerson, Instant)>);

impl NameCache {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST))
    }

    /// The person, and until when the name is shown.
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
