//! Which destinations guests may reach.
//!
//! Guests reach what the host reaches through its interfaces, including the host's own addresses
//! there. They do not reach the host's loopback, addresses of one link (link-local, multicast,
//! broadcast: the host's links are not theirs), or the metadata services that hold secrets of a
//! cloud VM. A [`LoopbackMap`](crate::LoopbackMap) allows one port of loopback and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::drop_reason::DropReason;
use crate::rules::{Config, Transport};

/// Metadata services outside 169.254.0.0/16: of AWS and Google over IPv6, of Alibaba, of Azure.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// The destination of a flow to `guest`: the same, or the loopback port that is mapped there.
///
/// # Errors
///
/// Guests may not reach it.
pub(crate) fn target(
    config: Config<'_>,
    transport: Transport,
    guest: SocketAddr,
) -> Result<SocketAddr, DropReason> {
    match mapped(config, transport, guest) {
        Some(host) => Ok(host),
        None => allows(config, guest.ip()).map(|()| guest),
    }
}

/// Checks whether guests may reach an outside address.
///
/// # Errors
///
/// Why not.
pub(crate) fn allows(config: Config<'_>, address: IpAddr) -> Result<(), DropReason> {
    if config.station.is_inside(address) {
        return Err(DropReason::OtherAddress);
    }
    if METADATA.contains(&address) {
        return Err(DropReason::PolicyMetadata);
    }
    let refused = match address {
        IpAddr::V4(address) => refuses4(address),
        IpAddr::V6(address) => refuses6(address),
    };
    refused.map_or(Ok(()), Err)
}

/// The loopback port that is mapped to an address of the gateway.
fn mapped(config: Config<'_>, transport: Transport, guest: SocketAddr) -> Option<SocketAddr> {
    let maps = &config.rules?.loopback;
    let map = maps.iter().find(|map| map.transport == transport && map.guest == guest)?;
    Some(map.host)
}

fn refuses4(address: Ipv4Addr) -> Option<DropReason> {
    // RFC 6890, 2.2.2. The kernel treats 0.0.0.0 as loopback.
    match address.octets() {
        [0, ..] => Some(DropReason::PolicyReserved),
        [127, ..] => Some(DropReason::PolicyLoopback),
        [169, 254, 169, 254] => Some(DropReason::PolicyMetadata),
        [169, 254, ..] => Some(DropReason::PolicyLinkLocal),
        [224..=239, ..] => Some(DropReason::PolicyMulticast),
        [255, 255, 255, 255] => Some(DropReason::PolicyBroadcast),
        _ => None,
    }
}

fn refuses6(address: Ipv6Addr) -> Option<DropReason> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(DropReason::PolicyLoopback),
        // The unspecified address, and IPv4 addresses in two embedded forms (RFC 4291, 2.5.5),
        // where the kernel would connect to the IPv4 address.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => Some(DropReason::PolicyReserved),
        [0xfe80..=0xfebf, ..] => Some(DropReason::PolicyLinkLocal),
        [0xff00..=0xffff, ..] => Some(DropReason::PolicyMulticast),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{LoopbackMap, Rules};
    use crate::testing::{GATEWAY4, lab};

    fn decide(address: &str) -> Result<(), DropReason> {
        allows(lab().nat(), address.parse().unwrap())
    }

    #[test]
    fn outside_and_the_hosts_networks_are_open() {
        for address in ["8.8.8.8", "192.168.1.7", "10.0.3.15", "100.100.100.199", "2001:db8::1"] {
            assert_eq!(decide(address), Ok(()), "{address}");
        }
        assert_eq!(decide("fd00:1::1"), Ok(()), "another private network");
    }

    #[test]
    fn loopback_and_link_scoped_addresses_are_closed() {
        use DropReason::*;
        let closed = [
            ("127.0.0.1", PolicyLoopback),
            ("127.255.255.254", PolicyLoopback),
            ("::1", PolicyLoopback),
            ("0.0.0.0", PolicyReserved),
            ("0.1.2.3", PolicyReserved),
            ("::", PolicyReserved),
            ("::ffff:127.0.0.1", PolicyReserved),
            ("::ffff:8.8.8.8", PolicyReserved),
            ("::127.0.0.1", PolicyReserved),
            ("169.254.1.1", PolicyLinkLocal),
            ("fe80::1", PolicyLinkLocal),
            ("febf::1", PolicyLinkLocal),
            ("169.254.169.254", PolicyMetadata),
            ("fd00:ec2::254", PolicyMetadata),
            ("100.100.100.200", PolicyMetadata),
            ("224.0.0.251", PolicyMulticast),
            ("239.255.255.250", PolicyMulticast),
            ("ff02::fb", PolicyMulticast),
            ("255.255.255.255", PolicyBroadcast),
            ("10.0.2.9", OtherAddress),
            ("10.0.2.255", OtherAddress),
            ("fd00::9", OtherAddress),
        ];
        for (address, reason) in closed {
            assert_eq!(decide(address), Err(reason), "{address}");
        }
    }

    #[test]
    fn a_loopback_map_grants_its_one_port() {
        let guest = SocketAddr::new(GATEWAY4.into(), 5353);
        let host = "127.0.0.1:53".parse().unwrap();
        let map = LoopbackMap { transport: Transport::Udp, guest, host };
        let nat = Rules { loopback: vec![map], ..Rules::default() };
        let lab = lab();
        let config = Config { rules: Some(&nat), ..lab.nat() };
        let target = |transport, guest| target(config, transport, guest);
        assert_eq!(target(Transport::Udp, guest), Ok(host));
        assert_eq!(target(Transport::Tcp, guest), Err(DropReason::OtherAddress));
        let beside = SocketAddr::new(GATEWAY4.into(), 5354);
        assert_eq!(target(Transport::Udp, beside), Err(DropReason::OtherAddress));
        assert_eq!(target(Transport::Udp, host), Err(DropReason::PolicyLoopback));
    }
}
