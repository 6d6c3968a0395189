//! Forwarding as seen from dummy ports: VLANs, learning, flooding, drops, and the software fallback
//! for offloads.
#![cfg(test)]

mod announcements;
mod loops;
mod sources;
mod storms;
mod tags;

use trama_frame::ethernet::behind_tags;
use trama_frame::vnet::{DATA_VALID, GSO_TCPV4, NEEDS_CSUM};
use trama_frame::{MacAddr, Offloads, VlanTag, VnetHeader, checksum};
use trama_switch::{DropReason, Engine, Time, VlanMode, VlanSet};
use trama_test_kit::{Lab, Station, access, c_tag, frame, mac, network, port, tagged, trunk, vid};

fn nothing(got: &[Vec<Vec<u8>>]) -> bool {
    got.iter().all(Vec::is_empty)
}

#[test]
fn unknown_unicast_is_flooded_and_known_is_not() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    let there = frame(mac(2), mac(1), 60);
    let back = frame(mac(1), mac(2), 60);
    let got = lab.send(0, &there);
    assert_eq!(got, [vec![], vec![there.clone()], vec![there.clone()]]);
    let got = lab.send(1, &back);
    assert_eq!(got, [vec![back], vec![], vec![]], "learned from the first frame");
    let got = lab.send(0, &there);
    assert_eq!(got, [vec![], vec![there], vec![]]);
    let counters = lab.stations[0].counters.snapshot();
    assert_eq!((counters.rx_frames, counters.rx_bytes), (2, 120));
    assert_eq!((counters.tx_frames, counters.tx_bytes, counters.flooded_frames), (1, 60, 1));
}

#[test]
fn a_station_that_moves_is_followed() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    lab.send(1, &frame(mac(9), mac(2), 60));
    lab.send(2, &frame(mac(9), mac(2), 60));
    let to_it = frame(mac(2), mac(1), 60);
    assert_eq!(lab.send(0, &to_it), [vec![], vec![], vec![to_it]]);
    // Within one burst: the address moves back to port 1, which then receives a frame for it.
    for bytes in [frame(mac(9), mac(2), 60), frame(mac(2), mac(3), 60)] {
        lab.stations[1].send(&bytes);
    }
    lab.settle();
    assert_eq!(lab.dropped(1, DropReason::Hairpin), 1);
}

#[test]
fn one_burst_to_many_keeps_each_port_in_order() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    lab.send(1, &frame(mac(9), mac(2), 60));
    lab.send(2, &frame(mac(9), mac(3), 60));
    let to = [mac(2), MacAddr::BROADCAST, mac(3), mac(77), mac(2), mac(3), MacAddr::BROADCAST];
    let sent: Vec<Vec<u8>> = to.iter().zip(60..).map(|(to, len)| frame(*to, mac(1), len)).collect();
    for bytes in &sent {
        lab.stations[0].send(bytes);
    }
    lab.settle();
    let pick = |places: &[usize]| places.iter().map(|i| sent[*i].clone()).collect::<Vec<_>>();
    assert_eq!(lab.stations[1].frames(), pick(&[0, 1, 3, 4, 6]));
    assert_eq!(lab.stations[2].frames(), pick(&[1, 2, 3, 5, 6]));
    assert!(lab.stations[0].frames().is_empty());
}

#[test]
fn vlans_are_isolated() {
    let mut lab = Lab::new(&[access(10), access(10), access(20), trunk()]);
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    let got = lab.send(0, &bytes);
    assert_eq!(got, [vec![], vec![bytes.clone()], vec![], vec![tagged(c_tag(10), &bytes)]]);
    // The same address in another VLAN is another station.
    let got = lab.send(2, &frame(mac(9), mac(1), 60));
    assert_eq!(got[3].len(), 1);
    let to_it = frame(mac(1), mac(4), 60);
    let got = lab.send(3, &tagged(c_tag(20), &to_it));
    assert_eq!(got, [vec![], vec![], vec![to_it], vec![]]);
}

#[test]
fn a_tag_that_stays_is_left_alone_and_one_that_changes_keeps_its_priority() {
    let native = VlanMode::NativeUntagged { tag: vid(30), trunks: VlanSet::all() };
    let mut lab = Lab::new(&[trunk(), trunk(), access(10), native]);
    let plain = frame(MacAddr::BROADCAST, mac(1), 300);
    // Drop eligible, priority 5, S-tag: unchanged on a trunk, popped at the access port.
    let tag = VlanTag { tpid: 0x88a8, tci: 0xb00a };
    let bytes = tagged(tag, &plain);
    let got = lab.send(0, &bytes);
    assert_eq!(got, [vec![], vec![bytes.clone()], vec![plain.clone()], vec![bytes]]);
    // Priority-tagged into an access port: priority kept, DEI cleared, VID filled in.
    let got = lab.send(2, &tagged(c_tag(0xb000), &plain));
    let expected = tagged(c_tag(0xa00a), &plain);
    assert_eq!(got, [vec![expected.clone()], vec![expected.clone()], vec![], vec![expected]]);
    // Priority-tagged in VLAN 0 leaves untagged; the native port has no VLAN 0.
    let got = lab.send(0, &tagged(c_tag(0xe000), &plain));
    assert_eq!(got, [vec![], vec![plain.clone()], vec![], vec![]]);
    // Into and out of a native VLAN.
    let got = lab.send(3, &plain);
    let expected = tagged(c_tag(30), &plain);
    assert_eq!(got, [vec![expected.clone()], vec![expected], vec![], vec![]]);
}

