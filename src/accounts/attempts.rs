//! Slows down password guessing without locking out an account's owner.
//!
//! Counted on each server by itself: three servers let three times as many attempts through.

use std::time::Duration;

use aws_lc_rs::digest;

use crate::{cache::Cache, client::Client, config::Limits, rates::Rates};

const MINUTE: Duration = Duration::from_secs(60);
/// The period in which wrong passwords are counted.
const WRONG_IN: Duration = Duration::from_secs(600);
/// Number of remembered pairs of an account and an address from which it was signed in to.
const MOST_HOMES: usize = 100_000;

/// An account's e-mail address, whether or not the account exists: a guesser must not learn which. Hashed, so that no
/// addresses are in memory and all entries have the same size.
type Account = [u8; 16];

pub(super) struct Attempts {
    by_client: Rates<Client>,
    wrong: Rates<Wrong>,
    /// Clients that have signed in to an account.
    homes: Cache<(Account, Client), ()>,
}

/// The budget that a wrong password counts against.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wrong {
    /// That of all clients together that have not signed in to the account before.
    Strangers(Account),
    /// That of one client that has, which strangers cannot use up.
    AtHome(Account, Client),
}

/// An attempt that was let through and whose outcome is still to be reported.
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

    /// Counts a request that hashes a password, for whichever account.
    ///
    /// # Errors
    /// How long to wait before a retry.
    pub(super) fn begin(&self, client: Client) -> Result<(), Duration> {
        self.by_client.take(client)
    }

    /// Counts an attempt at an account's password: as a wrong one until the outcome is reported, or many concurrent
    /// ones would all be let through.
    ///
    /// # Errors
    /// How long to wait before a retry.
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
    /// Reports that the password was right.
    pub(super) fn was_right(self) {
        self.all.wrong.give_back(&self.counts_as, 1);
        self.all.homes.put((self.account, self.client), ());
    }

    /// Reports that the password was not checked.
    pub(super) fn was_none(self) {
        self.all.wrong.give_back(&self.counts_as, 1);
    }
}
