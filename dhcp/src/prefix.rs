//! IPv4 prefixes and static routes.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// An IPv4 network such as `10.0.2.0/24`; the bits behind the length are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Prefix {
    network: u32,
    length: u8,
}

impl Prefix {
    /// Returns the network that contains `address`; `None` if `length` is more than 32.
    pub fn new(address: Ipv4Addr, length: u8) -> Option<Prefix> {
        let prefix = Prefix { network: 0, length };
        let network = address.to_bits() & prefix.mask_bits();
        (length <= 32).then_some(Prefix { network, length })
    }

    fn mask_bits(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.length.min(32))).unwrap_or(0)
    }

    /// The prefix length in bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The first address; the network address if the prefix is shorter than 31 bits.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    /// The last address; the directed broadcast address if the prefix is shorter than 31 bits.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | !self.mask_bits())
    }

    /// The subnet mask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask_bits())
    }

    /// Whether `address` lies in the network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask_bits() == self.network
    }

    /// Whether a host of the network may have `address`: neither the network address nor the
    /// broadcast address, which prefixes of 31 and 32 bits do not have (RFC 3021).
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        let edge = self.length < 31 && (address == self.first() || address == self.last());
        self.contains(address) && !edge
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first(), self.length)
    }
}

/// A static route for clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Route {
    /// The destination network.
    pub to: Prefix,
    /// The router; `0.0.0.0` says that the destination is on the link.
    pub via: Ipv4Addr,
}

/// The routes in the format of the classless static route option (RFC 3442): prefix length, the
/// octets of the network that are significant, the router.
pub fn emit_routes(routes: &[Route]) -> Vec<u8> {
    let mut out = Vec::with_capacity(routes.len() * 9);
    for route in routes {
        let significant = usize::from(route.to.length).div_ceil(8);
        out.push(route.to.length);
        out.extend_from_slice(&route.to.first().octets()[..significant]);
        out.extend_from_slice(&route.via.octets());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(a: [u8; 4], length: u8) -> Prefix {
        Prefix::new(a.into(), length).unwrap()
    }

    #[test]
    fn edges_of_a_prefix() {
        let lab = prefix([10, 0, 2, 77], 24);
        assert_eq!(lab.to_string(), "10.0.2.0/24");
        assert_eq!(lab.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert!(lab.is_host([10, 0, 2, 1].into()) && lab.is_host([10, 0, 2, 254].into()));
        assert!(!lab.is_host([10, 0, 2, 0].into()) && !lab.is_host([10, 0, 2, 255].into()));
        assert!(!lab.contains([10, 0, 3, 1].into()));
        assert!(prefix([10, 0, 0, 0], 31).is_host([10, 0, 0, 0].into()));
        assert!(prefix([0; 4], 0).contains([255; 4].into()));
        assert!(prefix([1, 2, 3, 4], 32).is_host([1, 2, 3, 4].into()));
        assert_eq!(Prefix::new([0; 4].into(), 33), None);
    }

    #[test]
    fn route_descriptors_of_rfc_3442() {
        let via = Ipv4Addr::new(192, 0, 2, 1);
        let cases: [(Prefix, &[u8]); 6] = [
            (prefix([0; 4], 0), &[0]),
            (prefix([10, 0, 0, 0], 8), &[8, 10]),
            (prefix([10, 17, 0, 0], 16), &[16, 10, 17]),
            (prefix([10, 27, 129, 0], 24), &[24, 10, 27, 129]),
            (prefix([10, 229, 0, 128], 25), &[25, 10, 229, 0, 128]),
            (prefix([10, 198, 122, 47], 32), &[32, 10, 198, 122, 47]),
        ];
        for (to, descriptor) in cases {
            let expected = [descriptor, &[192, 0, 2, 1]].concat();
            assert_eq!(emit_routes(&[Route { to, via }]), expected, "{to}");
        }
    }
}
