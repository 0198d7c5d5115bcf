//! A limit on the open connections of each client.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::client::Client;

/// Counts the open connections of each client.
#[derive(Clone)]
pub(super) struct ConnectionLimit {
    most: usize,
    taken: Arc<Mutex<HashMap<Client, usize>>>,
}

/// A permit for one connection, released on drop.
pub(super) struct ConnectionPermit {
    client: Client,
    taken: Arc<Mutex<HashMap<Client, usize>>>,
}

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// Takes a permit for one more connection of `client`; `None`: it is at the limit.
    pub(super) fn take(&self, client: Client) -> Option<ConnectionPermit> {
        let mut taken = lock(&self.taken);
        if taken.get(&client).is_some_and(|count| *count >= self.most) {
            return None;
        }
        *taken.entry(client).or_default() += 1;
        Some(ConnectionPermit { client, taken: self.taken.clone() })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

fn lock(taken: &Mutex<HashMap<Client, usize>>) -> MutexGuard<'_, HashMap<Client, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_for_each_client() {
        let limit = ConnectionLimit::new(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| Client::at(address.parse().unwrap()));
        let held = [limit.take(one), limit.take(one)];
        assert!(held.iter().all(Option::is_some));
        assert!(limit.take(one).is_none());
        assert!(limit.take(other).is_some());
        drop(held);
        assert!(limit.take(one).is_some());
        assert!(lock(&limit.taken).is_empty(), "whoever holds nothing takes no memory");
    }
}
