//! Which pairs of a drop were given out before and came back, as far as this server knows.
//!
//! To find them PostgreSQL goes through all numbers of the size and all live holds, a millisecond for each thousand
//! (measured: 14 to 22 ms with 20,000, 110 to 135 with 100,000). Where a server closes holds it knows whose pair came back,
//! and needs no look; and what it once knew of a drop that others have changed since is looked up by number.

use std::collections::{BTreeSet, HashMap};

use super::queries::Version;

/// Pairs of one size that are kept. Of those beyond nothing is known until these are given out again.
pub(super) const MOST: usize = 10_000;

type BySize = HashMap<String, BTreeSet<i32>>;

#[derive(Default)]
pub(super) struct Freed {
    /// Of the drop at which what is known is so.
    version: Option<Version>,
    /// Not all that are free, but each of these is.
    known: BySize,
    /// What was known of another version.
    rumoured: BySize,
}

impl Freed {
    /// The drop has this version. Of another one what was known is a rumour.
    pub(super) fn look_at(&mut self, version: &Version) {
        if self.version.as_ref() != Some(version) {
            self.doubt();
            self.version = Some(version.clone());
        }
    }

    /// Something was not as it was known to be.
    pub(super) fn doubt(&mut self) {
        for (size, numbers) in self.known.drain() {
            add(&mut self.rumoured, &size, numbers);
        }
    }

    /// The lowest first.
    pub(super) fn known(&self, size: &str) -> impl Iterator<Item = i32> {
        self.known.get(size).into_iter().flatten().copied()
    }

    /// The lowest first.
    pub(super) fn rumoured(&self, size: &str) -> impl Iterator<Item = i32> {
        self.rumoured.get(size).into_iter().flatten().copied()
    }

    /// These are free.
    pub(super) fn add(&mut self, size: &str, numbers: Vec<i32>) {
        self.settle(size, &numbers);
        add(&mut self.known, size, numbers);
    }

    /// Of these it is known by now whether they are.
    pub(super) fn settle(&mut self, size: &str, rumoured: &[i32]) {
        if let Some(numbers) = self.rumoured.get_mut(size) {
            rumoured.iter().for_each(|number| _ = numbers.remove(number));
        }
    }

    /// Somebody gets it.
    pub(super) fn give(&mut self, size: &str, number: i32) {
        if let Some(numbers) = self.known.get_mut(size) {
            numbers.remove(&number);
        }
    }

    /// A batch has made this version of it, and what is known is so.
    pub(super) fn is_left_at(&mut self, version: &Version) {
        self.version = Some(version.clone());
    }
}

fn add(kept: &mut BySize, size: &str, numbers: impl IntoIterator<Item = i32>) {
    if !kept.contains_key(size) {
        kept.insert(size.to_owned(), BTreeSet::new());
    }
    let Some(kept) = kept.get_mut(size) else { return };
    let room = MOST.saturating_sub(kept.len());
    kept.extend(numbers.into_iter().take(room));
}