#[test]
fn what_a_port_may_not_send_is_dropped_with_its_reason() {
    let mut lab = Lab::new(&[access(10), trunk()]);
    let ok = frame(MacAddr::BROADCAST, mac(1), 60);
    let lldp = frame(MacAddr([1, 0x80, 0xc2, 0, 0, 0xe]), mac(1), 60);
    let long = frame(MacAddr::BROADCAST, mac(1), 1515);
    let cases = [
        (tagged(c_tag(10), &ok), DropReason::VlanNotAllowed),
        (ok[..13].to_vec(), DropReason::Runt),
        (tagged(c_tag(0), &ok)[..17].to_vec(), DropReason::Runt),
        (lldp, DropReason::ReservedMulticast),
        (tagged(c_tag(0), &long), DropReason::MtuExceeded),
        (long, DropReason::MtuExceeded),
    ];
    for (bytes, reason) in cases {
        let before = lab.dropped(0, reason);
        assert!(nothing(&lab.send(0, &bytes)), "{reason:?}");
        assert_eq!(lab.dropped(0, reason), before + 1, "{reason:?}");
    }
    let largest = frame(MacAddr::BROADCAST, mac(1), 1514);
    assert_eq!(lab.send(0, &largest)[1], [tagged(c_tag(10), &largest)]);
    assert_eq!(lab.send(0, &tagged(c_tag(0), &largest))[1], [tagged(c_tag(10), &largest)]);
    assert_eq!(lab.stations[0].counters.snapshot().rx_frames, 2);
}

#[test]
fn a_frame_without_an_egress_port_is_dropped_with_its_reason() {
    let mut lab = Lab::new(&[access(10), access(20)]);
    assert!(nothing(&lab.send(0, &frame(MacAddr::BROADCAST, mac(1), 60))));
    assert_eq!(lab.dropped(0, DropReason::NoMember), 1);
    let counters = lab.stations[0].counters.snapshot();
    assert_eq!((counters.rx_frames, counters.flooded_frames, counters.dropped_total()), (0, 0, 1));
    // A frame for its own port.
    let mut lab = Lab::new(&[trunk(), trunk()]);
    lab.send(0, &frame(mac(9), mac(2), 60));
    assert!(nothing(&lab.send(0, &frame(mac(2), mac(1), 60))));
    assert_eq!(lab.dropped(0, DropReason::Hairpin), 1);
}

#[test]
fn cable_and_network_change_while_frames_move() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    lab.set(1, |settings| settings.cable = false);
    assert!(nothing(&lab.send(0, &bytes)));
    assert_eq!(lab.dropped(1, DropReason::EgressDown), 1);
    assert!(nothing(&lab.send(1, &bytes)));
    assert_eq!(lab.dropped(1, DropReason::CableOut), 1);
    lab.set(1, |settings| settings.network = None);
    assert!(nothing(&lab.send(1, &bytes)));
    assert_eq!(lab.dropped(1, DropReason::NotAttached), 1);
    assert!(nothing(&lab.send(0, &bytes)));
    assert_eq!(lab.dropped(0, DropReason::NoMember), 1);
    lab.set(1, |_| ());
    assert_eq!(lab.send(0, &bytes)[1], std::slice::from_ref(&bytes));
    let (network, id) = (lab.network, lab.stations[1].id);
    lab.engine.remove_network(network).unwrap();
    assert!(lab.engine.set_network(network, settings()).is_err(), "its name is not used again");
    assert!(nothing(&lab.send(0, &bytes)));
    drop(lab.engine.remove_port(id).unwrap());
    assert!(lab.engine.remove_port(id).is_err());
}

fn settings() -> trama_switch::NetworkSettings {
    trama_switch::NetworkSettings {
        name: "lab".into(),
        mtu: 1500,
        mac_table_size: 8,
        mac_aging: std::time::Duration::from_secs(1),
    }
}

