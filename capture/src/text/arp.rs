//! ARP, for IPv4 over Ethernet.

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;

use etherparse::{ArpOperation, ArpPacketSlice};
use trama_frame::MacAddr;

use super::Packet;

pub(super) fn write(out: &mut String, packet: Packet<'_>) -> fmt::Result {
    if packet.has_name {
        out.push_str("ARP, ");
    }
    let arp = ArpPacketSlice::from_slice(packet.bytes).ok();
    let Some(arp) = arp.and_then(|it| it.to_packet().try_eth_ipv4().ok()) else {
        out.push_str("[|arp]");
        return Ok(());
    };
    let (sender, target) = (Ipv4Addr::from(arp.sender_ipv4), Ipv4Addr::from(arp.target_ipv4));
    match arp.operation {
        ArpOperation::REQUEST if arp.target_mac == [0; 6] => {
            write!(out, "Request who-has {target} tell {sender}")?;
        }
        ArpOperation::REQUEST => {
            let mac = MacAddr(arp.target_mac);
            write!(out, "Request who-has {target} ({mac}) tell {sender}")?;
        }
        ArpOperation::REPLY => {
            write!(out, "Reply {sender} is-at {}", MacAddr(arp.sender_mac))?;
        }
        other => write!(out, "unknown operation {}", other.0)?,
    }
    write!(out, ", length {}", packet.len)
}
