//! Rules for a network's subnets.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Fault;

/// Checks that a network can have the subnet.
///
/// # Errors
/// It is too long or too short, has bits behind its prefix, or is not for hosts.
pub(crate) fn check(subnet: IpNet) -> Result<(), Fault> {
    if !is_usable_length(subnet.addr(), subnet.prefix_len()) {
        return Err(unusable_length(subnet.addr(), subnet.prefix_len()));
    }
    if subnet != subnet.trunc() {
        let message = format!("{subnet} is an address, not a subnet");
        return Err(Fault::new(message, format!("write the subnet: {}", subnet.trunc())));
    }
    let special = match subnet.addr() {
        IpAddr::V4(a) => {
            a.is_loopback() || a.is_multicast() || a.is_link_local() || a.octets()[0] == 0
        }
        IpAddr::V6(a) => a.is_unspecified() || a.is_multicast() || a.is_unicast_link_local(),
    };
    if special {
        let message = format!("{subnet} cannot be given to hosts");
        return Err(Fault::new(message, "use a private range such as 10.0.2.0/24 or fd00:2::/64"));
    }
    Ok(())
}

/// Whether a network's subnet can have a prefix of this length.
fn is_usable_length(address: IpAddr, length: u8) -> bool {
    match address {
        // Room for at least the gateway or host and one guest; at most a class A network.
        IpAddr::V4(_) => (8..=30).contains(&length),
        // Guests choose their own interface identifiers (RFC 4291, 2.5.1).
        IpAddr::V6(_) => length == 64,
    }
}

/// The fault of a length that a network's subnet cannot have.
pub(crate) fn unusable_length(address: IpAddr, length: u8) -> Fault {
    let remedy = if address.is_ipv4() { "use /8 to /30" } else { "use /64" };
    Fault::new(format!("/{length} is not a usable length for a network's subnet"), remedy)
}

/// The remedy for an address outside these subnets.
pub(super) fn subnets_remedy(subnets: &[IpNet]) -> String {
    let texts: Vec<_> = subnets.iter().map(ToString::to_string).collect();
    format!("use an address in {}", texts.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::derived::subnet::parsed;

    #[test]
    fn what_hosts_can_live_in_is_a_subnet() {
        for good in ["10.0.2.0/24", "10.0.0.0/8", "192.168.56.4/30", "203.0.113.0/24", "fd00::/64"]
        {
            assert_eq!(check(parsed(good)), Ok(()), "{good}");
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
        ] {
            assert!(check(parsed(bad)).is_err(), "{bad}");
        }
        let fault = check(parsed("10.0.2.7/24")).unwrap_err();
        assert_eq!(fault.message, "10.0.2.7/24 is an address, not a subnet");
        assert_eq!(fault.remedy, "write the subnet: 10.0.2.0/24");
    }
}
