//! Who is at the other end of the network.

use std::net::{IpAddr, Ipv6Addr};

/// An address. An IPv6 network of 64 bits is one client: whoever has an address there has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// Who `address` belongs to.
    pub fn at(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }

    /// The address, or the first of the network.
    pub fn address(&self) -> IpAddr {
        self.0
    }
}
