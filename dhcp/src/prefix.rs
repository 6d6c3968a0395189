//! IPv4 prefixes as DHCP sees them, and static routes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Returns whether a host of the network may have `address`: neither the network address nor the
/// broadcast address, which prefixes of 31 and 32 bits do not have (RFC 3021).
pub fn is_host(network: Ipv4Net, address: Ipv4Addr) -> bool {
    let edge = network.prefix_len() < 31
        && (address == network.network() || address == network.broadcast());
    network.contains(&address) && !edge
}

/// A static route for clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Route {
    /// The destination network.
    pub to: Ipv4Net,
    /// The router; `0.0.0.0` says that the destination is on the link.
    pub via: Ipv4Addr,
}

/// The routes in the format of the classless static route option (RFC 3442): prefix length, the
/// octets of the network that are significant, the router.
pub fn emit_routes(routes: &[Route]) -> Vec<u8> {
    let mut out = Vec::with_capacity(routes.len() * 9);
    for route in routes {
        let length = route.to.prefix_len();
        out.push(length);
        let significant = usize::from(length).div_ceil(8);
        out.extend_from_slice(&route.to.network().octets()[..significant]);
        out.extend_from_slice(&route.via.octets());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(a: [u8; 4], length: u8) -> Ipv4Net {
        Ipv4Net::new(a.into(), length).unwrap()
    }

    #[test]
    fn edges_of_a_prefix() {
        let lab = prefix([10, 0, 2, 77], 24);
        let is_in_lab = |last| is_host(lab, [10, 0, 2, last].into());
        assert!(is_in_lab(1) && is_in_lab(254) && !is_in_lab(0) && !is_in_lab(255));
        assert!(!is_host(lab, [10, 0, 3, 1].into()));
        assert!(is_host(prefix([10, 0, 0, 0], 31), [10, 0, 0, 0].into()));
        assert!(is_host(prefix([0; 4], 0), [10, 0, 0, 1].into()));
        assert!(is_host(prefix([1, 2, 3, 4], 32), [1, 2, 3, 4].into()));
    }

    #[test]
    fn route_descriptors_of_rfc_3442() {
        let via = Ipv4Addr::new(192, 0, 2, 1);
        let cases: [(Ipv4Net, &[u8]); 6] = [
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
