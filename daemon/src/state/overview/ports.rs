//! Ports, as a picture shows them.

use std::time::{Instant, SystemTime};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use trama_api::explain::{Described, Packet, Protocol};
use trama_api::state::{Address, LastDrop, Port as Told, PortState};
use trama_frame::ethernet;

use crate::config::model::{Interface, Port};
use crate::last_drops;
use crate::status::PortStatus;

/// Tells what a port is and does, but for its number, its leases and its last dropped frames.
pub(super) fn port(port: &Port, status: &PortStatus) -> Told {
    let device = device_of(&port.interface);
    let vhost = status.vhost.as_ref();
    let socket = status.socket.as_ref();
    let vhost_path = vhost.map(|it| it.path.display().to_string());
    Told {
        name: port.name.clone(),
        network: port.network.clone(),
        kind: port.interface.type_name().into(),
        state: state_of(port, status),
        cable: port.cable,
        error: error_of(status),
        vlan_mode: port.vlan.mode_or_default().name().into(),
        tag: port.vlan.tag,
        trunks: port.vlan.trunks.clone(),
        mac: port.mac.map(|mac| mac.to_string()).or_else(|| status.mac.clone()),
        spoof: port.spoof.name().into(),
        promiscuous: port.promiscuous.name().into(),
        queues: vhost.map_or(1, |it| it.queue_pairs),
        path: vhost_path.or_else(|| socket.map(|it| it.location.clone())),
        ifname: device,
        netns: port.interface.netns().map(str::to_owned),
        peer: vhost
            .and_then(|it| it.peer.clone())
            .or_else(|| socket.and_then(|it| it.peer.clone())),
        ephemeral: port.is_ephemeral(),
        storms: status.storms.iter().map(|kind| (*kind).into()).collect(),
        addresses: stated(port),
        ..Told::default()
    }
}

fn device_of(interface: &Interface) -> Option<String> {
    match interface {
        Interface::Tap(tap) => Some(tap.ifname.clone()),
        Interface::System(system) => Some(system.ifname.clone()),
        Interface::Attached(attached) => Some(attached.place.clone()).filter(|it| !it.is_empty()),
        Interface::Uplink(uplink) => Some(uplink.ifname.clone()),
        Interface::VhostUser(_)
        | Interface::Stream(_)
        | Interface::Dgram(_)
        | Interface::Vxlan(_) => None,
    }
}

fn state_of(port: &Port, status: &PortStatus) -> PortState {
    if status.not_running.is_some() {
        PortState::NotRunning
    } else if status.loop_block.is_some() {
        PortState::Blocked
    } else if status.link {
        PortState::Up
    } else if !port.cable || port.network.is_none() {
        PortState::Cable
    } else {
        PortState::Waiting
    }
}

fn error_of(status: &PortStatus) -> Option<String> {
    let last = || {
        let session = status.vhost.as_ref().and_then(|it| it.last_error.as_deref());
        session.or_else(|| status.socket.as_ref().and_then(|it| it.last_error.as_deref()))
    };
    let text = status.trouble().or(status.loop_block.as_deref());
    text.or_else(|| if status.link { None } else { last() }).map(str::to_owned)
}

/// The addresses that the configuration states of the guest.
fn stated(port: &Port) -> Vec<Address> {
    let name = port.names.first().cloned();
    let address =
        |address| Address { address, state: "static".into(), name: name.clone(), until: None };
    port.addresses.iter().copied().map(address).collect()
}

/// Tells of a dropped frame.
pub(super) fn last_drop(drop: &last_drops::LastDrop, now: Instant) -> LastDrop {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let at = since_1970.saturating_sub(now.saturating_duration_since(drop.at));
    let notice = &drop.notice;
    LastDrop {
        reason: notice.reason.name().into(),
        at: at.as_millis() as u64,
        length: notice.len,
        text: line(&notice.head, notice.len),
        frame: described(&notice.head, notice.len),
    }
}

fn line(head: &[u8], len: usize) -> String {
    let Some(header) = ethernet::parse(head) else {
        return "it ends within its header".to_owned();
    };
    let (src, dst) = (header.src, header.dst);
    let tag = match header.tag {
        None => "untagged".to_owned(),
        Some(tag) => format!("VLAN {}", tag.vid().get()),
    };
    let packet = trama_capture::text::packet(head, u32::try_from(len).unwrap_or(u32::MAX));
    format!("{src} → {dst}, {tag}, {}", packet.unwrap_or_default())
}

/// What a frame has, from its first bytes.
fn described(head: &[u8], len: usize) -> Option<Described> {
    let header = ethernet::parse(head)?;
    let packet = packet(head);
    Some(Described {
        dst: header.dst.0,
        src: Some(header.src.0),
        vlan: header.tag.map(|tag| tag.vid().get()),
        len: Some(len),
        ethertype: packet.is_none().then_some(header.ethertype),
        packet,
    })
}

fn packet(head: &[u8]) -> Option<Packet> {
    let parts = LaxSlicedPacket::from_ethernet(head).ok()?;
    let (from, to) = match parts.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into())
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into())
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let (protocol, port) = match parts.transport.as_ref()? {
        TransportSlice::Tcp(tcp) => (Protocol::Tcp, tcp.destination_port()),
        TransportSlice::Udp(udp) => (Protocol::Udp, udp.destination_port()),
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) => (Protocol::Icmp, 0),
        TransportSlice::Igmp(_) => return None,
    };
    Some(Packet { from, to, protocol, port })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn a_dropped_frame_is_told_as_explain_takes_it() {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .single_vlan(7.try_into().unwrap())
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(68, 67);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[0; 20]).unwrap();
        let told = described(&frame, 66).unwrap();
        let packet = told.packet.unwrap();
        assert_eq!((told.src, told.dst), (Some([2, 0, 0, 0, 0, 1]), [2, 0, 0, 0, 0, 2]));
        assert_eq!((told.vlan, told.len, told.ethertype), (Some(7), Some(66), None));
        assert_eq!((packet.to.to_string(), packet.port), ("10.0.0.2".to_owned(), 67));
        let text = line(&frame, 66);
        assert!(text.starts_with("02:00:00:00:00:01 → 02:00:00:00:00:02, VLAN 7, "), "{text}");
        assert!(text.contains("10.0.0.1.68 > 10.0.0.2.67"), "{text}");
        // Its beginning alone, of any length.
        for length in 0..frame.len() {
            let head = &frame[..length];
            assert_eq!(described(head, 66).is_some(), ethernet::parse(head).is_some(), "{length}");
            assert!(!line(head, 66).is_empty());
        }
    }
}
