//! The pairs that a batch gives out.

use std::collections::HashMap;

use diesel_async::AsyncPgConnection;
use futures_util::future::try_join_all;

use crate::{
    db::DbError,
    drops::SizeStock,
    ids::{DropId, HoldId},
    stock::{
        decide::{Grant, Known, Look, Plan},
        freed::{Freed, MOST},
        queries,
    },
};

/// Pair numbers for grants, by size: first those never used, then those released by this batch, then those released
/// before. Each list is consumed from its end.
pub(super) struct PairAllocation {
    by_size: HashMap<String, Vec<i32>>,
    missing: Vec<Missing>,
}

/// Previously used pairs of a size that are wanted, of which too few are known to be free. They have to be found
/// below the first number never used.
pub(super) struct Missing {
    pub(super) size: String,
    pub(super) count: usize,
    pub(super) below: i32,
}

/// Free numbers of a size, at least as many as were missing.
pub(super) struct Found {
    /// Unconfirmed numbers that have been looked up.
    pub(super) settled: Vec<i32>,
    pub(super) free: Vec<i32>,
}

/// The pair of each grant; and, by size, those that this batch releases and nobody got.
#[derive(Default)]
pub(super) struct Given {
    pub(super) pairs: Vec<i32>,
    pub(super) left_over: HashMap<String, Vec<i32>>,
}

impl PairAllocation {
    /// Returns the numbers that are known without a query.
    pub(super) fn at_hand(
        look: &Look,
        plan: &Plan,
        next_pairs: &HashMap<String, i32>,
        holds: &HashMap<HoldId, Known>,
        freed: &Freed,
    ) -> Self {
        let mut wanted: HashMap<&str, usize> = HashMap::new();
        for grant in &plan.grants {
            *wanted.entry(&grant.size).or_default() += 1;
        }
        let given_back = plan.closings.iter().filter(|closing| !closing.to.is_live());
        let given_back = given_back.filter_map(|closing| holds.get(&closing.hold_id));
        let mut own: HashMap<&str, Vec<i32>> = HashMap::new();
        for Known { reservation, .. } in given_back {
            own.entry(&reservation.size).or_default().push(reservation.pair_number);
        }
        let (mut by_size, mut missing) = (HashMap::new(), Vec::new());
        for SizeStock { size, count } in &look.sizes {
            let wanted = wanted.get(size.as_str()).copied().unwrap_or_default();
            let below = next_pairs.get(size).copied().unwrap_or(count.total + 1);
            let mut numbers: Vec<i32> = (below..=count.total).take(wanted).collect();
            let mut own = own.remove(size.as_str()).unwrap_or_default();
            own.sort_unstable();
            numbers.extend(own);
            let count = wanted.saturating_sub(numbers.len());
            let back: Vec<i32> = freed.known(size).take(count).collect();
            match back.len() < count {
                true => missing.push(Missing { size: size.clone(), count, below }),
                false => numbers.extend(back),
            }
            numbers.reverse();
            if !numbers.is_empty() {
                by_size.insert(size.clone(), numbers);
            }
        }
        Self { by_size, missing }
    }

    /// Returns what has to be found.
    pub(super) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Finds what is missing.
    pub(super) async fn complete(
        &mut self,
        connection: &AsyncPgConnection,
        drop_id: DropId,
        freed: &mut Freed,
    ) -> Result<(), DbError> {
        let find = |missing| find(connection, drop_id, missing, &*freed);
        let found = try_join_all(self.missing.iter().map(find)).await?;
        self.add(found, freed);
        Ok(())
    }

    /// Adds the numbers found, to be given out last, lowest first. The surplus is known from now on.
    pub(super) fn add(&mut self, found: Vec<Found>, freed: &mut Freed) {
        for (Missing { size, count, .. }, Found { settled, free, .. }) in self.missing.drain(..).zip(found) {
            freed.settle(&size, &settled);
            freed.add(&size, free);
            let back: Vec<i32> = freed.known(&size).take(count).collect();
            self.by_size.entry(size).or_default().splice(0..0, back.into_iter().rev());
        }
    }

    /// Takes one number per grant.
    pub(super) fn give_to(mut self, grants: &[Grant]) -> Result<Given, DbError> {
        let give = |grant: &Grant| {
            let number = self.by_size.get_mut(&grant.size).and_then(Vec::pop);
            number.ok_or_else(|| DbError::Unexpected(format!("no pair of {} is free", grant.size)))
        };
        let pairs = grants.iter().map(give).collect::<Result<_, _>>()?;
        Ok(Given { pairs, left_over: self.by_size })
    }
}

/// Unconfirmed numbers looked up at most, until enough are free: other servers have given out the free ones first.
const MOST_RUMOURS: usize = 1_000;

async fn find(
    connection: &AsyncPgConnection,
    drop_id: DropId,
    Missing { size, count, below }: &Missing,
    freed: &Freed,
) -> Result<Found, DbError> {
    // After a failover some may never have been used.
    let used = |number: &i32| number < below;
    let mut settled: Vec<i32> = freed.rumoured(size).take_while(used).take(MOST_RUMOURS).collect();
    if !settled.is_empty() {
        let free = queries::keep_free_pairs(connection, drop_id, size, settled.clone(), *count).await?;
        if free.len() == *count {
            // The query went no further than that.
            settled.retain(|number| Some(number) <= free.last());
            return Ok(Found { settled, free });
        }
    }
    let free = queries::list_freed_pairs(connection, drop_id, size, *below, count + MOST).await?;
    Ok(Found { settled, free })
}
