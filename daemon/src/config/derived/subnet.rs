//! Arithmetic on subnets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whether two subnets share addresses.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The first address that a host can have.
pub fn first_host(subnet: IpNet) -> IpAddr {
    host(subnet, 1)
}

/// The address with this host number, which must lie in the subnet.
pub fn host(subnet: IpNet, number: u8) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | u32::from(number)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | u128::from(number)).into(),
    }
}

/// Whether a host can have the address: inside the subnet, neither its first nor its broadcast
/// address.
pub fn is_host(subnet: IpNet, address: IpAddr) -> bool {
    let is_broadcast = address.is_ipv4() && address == subnet.broadcast();
    subnet.contains(&address) && address != subnet.network() && !is_broadcast
}

/// The subnet that a test writes as `10.0.2.0/24`.
#[cfg(test)]
pub fn parsed(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_overlap_if_one_holds_the_other() {
        let meets = |a, b| overlap(parsed(a), parsed(b));
        assert!(meets("10.0.0.0/8", "10.0.2.0/24") && meets("10.0.2.0/24", "10.0.0.0/8"));
        assert!(!meets("10.0.2.0/24", "10.0.3.0/24"));
        assert!(!meets("10.0.2.0/24", "fd00::/64"));
    }

    #[test]
    fn the_first_host_is_not_the_subnet_itself() {
        assert_eq!(first_host(parsed("10.0.2.0/24")).to_string(), "10.0.2.1");
        assert_eq!(first_host(parsed("192.168.56.4/30")).to_string(), "192.168.56.5");
        assert_eq!(first_host(parsed("fd00:2::/64")).to_string(), "fd00:2::1");
        assert_eq!(host(parsed("10.0.2.0/24"), 15).to_string(), "10.0.2.15");
    }

    #[test]
    fn hosts_are_inside_and_not_at_the_edge() {
        let is_in = |text, address: &str| is_host(parsed(text), address.parse().unwrap());
        assert!(is_in("10.0.2.0/24", "10.0.2.1") && is_in("10.0.2.0/24", "10.0.2.254"));
        assert!(!is_in("10.0.2.0/24", "10.0.2.0") && !is_in("10.0.2.0/24", "10.0.2.255"));
        assert!(!is_in("10.0.2.0/24", "10.0.3.1") && !is_in("10.0.2.0/24", "fd00::1"));
        assert!(is_in("fd00::/64", "fd00::ffff:ffff:ffff:ffff") && !is_in("fd00::/64", "fd00::"));
    }
}
