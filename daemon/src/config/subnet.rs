//! Subnets as a network's key `subnet` has them, whatever its mode.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of the subnet itself, and its prefix length.
pub type Subnet = (IpAddr, u8);
type Fault = (String, String);

/// Whether a subnet can be a network's: message and remedy if not.
///
/// # Errors
/// It is of another kind, or is not written as a subnet.
pub fn check(subnet: &Subnet) -> Result<(), Fault> {
    let (address, prefix) = *subnet;
    let (good, lengths) = match address {
        // At least the gateway or host and one guest; at most a class A network.
        IpAddr::V4(_) => ((8..=30).contains(&prefix), "use /8 to /30"),
        // Guests make up their own half of the address (RFC 4291, 2.5.1).
        IpAddr::V6(_) => (prefix == 64, "use /64"),
    };
    if !good {
        return Err((format!("/{prefix} is no length for a network's subnet"), lengths.to_owned()));
    }
    let first = first(subnet);
    if first != address {
        let message = format!("{address}/{prefix} is an address within a subnet");
        return Err((message, format!("write the subnet: {first}/{prefix}")));
    }
    let special = match address {
        IpAddr::V4(a) => {
            a.is_loopback() || a.is_multicast() || a.is_link_local() || a.octets()[0] == 0
        }
        IpAddr::V6(a) => a.is_unspecified() || a.is_multicast() || a.is_unicast_link_local(),
    };
    if special {
        let message = format!("{address}/{prefix} cannot be given to hosts");
        return Err((message, "use a private range such as 10.0.2.0/24 or fd00:2::/64".to_owned()));
    }
    Ok(())
}

/// Whether two subnets share addresses.
pub fn overlap(a: &Subnet, b: &Subnet) -> bool {
    let prefix = a.1.min(b.1);
    a.0.is_ipv4() == b.0.is_ipv4() && first(&(a.0, prefix)) == first(&(b.0, prefix))
}

/// The first address that a host can have.
pub fn first_host(subnet: &Subnet) -> IpAddr {
    host(subnet, 1)
}

/// The address with this number; it must lie in the subnet.
pub fn host(subnet: &Subnet, number: u8) -> IpAddr {
    match first(subnet) {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | u32::from(number)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | u128::from(number)).into(),
    }
}

/// Whether an address can be a host's in the subnet: neither the subnet itself nor its broadcast
/// address.
pub fn is_host(subnet: &Subnet, address: IpAddr) -> bool {
    let last = match first(subnet) {
        IpAddr::V4(address) => {
            let hosts = u32::MAX.checked_shr(u32::from(subnet.1)).unwrap_or(0);
            Some(Ipv4Addr::from_bits(address.to_bits() | hosts).into())
        }
        IpAddr::V6(_) => None,
    };
    overlap(subnet, &(address, if address.is_ipv4() { 32 } else { 128 }))
        && address != first(subnet)
        && Some(address) != last
}

/// The address of the subnet itself.
fn first((address, prefix): &Subnet) -> IpAddr {
    let prefix = u32::from(*prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        (address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn what_hosts_can_live_in_is_a_subnet() {
        for good in ["10.0.2.0/24", "10.0.0.0/8", "192.168.56.4/30", "203.0.113.0/24", "fd00::/64"]
        {
            assert_eq!(check(&subnet(good)), Ok(()), "{good}");
        }
        for bad in [
            "10.0.2.1/24",
            "10.0.2.0/31",
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/8",
            "fd00::/48",
            "fd00::1/64",
            "fe80::/64",
            "ff02::/64",
            "::/64",
            "10.0.2.0/33",
            "fd00::/129",
        ] {
            assert!(check(&subnet(bad)).is_err(), "{bad}");
        }
        let (message, remedy) = check(&subnet("10.0.2.7/24")).unwrap_err();
        assert_eq!(message, "10.0.2.7/24 is an address within a subnet");
        assert_eq!(remedy, "write the subnet: 10.0.2.0/24");
    }

    #[test]
    fn subnets_overlap_if_one_holds_the_other() {
        let meets = |a, b| overlap(&subnet(a), &subnet(b));
        assert!(meets("10.0.0.0/8", "10.0.2.0/24") && meets("10.0.2.0/24", "10.0.0.0/8"));
        assert!(!meets("10.0.2.0/24", "10.0.3.0/24"));
        assert!(!meets("10.0.2.0/24", "fd00::/64"));
    }

    #[test]
    fn the_first_host_is_not_the_subnet_itself() {
        assert_eq!(first_host(&subnet("10.0.2.0/24")).to_string(), "10.0.2.1");
        assert_eq!(first_host(&subnet("192.168.56.4/30")).to_string(), "192.168.56.5");
        assert_eq!(first_host(&subnet("fd00:2::/64")).to_string(), "fd00:2::1");
        assert_eq!(host(&subnet("10.0.2.0/24"), 15).to_string(), "10.0.2.15");
    }

    #[test]
    fn hosts_are_inside_and_not_at_the_edge() {
        let is_in = |text, address: &str| is_host(&subnet(text), address.parse().unwrap());
        assert!(is_in("10.0.2.0/24", "10.0.2.1") && is_in("10.0.2.0/24", "10.0.2.254"));
        assert!(!is_in("10.0.2.0/24", "10.0.2.0") && !is_in("10.0.2.0/24", "10.0.2.255"));
        assert!(!is_in("10.0.2.0/24", "10.0.3.1") && !is_in("10.0.2.0/24", "fd00::1"));
        assert!(is_in("fd00::/64", "fd00::ffff:ffff:ffff:ffff") && !is_in("fd00::/64", "fd00::"));
    }
}
