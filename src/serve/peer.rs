//! Who a client is, as far as an address tells: whom to be fair between.

use std::net::{IpAddr, Ipv4Addr};

/// What counts as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Peer {
    /// One address.
    V4(Ipv4Addr),
    /// The first 64 bits of an address: whoever has one of these networks has all addresses of it.
    V6(u64),
    /// The system does not say.
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
    fn a_client_is_an_address_or_a_network() {
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"), "over a socket of both kinds");
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:a:b:c:d"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    }
}
