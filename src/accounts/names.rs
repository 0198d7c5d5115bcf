//! The names of people who were shown lately: every page shows those of the same few buyers.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

use super::PublicPerson;
use crate::ids::UserId;

/// Names that are kept; the least used make room.
const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// No operation changes a name. Where somebody is made anonymous by hand, it shows this much later.
const GOOD_FOR: Duration = Duration::from_secs(10);

pub(super) struct Names(Mutex<LruCache<UserId, (PublicPerson, Instant)>>);

impl Names {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }

    /// The person, and until when the name is shown.
    pub(super) fn find(&self, id: UserId) -> Option<(PublicPerson, Instant)> {
        let mut names = self.lock();
        let (person, read) = names.get(&id)?;
        (read.elapsed() < GOOD_FOR).then(|| (person.clone(), *read + GOOD_FOR))
    }

    pub(super) fn keep(&self, people: &[PublicPerson]) {
        let mut names = self.lock();
        for person in people {
            names.put(person.id, (person.clone(), Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<UserId, (PublicPerson, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
