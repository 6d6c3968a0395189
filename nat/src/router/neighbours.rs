//! The stations of the network's machines, for flows that begin outside: asked for by ARP
//! (RFC 826) or neighbour solicitation (RFC 4861) when they are needed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, NdiscRepr,
};
use trama_frame::{MacAddr, VnetHeader};

use super::Context;
use super::inbound::is_machine;
use crate::config::Config;
use crate::gateway::PortId;
use crate::packet::{checksums, ethernet_address, frame, ip_frame};

/// Addresses remembered at once.
const LIMIT: usize = 1024;
/// How long an answer is good for, and how long one is waited for before it is asked for again.
const LIFETIME: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Known { mac: MacAddr, port: PortId, until: Duration },
    Asked { again: Duration },
}

impl Entry {
    fn until(self) -> Duration {
        match self {
            Entry::Known { until, .. } => until,
            Entry::Asked { again } => again,
        }
    }
}

/// The machines' stations, as far as they are known.
#[derive(Default)]
pub(crate) struct Neighbours {
    entries: HashMap<IpAddr, Entry>,
}

impl Neighbours {
    /// The station of a machine and its port; `None` if it has to be asked first, which is done.
    pub(crate) fn station(
        &mut self,
        address: IpAddr,
        context: &mut Context<'_>,
    ) -> Option<(MacAddr, PortId)> {
        match self.entries.get(&address) {
            Some(Entry::Known { mac, port, until }) if *until > context.now => {
                return Some((*mac, *port));
            }
            Some(Entry::Asked { again }) if *again > context.now => return None,
            _ => {}
        }
        if self.entries.len() >= LIMIT {
            self.entries.retain(|_, entry| entry.until() > context.now);
        }
        if self.entries.len() < LIMIT {
            self.entries.insert(address, Entry::Asked { again: context.now + PATIENCE });
            if let Some(question) = question(context.config, address) {
                // One that is lost is asked again.
                let _ = context.send(&VnetHeader::default(), &[&question]);
            }
        }
        None
    }

    /// Takes a frame that may be an answer. True: it was.
    pub(crate) fn hear(&mut self, port: PortId, bytes: &[u8], context: &Context<'_>) -> bool {
        let Some((address, mac)) = answer(bytes) else { return false };
        let Some(entry @ Entry::Asked { .. }) = self.entries.get_mut(&address) else {
            return false;
        };
        if !is_machine(context.config, address) {
            return false;
        }
        *entry = Entry::Known { mac, port, until: context.now + LIFETIME };
        true
    }
}

/// Whose station an answer tells.
pub(crate) fn answer(bytes: &[u8]) -> Option<(IpAddr, MacAddr)> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    let (address, mac) = match frame.ethertype() {
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(frame.payload()).ok()?;
            let ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr,
                source_protocol_addr,
                ..
            } = ArpRepr::parse(&packet).ok()?
            else {
                return None;
            };
            (source_protocol_addr.into(), source_hardware_addr)
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
            // No router lets it through (RFC 4861, 7.1.2).
            if packet.next_header() != IpProtocol::Icmpv6 || packet.hop_limit() != 255 {
                return None;
            }
            let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
            let (from, to) = (packet.src_addr(), packet.dst_addr());
            let message = Icmpv6Repr::parse(&from, &to, &message, &checksums()).ok()?;
            let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, .. }) = message else {
                return None;
            };
            (IpAddr::V6(target_addr), frame.src_addr())
        }
        _ => return None,
    };
    // Whoever speaks for another is not believed.
    let is_own = mac == frame.src_addr() && mac.is_unicast();
    is_own.then_some((address, MacAddr(mac.0)))
}

/// The frame that asks for a station.
pub(crate) fn question(config: &Config, address: IpAddr) -> Option<Vec<u8>> {
    let own = config.mac();
    match address {
        IpAddr::V4(address) => {
            let request = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: ethernet_address(own),
                source_protocol_addr: config.ipv4?.address,
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: address,
            };
            let len = request.buffer_len();
            Some(frame(own, MacAddr::BROADCAST, EthernetProtocol::Arp, len, |bytes| {
                request.emit(&mut ArpPacket::new_unchecked(bytes));
            }))
        }
        IpAddr::V6(target) => {
            let (source, [.., a, b, c]) = (config.ipv6?.address, target.octets());
            let group = [0x33, 0x33, 0xff, a, b, c];
            let word = |high, low| u16::from_be_bytes([high, low]);
            let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, word(0xff, a), word(b, c));
            let ask = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                target_addr: target,
                lladdr: Some(ethernet_address(own).into()),
            });
            let (macs, ips) = ((own, MacAddr(group)), (source.into(), to.into()));
            ip_frame(macs, ips, (IpProtocol::Icmpv6, 255), ask.buffer_len(), |bytes| {
                ask.emit(&source, &to, &mut Icmpv6Packet::new_unchecked(bytes), &checksums());
            })
        }
    }
}
