//! Why a frame was dropped: one enum that is also the index of a port's counters and the `reason`
//! label of its metrics.
//!
//! Reasons are counted at the port that can do something about it: what is wrong with a frame, or
//! with its sender, at the port it came from; what its receiver could not take at the port it was
//! meant for.

trama_frame::drop_reasons! {
    "Why a frame was dropped."
    NotAttached "not_attached"
        "The port belongs to no network: set its network, or expect silence."
    CableOut "cable_out"
        "The port's cable is out: set the port's `cable` to true."
    Runt "runt"
        "The frame ends inside its Ethernet header or VLAN tag: the sender's driver is at fault."
    Giant "giant"
        "The frame is longer than any frame may be: the sender's driver is at fault."
    MtuExceeded "mtu_exceeded"
        "The packet is larger than the network's MTU: lower the MTU of the sender or raise the network's."
    HeaderMalformed "header_malformed"
        "The virtio-net header contradicts its frame: the sender's driver is at fault."
    ChainMalformed "chain_malformed"
        "The descriptor chain is malformed: the sender's driver is at fault."
    VlanNotAllowed "vlan_not_allowed"
        "The port does not take the frame's VLAN: check its tag, trunks and vlan_mode."
    ReservedMulticast "reserved_multicast"
        "The destination is link-local (01:80:c2:00:00:0x: spanning tree, LLDP), which no switch forwards: nothing to do."
    SourceForged "source_forged"
        "The source is not the port's `mac`: set the port's `spoof` to \"allow\" if its machine may send as others."
    SourceInvalid "source_invalid"
        "The source is no station's address but all zeros or a group's: give the sender's interface a unicast address."
    Hairpin "hairpin"
        "The destination was learned on the port that the frame came from: look for a bridge or duplicate MAC address behind it."
    NoMember "no_member"
        "No other port carries the frame's VLAN: check tag and trunks of the ports that should hear it."
    UnknownUnicast "unknown_unicast"
        "Nobody is known to have the destination, and no other port takes others' frames: wait until it speaks, or set `promiscuous` where it is."
    EgressDown "egress_down"
        "The port was to send the frame but its cable is out: set the port's `cable` to true."
    EgressFull "egress_full"
        "The receiver had no free buffer: it is slower than its senders; give it more queue entries or processor time."
    EgressNotReady "egress_not_ready"
        "The receiver's driver has not started its ring: the guest is still booting or has no driver for the device."
    EgressTooLarge "egress_too_large"
        "The receiver can never take a frame of this length: its driver needs mergeable buffers, an uplink's interface a larger MTU, or the sender a smaller one."
    OffloadFailed "offload_failed"
        "The frame needs segmentation or a checksum that the receiver did not negotiate and software could not do: turn the sender's offloads off."
    DeviceError "device_error"
        "The operating system refused the frame at this device: see the log for its error."
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
            assert!(reason.describe().contains(':'), "{name}: says no remedy");
            assert!(reason.describe().ends_with('.') && !reason.describe().contains('\n'));
        }
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
