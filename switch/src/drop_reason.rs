//! Drop reasons: one enum that is also the index of a port's counters and the `reason` label of its
//! metrics.
//!
//! Reasons are counted at the port where they can be fixed: faults of a frame or its sender at the
//! ingress port, refusals by a receiver at the egress port. A gateway is the exception: its port is
//! not the user's, and what it does not take is counted at the ingress port.

trama_frame::drop_reasons! {
    "Why a frame was dropped."
    NotAttached "not_attached"
        "The port is not attached to a network: set its `network`."
    CableOut "cable_out"
        "The port's cable is unplugged: set the port's `cable` to true."
    Runt "runt"
        "The frame ends within its Ethernet header or VLAN tag: check the sender's driver."
    Giant "giant"
        "The frame is longer than the largest IP packet with its Ethernet header: check the sender's driver."
    MtuExceeded "mtu_exceeded"
        "The packet is larger than the network's MTU: lower the sender's MTU or raise the network's `mtu`."
    HeaderMalformed "header_malformed"
        "The virtio-net header does not match its frame: check the sender's driver."
    ChainMalformed "chain_malformed"
        "The descriptor chain violates the virtio specification: check the sender's driver."
    Truncated "truncated"
        "The connection of a stream port ended within the frame: see `last_error` of the port, and why its peer ends."
    WrongPeer "wrong_peer"
        "The datagram is not from the port's peer: correct `remote` or `peer`, or look for another sender at its address."
    VlanNotAllowed "vlan_not_allowed"
        "The port does not carry the frame's VLAN: check its `tag`, `trunks` and `vlan_mode`."
    ReservedMulticast "reserved_multicast"
        "The destination is link-local (01:80:c2:00:00:0x: spanning tree, LLDP), which switches do not forward: no action is needed."
    SourceForged "source_forged"
        "The source address is not the port's `mac`: set the port's `spoof` to \"allow\" if its guest may use other addresses."
    SourceInvalid "source_invalid"
        "The source address is zero or a group address: give the sender's interface a unicast address."
    OwnAddress "own_address"
        "The source address belongs to the network's gateway, the host's interface or the uplink: give the sender's interface an address of its own."
    Storm "storm"
        "The port sent more flooded frames a second than its limit: look for a loop behind it, or raise its `storm-broadcast`, `storm-multicast` or `storm-unknown`."
    Loop "loop"
        "The port is blocked, or the frame is a probe that came back: a loop joins it with another port. See `tramactl show`, and remove the loop."
    MirrorOutput "mirror_output"
        "The port is the output of a mirror, and what it sends is not switched: silence its machine, or remove the mirror."
    Hairpin "hairpin"
        "The destination was learned on the ingress port: look for a bridge or a duplicate MAC address behind it."
    NoMember "no_member"
        "No other port carries the frame's VLAN: check `tag` and `trunks` of the ports that should receive it."
    UnknownUnicast "unknown_unicast"
        "The destination is unknown, and no other port receives unknown unicast frames: wait until the station sends a frame, or set `promiscuous` on its port."
    EgressDown "egress_down"
        "The egress port's cable is unplugged: set the port's `cable` to true."
    EgressFull "egress_full"
        "The receiver had no free buffer because it is slower than its senders: give it longer queues or more processor time."
    GatewayShare "gateway_share"
        "The gateway was busy, and this port had filled its share of the gateway's buffers: make the sender slower, or give the host more processor time."
    EgressNotReady "egress_not_ready"
        "The receiver's driver has not started its ring, or nothing is connected to the port's socket: wait until the guest has booted, or load a driver for the device."
    EgressTooLarge "egress_too_large"
        "The frame does not fit into the receiver's buffers: enable mergeable buffers in its driver, raise the MTU of an uplink's interface, or lower the sender's MTU."
    OffloadFailed "offload_failed"
        "The receiver did not negotiate the frame's offload, and software could not replace it: turn off the sender's offloads."
    MemoryHole "memory_hole"
        "The frame lies in memory that the guest never wrote, and no page could be added: start the guest with `prealloc=on`, or raise its port's `memory-populate`."
    TunnelMalformed "tunnel_malformed"
        "The datagram at the tunnel's UDP port is truncated or has no VXLAN header with a VNI: look for what else sends to this port."
    TunnelUnknown "tunnel_unknown"
        "No tunnel has the datagram's VNI and outer source address: compare `vni`, `remote` and `local` of the tunnel at both ends."
    TunnelLocal "tunnel_local"
        "The frame came from a tunnel and its destination is behind another one, and frames do not go from tunnel to tunnel: add a tunnel between these two hosts."
    TunnelBusy "tunnel_busy"
        "The worker of the tunnel's network was too slow to take what another worker received for it: give the host more processor time, or use one worker."
    TunnelOverflow "tunnel_overflow"
        "The kernel dropped the datagram before the worker received it, as the socket was full or the outer checksum wrong: give the host more processor time, or lower the rate."
    TunnelMtu "tunnel_mtu"
        "The frame with its outer headers is larger than the path to the tunnel's remote end takes: lower the network's `mtu` to the path's less 50 bytes (IPv4) or 70 (IPv6), or raise that of the path."
    TunnelNoRoute "tunnel_no_route"
        "The host has no route to the tunnel's remote end, or its interface is down: check `ip route get` with the address in `remote`."
    DeviceError "device_error"
        "The operating system refused the frame at this device: see the log for the error."
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn indices_names_and_descriptions_are_usable() {
        let mut names = HashSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let name = reason.name();
            assert!(names.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(reason.describe().contains(':'), "{name}: no remedy");
            assert!(reason.describe().ends_with('.') && !reason.describe().contains('\n'));
        }
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
