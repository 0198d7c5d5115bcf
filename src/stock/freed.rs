//! Pair numbers that were given out before and are known to be free again.
//!
//! To find them PostgreSQL scans all numbers of the size and all live holds, a millisecond for each thousand
//! (measured: 14 to 22 ms with 20,000, 110 to 135 with 100,000). A server that closes holds knows which pairs it
//! freed and needs no scan. What it knew before others changed the drop is looked up by number.

use std::collections::{BTreeSet, HashMap};

use super::queries::Version;

/// Maximum of numbers kept per size. Further ones are found by a scan once these are given out again.
pub(super) const MOST: usize = 10_000;

type BySize = HashMap<String, BTreeSet<i32>>;

#[derive(Default)]
pub(super) struct Freed {
    /// The drop's version at which `known` is right.
    version: Option<Version>,
    /// Some of the free numbers; each of these is free.
    known: BySize,
    /// Numbers that were free at another version: unconfirmed.
    rumoured: BySize,
}

impl Freed {
    /// Sets the drop's version. If it is another one, all known numbers become unconfirmed.
    pub(super) fn look_at(&mut self, version: &Version) {
        if self.version.as_ref() != Some(version) {
            self.doubt();
            self.version = Some(version.clone());
        }
    }

    /// Makes all known numbers unconfirmed, because something was not as expected.
    pub(super) fn doubt(&mut self) {
        for (size, numbers) in self.known.drain() {
            add(&mut self.rumoured, &size, numbers);
        }
    }

    /// Returns the numbers known to be free, lowest first.
    pub(super) fn known(&self, size: &str) -> impl Iterator<Item = i32> {
        self.known.get(size).into_iter().flatten().copied()
    }

    /// Returns the unconfirmed numbers, lowest first.
    pub(super) fn rumoured(&self, size: &str) -> impl Iterator<Item = i32> {
        self.rumoured.get(size).into_iter().flatten().copied()
    }

    /// Adds numbers that are free.
    pub(super) fn add(&mut self, size: &str, numbers: Vec<i32>) {
        self.settle(size, &numbers);
        add(&mut self.known, size, numbers);
    }

    /// Removes unconfirmed numbers that have been looked up.
    pub(super) fn settle(&mut self, size: &str, rumoured: &[i32]) {
        if let Some(numbers) = self.rumoured.get_mut(size) {
            rumoured.iter().for_each(|number| _ = numbers.remove(number));
        }
    }

    /// Removes a number that is given out.
    pub(super) fn give(&mut self, size: &str, number: i32) {
        if let Some(numbers) = self.known.get_mut(size) {
            numbers.remove(&number);
        }
    }

    /// Sets the version that a batch left, at which the known numbers are right.
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
