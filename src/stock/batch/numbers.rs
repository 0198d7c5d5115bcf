//! Which pairs a batch gives out.

use std::collections::HashMap;

use diesel_async::AsyncPgConnection;
use futures_util::future::try_join_all;

use crate::{
    db::DbError,
    drops::SizeStock,
    ids::{DropId, HoldId},
    stock::{
        decide::{Grant, Known, Look, Plan},
        queries,
    },
};

/// Pair numbers for grants, by size: those never used first, then those that this batch gives back, then those given back
/// before. Each list is taken from its end.
pub(super) struct Numbers {
    by_size: HashMap<String, Vec<i32>>,
    missing: Vec<Missing>,
}

/// So many of a size that were given back before. They have to be found: below the first number never used.
struct Missing {
    size: String,
    count: i32,
    below: i32,
}

impl Numbers {
    /// Those that are known without asking.
    pub(super) fn at_hand(
        look: &Look,
        plan: &Plan,
        next_pairs: &HashMap<String, i32>,
        holds: &HashMap<HoldId, Known>,
    ) -> Self {
        let mut wanted: HashMap<&str, i32> = HashMap::new();
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
            let Some(wanted) = wanted.get(size.as_str()) else { continue };
            let below = next_pairs.get(size).copied().unwrap_or(count.total + 1);
            let fresh = (*wanted).min(count.total - below + 1);
            let mut numbers: Vec<i32> = (below..below + fresh).collect();
            let mut own = own.remove(size.as_str()).unwrap_or_default();
            own.sort_unstable();
            numbers.extend(own);
            let count = wanted - i32::try_from(numbers.len()).unwrap_or(i32::MAX);
            if count > 0 {
                missing.push(Missing { size: size.clone(), count, below });
            }
            numbers.reverse();
            by_size.insert(size.clone(), numbers);
        }
        Self { by_size, missing }
    }

    /// Whether there is one for each grant.
    pub(super) fn are_enough(&self) -> bool {
        self.missing.is_empty()
    }

    /// Asks the database for those that are missing.
    pub(super) async fn complete(
        &mut self,
        connection: &AsyncPgConnection,
        drop_id: DropId,
    ) -> Result<(), DbError> {
        let find = async |Missing { size, count, below }: Missing| {
            let found = queries::list_freed_pairs(connection, drop_id, &size, below, count).await?;
            Ok::<_, DbError>((size, found))
        };
        for (size, found) in try_join_all(self.missing.drain(..).map(find)).await? {
            self.add(size, found);
        }
        Ok(())
    }

    /// To be given out last, in this order.
    pub(super) fn add(&mut self, size: String, found: Vec<i32>) {
        self.by_size.entry(size).or_default().splice(0..0, found.into_iter().rev());
    }

    /// One for each.
    pub(super) fn give_to(mut self, grants: &[Grant]) -> Result<Vec<i32>, DbError> {
        let give = |grant: &Grant| {
            let number = self.by_size.get_mut(&grant.size).and_then(Vec::pop);
            number.ok_or_else(|| DbError::Unexpected(format!("no pair of {} is free", grant.size)))
        };
        grants.iter().map(give).collect()
    }
}
