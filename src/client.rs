//! Clients, identified by their network address.

use std::net::{IpAddr, Ipv6Addr};

/// A client's address. An IPv6 network of 64 bits is one client, which has all addresses there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// Returns the client that `address` belongs to.
    pub fn at(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }

    /// Returns the address, or the first of the network.
    pub fn address(&self) -> IpAddr {
        self.0
    }
}