#[test]
fn addresses_go_with_their_port_and_with_time() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    lab.send(1, &frame(mac(9), mac(2), 60));
    let known = |lab: &Lab| {
        let now = Time(lab.clock);
        let listed = lab.engine.fdb(lab.network, now).len();
        // A table of 8192 has one part.
        assert_eq!(lab.engine.count_macs(lab.network, 0, now), Some(listed));
        assert_eq!(lab.engine.count_macs(lab.network, 1, now), None);
        listed
    };
    assert_eq!(known(&lab), 1);
    assert_eq!(lab.engine.fdb(lab.network, Time(lab.clock))[0].0, lab.stations[1].id);
    lab.set(1, |settings| settings.vlan = access(0));
    assert_eq!(known(&lab), 0, "other VLANs");
    lab.send(1, &frame(mac(9), mac(2), 60));
    lab.engine.detach(lab.stations[1].id);
    assert_eq!(known(&lab), 0, "detached");
    lab.send(1, &frame(mac(9), mac(2), 60));
    lab.engine.flush_fdb(Some(lab.network));
    assert_eq!(known(&lab), 0, "flushed");
    lab.send(1, &frame(mac(9), mac(2), 60));
    lab.clock += 301_000_000_000;
    assert_eq!(known(&lab), 0, "aged");
    let to_it = frame(mac(2), mac(1), 60);
    assert_eq!(lab.send(0, &to_it), [vec![], vec![to_it.clone()], vec![to_it]]);
}

#[test]
fn networks_are_isolated() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let other = network(&mut lab.engine, 9000);
    let far = Station::add(&mut lab.engine, port(other, trunk()), Offloads::ALL);
    let also = Station::add(&mut lab.engine, port(other, trunk()), Offloads::ALL);
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    assert_eq!(lab.send(0, &bytes)[1].len(), 1);
    assert!(far.frames().is_empty());
    let jumbo = frame(mac(1), mac(5), 9014);
    far.send(&jumbo);
    lab.settle();
    assert_eq!(also.frames(), [jumbo], "its own MTU, and no address of the other");
    assert!(lab.stations[0].frames().is_empty());
}

/// Returns a TCP/IPv4 frame with `payload` bytes whose checksum field holds the pseudo-header's
/// sum.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut bytes = frame(mac(2), mac(1), 54 + payload);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    let length = (40 + payload) as u16;
    let ip = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    bytes[14..34].copy_from_slice(&ip);
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    let sum = checksum::internet(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let tcp = [0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    bytes[34..54].copy_from_slice(&tcp);
    let pseudo = [&bytes[26..34], &[0, 6], &(length - 20).to_be_bytes()].concat();
    let sum = !checksum::internet(&pseudo);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn needs_checksum() -> VnetHeader {
    VnetHeader { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..VnetHeader::default() }
}

fn needs_segmentation() -> VnetHeader {
    VnetHeader { gso_type: GSO_TCPV4, gso_size: 1400, hdr_len: 54, ..needs_checksum() }
}

/// Returns whether the TCP checksum of a complete frame, which may have tags, is right.
fn tcp_checksum_ok(bytes: &[u8]) -> bool {
    let ip = behind_tags(bytes).unwrap().0;
    let total = usize::from(u16::from_be_bytes([bytes[ip + 2], bytes[ip + 3]]));
    let length = ((total - 20) as u16).to_be_bytes();
    let pseudo = [&bytes[ip + 12..ip + 20], &[0, 6], &length];
    let segment = [&pseudo.concat()[..], &bytes[ip + 20..ip + total]].concat();
    checksum::internet(&segment) == 0 && checksum::internet(&bytes[ip..ip + 20]) == 0
}

#[test]
fn negotiated_offloads_pass_unchanged() {
    let mut lab = Lab::new(&[access(5), access(5), trunk()]);
    let large = tcp_frame(14_000);
    lab.stations[0].handle.inject(needs_segmentation(), &large).unwrap();
    lab.settle();
    let got = lab.stations[1].handle.captured();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].header, &got[0].bytes), (needs_segmentation(), &large));
    // A pushed tag moves the header's offsets.
    let got = lab.stations[2].handle.captured();
    let shifted = VnetHeader { hdr_len: 58, csum_start: 38, ..needs_segmentation() };
    assert_eq!((got[0].header, &got[0].bytes), (shifted, &tagged(c_tag(5), &large)));
    // A popped tag moves them back.
    lab.stations[2].handle.inject(shifted, &got[0].bytes).unwrap();
    lab.settle();
    let got = lab.stations[0].handle.captured();
    assert_eq!((got[0].header, &got[0].bytes), (needs_segmentation(), &large));
    assert_eq!(lab.stations[0].counters.snapshot().rx_gso_frames, 1);
    assert_eq!(lab.stations[1].counters.snapshot().tx_gso_frames, 2);
    assert_eq!(lab.stations[1].counters.snapshot().software_gso_frames, 0);
}

