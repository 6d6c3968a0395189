//! A packet from one of the network's machines for an address outside.

use std::net::IpAddr;

use smoltcp::wire::IpProtocol;
use trama_frame::{MacAddr, VnetHeader};

use crate::gateway::PortId;

/// A checked packet: its IP header is well-formed, its source one of the network's, its
/// destination none of them. A fragment is none; fragments are put together before.
pub(crate) struct Inbound<'a> {
    /// The switch port that it came by.
    pub port: PortId,
    /// The station that sent it, and is to get the answers.
    pub mac: MacAddr,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: IpProtocol,
    pub hop_limit: u8,
    /// The IP packet, for errors that quote it.
    pub packet: &'a [u8],
    /// What the IP header is in front of.
    pub payload: &'a [u8],
    /// What the sender left to be done: a checksum, or a large packet's segments.
    pub offload: VnetHeader,
}
