//! The identity of a client, for fairness between clients.

use std::net::{IpAddr, Ipv4Addr};

/// All connections with the same `Peer` count as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Peer {
    V4(Ipv4Addr),
    /// The /64 network of an address: one host can use all addresses of its network.
    V6(u64),
    /// No address is known.
    Unknown,
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64;
                u64::try_from(network).map_or(Self::Unknown, Self::V6)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn client_is_an_ipv4_address_or_an_ipv6_network() {
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(
            peer("10.0.0.1"),
            peer("::ffff:10.0.0.1"),
            "IPv4-mapped, on a dual-stack socket"
        );
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:a:b:c:d"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    }
}