#[test]
fn offloads_that_were_not_negotiated_are_done_in_software() {
    let mut lab = Lab::new(&[access(5)]);
    let lab_port = |vlan| port(lab.network, vlan);
    let (untagged, trunked) = (lab_port(access(5)), lab_port(trunk()));
    let bare = Station::add(&mut lab.engine, untagged.clone(), Offloads::NONE);
    let tags = Station::add(&mut lab.engine, trunked, Offloads::NONE);
    let sums = Station::add(&mut lab.engine, untagged, Offloads::CSUM);
    lab.stations[0].handle.inject(needs_checksum(), &tcp_frame(101)).unwrap();
    lab.settle();
    for station in [&bare, &tags] {
        let got = station.handle.captured();
        assert_eq!(got.len(), 1);
        assert!(got[0].header.is_plain() && tcp_checksum_ok(&got[0].bytes));
        assert_eq!(station.counters.snapshot().software_checksum_frames, 1);
    }
    let got = sums.handle.captured();
    assert_eq!((got[0].header, &got[0].bytes), (needs_checksum(), &tcp_frame(101)));

    lab.stations[0].handle.inject(needs_segmentation(), &tcp_frame(14_001)).unwrap();
    lab.settle();
    for (station, header) in [(&bare, 54), (&tags, 58), (&sums, 54)] {
        let got = station.handle.captured();
        assert_eq!(got.len(), 11);
        assert!(got.iter().all(|each| each.header.is_plain() && tcp_checksum_ok(&each.bytes)));
        let payload: Vec<u8> = got.iter().flat_map(|each| each.bytes[header..].to_vec()).collect();
        assert_eq!(payload, tcp_frame(14_001)[54..]);
        let counters = station.counters.snapshot();
        assert_eq!((counters.software_gso_frames, counters.tx_gso_frames), (1, 0));
        assert_eq!(counters.tx_frames, 12);
    }
}

#[test]
fn data_valid_is_cleared_for_a_receiver_without_checksum_offload() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let bare = Station::add(&mut lab.engine, port(lab.network, trunk()), Offloads::NONE);
    let verified = VnetHeader { flags: DATA_VALID, ..VnetHeader::default() };
    lab.stations[0].handle.inject(verified, &tcp_frame(10)).unwrap();
    lab.settle();
    assert_eq!(lab.stations[1].handle.captured()[0].header, verified);
    assert_eq!(bare.handle.captured()[0].header, VnetHeader::default());
}

#[test]
fn inconsistent_virtio_net_headers_are_dropped() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let inconsistent = [
        VnetHeader { csum_start: 5000, ..needs_checksum() },
        VnetHeader { gso_size: 0, ..needs_segmentation() },
        VnetHeader { gso_type: 3, ..needs_segmentation() },
        VnetHeader { gso_type: 4, ..needs_segmentation() },
    ];
    for header in inconsistent {
        lab.stations[0].handle.inject(header, &tcp_frame(3000)).unwrap();
    }
    // With 1500 payload bytes, each segment would be larger than the MTU.
    let header = VnetHeader { gso_size: 1500, ..needs_segmentation() };
    lab.stations[0].handle.inject(header, &tcp_frame(3000)).unwrap();
    lab.settle();
    assert!(lab.stations[1].frames().is_empty());
    assert_eq!(lab.dropped(0, DropReason::HeaderMalformed), 4);
    assert_eq!(lab.dropped(0, DropReason::MtuExceeded), 1);
}

#[test]
fn software_segmentation_has_a_budget() {
    let mut lab = Lab::new(&[trunk()]);
    let bare = Station::add(&mut lab.engine, port(lab.network, trunk()), Offloads::NONE);
    // 8,000 segments of one byte: more than the budget of a port in one burst.
    let header = VnetHeader { gso_size: 1, ..needs_segmentation() };
    lab.stations[0].handle.inject(header, &tcp_frame(8000)).unwrap();
    lab.settle();
    assert!(bare.frames().is_empty());
    assert_eq!(bare.counters.snapshot().dropped(DropReason::OffloadFailed), 1);
}

#[test]
fn a_full_receiver_drops_only_its_own_frames() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let sent = 1030;
    for _ in 0..sent / 2 {
        lab.stations[0].send(&frame(MacAddr::BROADCAST, mac(1), 60));
    }
    lab.settle();
    for _ in 0..sent / 2 {
        lab.stations[0].send(&frame(MacAddr::BROADCAST, mac(1), 60));
    }
    let late = Station::add(&mut lab.engine, port(lab.network, trunk()), Offloads::ALL);
    lab.settle();
    assert_eq!(lab.dropped(1, DropReason::EgressFull), sent - 1024);
    assert_eq!(late.frames().len() as u64, sent / 2);
    assert_eq!(lab.stations[0].counters.snapshot().rx_frames, sent);
}
