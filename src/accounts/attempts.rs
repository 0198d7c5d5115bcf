//! Who guesses passwords is slowed down, and whose account it is gets in all the same.
//!
//! Counted on this server alone: three servers let three times as many through.

use std::time::Duration;

use aws_lc_rs::digest;

use crate::{cache::Cache, client::Client, config::Limits, rates::Rates};

const MINUTE: Duration = Duration::from_secs(60);
/// In which wrong passwords are counted.
const WRONG_IN: Duration = Duration::from_secs(600);
/// Accounts with an address from which somebody has signed in to them.
const MOST_HOMES: usize = 100_000;

/// An account by its address, there or not: who guesses must not learn which. Hashed, so that the memory has no addresses
/// in it and each takes the same room.
type Account = [u8; 16];

pub(super) struct Attempts {
    by_client: Rates<Client>,
    wrong: Rates<Wrong>,
    /// Where a right password came from.
    homes: Cache<(Account, Client), ()>,
}

/// For whose account a wrong password counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wrong {
    /// Of whoever has not signed in to it before: all of them together.
    Strangers(Account),
    /// Of an address at which it is at home: a budget of its own, which strangers cannot use up.
    AtHome(Account, Client),
}

/// A try that was let through, to be told what came of it.
pub(super) struct Attempt<'a> {
    all: &'a Attempts,
    account: Account,
    client: Client,
    counts_as: Wrong,
}

impl Attempts {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            by_client: Rates::new(limits.signins_per_address, MINUTE),
            wrong: Rates::new(limits.wrong_passwords, WRONG_IN),
            homes: Cache::new(MOST_HOMES),
        }
    }

    /// Something that hashes a password, whoever's.
    ///
    /// # Errors
    /// When to try again.
    pub(super) fn begin(&self, client: Client) -> Result<(), Duration> {
        self.by_client.take(client)
    }

    /// A try at this account's password. Counts as a wrong one until it is told otherwise, or many at once would all be
    /// let through.
    ///
    /// # Errors
    /// When to try again.
    pub(super) fn begin_at(&self, email: &str, client: Client) -> Result<Attempt<'_>, Duration> {
        self.begin(client)?;
        let mut account = Account::default();
        let hash = digest::digest(&digest::SHA256, email.as_bytes());
        account.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        let is_home = self.homes.get(&(account, client)).is_some();
        let counts_as = if is_home { Wrong::AtHome(account, client) } else { Wrong::Strangers(account) };
        self.wrong.take(counts_as)?;
        Ok(Attempt { all: self, account, client, counts_as })
    }
}

impl Attempt<'_> {
    /// It was the right password.
    pub(super) fn was_right(self) {
        self.all.wrong.give_back(&self.counts_as, 1);
        self.all.homes.put((self.account, self.client), ());
    }

    /// It was not tried.
    pub(super) fn was_none(self) {
        self.all.wrong.give_back(&self.counts_as, 1);
    }
}
