//! Templates: the information elements of each kind of record, and their values.

use super::flow::{Addresses, EndReason, Flow};
use crate::Put;

/// A template: its ID, and its information elements with their lengths in bytes.
pub(super) struct Template {
    pub id: u16,
    pub elements: &'static [(u16, u16)],
}

/// What each record begins with: flowStartMilliseconds, flowEndMilliseconds, packetDeltaCount,
/// layer2OctetDeltaCount, ingressInterface, egressInterface, sourceMacAddress,
/// destinationMacAddress, vlanId, ethernetType, flowEndReason.
const COMMON: [(u16, u16); 11] = [
    (152, 8),
    (153, 8),
    (2, 8),
    (352, 8),
    (10, 4),
    (14, 4),
    (56, 6),
    (80, 6),
    (58, 2),
    (256, 2),
    (136, 1),
];
/// What it has of IP besides the addresses: octetDeltaCount, ipVersion, protocolIdentifier,
/// ipClassOfService, sourceTransportPort, destinationTransportPort, tcpControlBits.
const IP: [(u16, u16); 7] = [(1, 8), (60, 1), (4, 1), (5, 1), (7, 2), (11, 2), (6, 2)];

const fn joined<const N: usize>(addresses: [(u16, u16); 2]) -> [(u16, u16); N] {
    let mut all = [(0, 0); N];
    let mut at = 0;
    while at < N {
        all[at] = if at < COMMON.len() {
            COMMON[at]
        } else if at < COMMON.len() + IP.len() {
            IP[at - COMMON.len()]
        } else {
            addresses[at - COMMON.len() - IP.len()]
        };
        at += 1;
    }
    all
}

/// sourceIPv4Address, destinationIPv4Address.
static V4: [(u16, u16); 20] = joined([(8, 4), (12, 4)]);
/// sourceIPv6Address, destinationIPv6Address.
static V6: [(u16, u16); 20] = joined([(27, 16), (28, 16)]);

pub(super) static TEMPLATES: [Template; 3] = [
    Template { id: 256, elements: &COMMON },
    Template { id: 257, elements: &V4 },
    Template { id: 258, elements: &V6 },
];

/// Returns the ID of the template of a flow's record.
pub(super) fn of(flow: &Flow) -> u16 {
    match flow.key.addresses {
        Addresses::None => 256,
        Addresses::V4(..) => 257,
        Addresses::V6(..) => 258,
    }
}

/// Appends the record of a flow.
pub(super) fn put_record(bytes: &mut Vec<u8>, flow: &Flow, reason: EndReason) {
    let key = &flow.key;
    for number in [flow.start, flow.end, flow.packets, flow.frame_octets] {
        bytes.put_u64(number);
    }
    bytes.put_u32(key.input);
    bytes.put_u32(key.output);
    bytes.extend_from_slice(&key.source_mac);
    bytes.extend_from_slice(&key.destination_mac);
    bytes.put_u16(key.vlan);
    bytes.put_u16(key.ethertype);
    bytes.push(reason as u8);
    match key.addresses {
        Addresses::None => {}
        Addresses::V4(source, destination) => {
            put_ip(bytes, flow, 4);
            bytes.extend_from_slice(&source.octets());
            bytes.extend_from_slice(&destination.octets());
        }
        Addresses::V6(source, destination) => {
            put_ip(bytes, flow, 6);
            bytes.extend_from_slice(&source.octets());
            bytes.extend_from_slice(&destination.octets());
        }
    }
}

fn put_ip(bytes: &mut Vec<u8>, flow: &Flow, version: u8) {
    let key = &flow.key;
    bytes.put_u64(flow.ip_octets);
    bytes.extend_from_slice(&[version, key.protocol, key.class]);
    for number in [key.source_port, key.destination_port, flow.tcp_flags.into()] {
        bytes.put_u16(number);
    }
}
