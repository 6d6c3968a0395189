//! What the NAT would do with a frame of a guest: its classification and its policy, without a
//! flow. Limits, which depend on the flows there are, are not looked at.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::IpProtocol;
use trama_frame::VnetHeader;

use crate::classify::{FrameClass, classify};
use crate::drop_reason::DropReason;
use crate::io::PortMark;
use crate::packet::inbound::Inbound;
use crate::packet::received;
use crate::policy;
use crate::rules::{Config, Transport};

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is for the gateway itself, or for everybody.
    Local,
    /// It belongs to a flow to this address of the outside, or of the host.
    Flow(Transport, SocketAddr),
    /// It is an echo request to this address, or about one.
    Icmp(IpAddr),
    /// It is a query to a group that the gateway reflects.
    Reflected,
    /// It is a fragment; what becomes of its packet shows once all are there.
    Fragment,
}

/// Returns what the NAT would do with a frame.
///
/// # Errors
///
/// It would be dropped.
pub fn explain(config: Config<'_>, bytes: &[u8]) -> Result<Fate, DropReason> {
    let frame = received::parse(config.station.mac(), PortMark(0), VnetHeader::default(), bytes)?;
    match classify(config, frame)? {
        FrameClass::Local(_) => Ok(Fate::Local),
        FrameClass::Group(_) => Ok(Fate::Reflected),
        FrameClass::Fragment(_) => Ok(Fate::Fragment),
        FrameClass::Packet(packet) => of_packet(config, &packet),
    }
}

fn of_packet(config: Config<'_>, packet: &Inbound<'_>) -> Result<Fate, DropReason> {
    let is_own = config.station.has(packet.destination);
    if packet.hop_limit <= 1 && !is_own {
        return Err(DropReason::HopLimit);
    }
    let (transport, malformed) = match packet.protocol {
        IpProtocol::Tcp => (Transport::Tcp, DropReason::BadTcp),
        IpProtocol::Udp => (Transport::Udp, DropReason::BadUdp),
        IpProtocol::Icmp | IpProtocol::Icmpv6 if is_own => return Ok(Fate::Local),
        IpProtocol::Icmp | IpProtocol::Icmpv6 => {
            return policy::allows(config, packet.destination)
                .map(|()| Fate::Icmp(packet.destination));
        }
        _ => return Err(DropReason::UnknownProtocol),
    };
    let [_, _, high, low] = *packet.payload.first_chunk().ok_or(malformed)?;
    let to = SocketAddr::new(packet.destination, u16::from_be_bytes([high, low]));
    if is_own && crate::classify::is_tcp_dns(config, packet) {
        return Ok(Fate::Local);
    }
    policy::target(config, transport, to).map(|host| Fate::Flow(transport, host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;
    use crate::testing::{Lab, lab};

    fn frame(to: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let lab = lab();
        let from: IpAddr = "10.0.2.15".parse().unwrap();
        let (IpAddr::V4(from), Ok(IpAddr::V4(to))) = (from, to.parse()) else { panic!("IPv4") };
        let builder =
            etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], lab.nat().station.mac().0)
                .ipv4(from.octets(), to.octets(), 64)
                .tcp(40_000, 443, 1, 64_000);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[]).unwrap();
        change(&mut bytes);
        bytes
    }

    #[test]
    fn policy_and_protocol_decide() {
        let lab = Lab { nat: Some(Rules::default()), ..lab() };
        let told = |to: &str| explain(lab.nat(), &frame(to, |_| {}));
        let flow = |to: &str| Ok(Fate::Flow(Transport::Tcp, to.parse().unwrap()));
        assert_eq!(told("8.8.8.8"), flow("8.8.8.8:443"));
        assert_eq!(told("127.0.0.1"), Err(DropReason::PolicyLoopback));
        assert_eq!(told("169.254.169.254"), Err(DropReason::PolicyMetadata));
        // Another station of the subnet.
        assert_eq!(told("10.0.2.77"), Ok(Fate::Local));
        let to_other = frame("8.8.8.8", |bytes| bytes[0] ^= 2);
        assert_eq!(explain(lab.nat(), &to_other), Err(DropReason::OtherStation));
        assert_eq!(explain(lab.nat(), &[0; 5]), Err(DropReason::BadEthernet));
        let without_nat = crate::testing::lab();
        assert_eq!(explain(without_nat.nat(), &frame("8.8.8.8", |_| {})), Ok(Fate::Local));
    }
}
