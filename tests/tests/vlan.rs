//! VLAN tags on the wire of real TAPs: what a trunk, a native trunk and an access port let in,
//! and how frames leave them.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "nobody calls a test; one that cannot go on panics"
)]

use std::time::Duration;

use etherparse::{PacketBuilder, SlicedPacket, VlanSlice};
use trama_tests::tramad::sum;
use trama_tests::{Host, Netns, RawTap, SOON, Tramad, wait_until};

/// The ports: name and the VLAN keys of their table.
const PORTS: [(&str, &str); 4] = [
    ("access10", "tag = 10"),
    ("access20", "tag = 20"),
    ("trunk", "trunks = [10, 20]"),
    ("native", "vlan-mode = \"native-untagged\"\ntag = 10\ntrunks = [20]"),
];

/// A broadcast that is told from others by its payload.
fn frame(tag: Option<u16>, mark: u8) -> Vec<u8> {
    let source = [0x52, 0x54, 0, 0, 0, mark];
    let payload = [mark; 64];
    let mut bytes = Vec::new();
    let ethernet = PacketBuilder::ethernet2(source, [0xff; 6]);
    let (from, to) = ([10, 1, 0, 1], [10, 1, 0, 255]);
    match tag {
        Some(tag) => ethernet
            .single_vlan(tag.try_into().expect("a VLAN number"))
            .ipv4(from, to, 64)
            .udp(7, 7)
            .write(&mut bytes, &payload),
        None => ethernet.ipv4(from, to, 64).udp(7, 7).write(&mut bytes, &payload),
    }
    .expect("write to memory");
    bytes
}

/// Whether `bytes` is the frame with this mark, and if so its tag.
fn recognise(bytes: &[u8], mark: u8) -> Option<Option<u16>> {
    let packet = SlicedPacket::from_ethernet(bytes).ok()?;
    let payload = packet.transport.as_ref().and_then(|transport| match transport {
        etherparse::TransportSlice::Udp(udp) => Some(udp.payload()),
        _ => None,
    })?;
    let tag = packet.vlan().map(|vlan| match vlan {
        VlanSlice::SingleVlan(tag) => tag.vlan_identifier().value(),
        VlanSlice::DoubleVlan(tags) => tags.outer.vlan_identifier().value(),
    });
    (payload == [mark; 64]).then_some(tag)
}

/// Frames that the switch has taken from a port, those that it dropped included.
fn taken(tramad: &Tramad, port: usize) -> u64 {
    let label = format!("port=\"{}\"", PORTS[port].0);
    let metrics = tramad.metrics();
    ["trama_port_rx_frames_total", "trama_port_drops_total"]
        .map(|name| sum(&metrics, name, &[&label]))
        .iter()
        .sum()
}

#[test]
fn tags_enter_and_leave_as_the_modes_say() {
    let mut configuration = "[[network]]\nname = \"lab\"\n".to_owned();
    let hosts: Vec<Netns> = PORTS.iter().map(|(name, _)| Netns::new(name)).collect();
    for ((name, vlan), netns) in PORTS.iter().zip(&hosts) {
        configuration += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"{name}\"\n\
             netns = \"{}\"\n{vlan}\n",
            netns.name()
        );
    }
    let tramad = Tramad::start(&configuration);
    let taps: Vec<RawTap> =
        PORTS.iter().zip(&hosts).map(|((name, _), host)| RawTap::bridge(host, name)).collect();
    let [access10, access20, trunk, native] = [0, 1, 2, 3];

    // Bridges need a moment until they forward; from then on, every frame counts.
    for (from, to) in [(access10, trunk), (access20, trunk), (trunk, access10), (native, access10)]
    {
        let tag = (from == trunk).then_some(10);
        wait_until("the bridges forward", SOON, || {
            taps[from].send(&frame(tag, 0));
            taps[to].receive(Duration::from_millis(100), |bytes| recognise(bytes, 0).is_some())
        });
    }

    // (from, tag sent, [(to, tag seen)]): everyone else must hear nothing.
    type Heard<'a> = &'a [(usize, Option<u16>)];
    let cases: [(usize, Option<u16>, Heard<'_>); 10] = [
        (access10, None, &[(trunk, Some(10)), (native, None)]),
        (access10, Some(10), &[]),
        (access10, Some(20), &[]),
        (access20, None, &[(trunk, Some(20)), (native, Some(20))]),
        (trunk, Some(10), &[(access10, None), (native, None)]),
        (trunk, Some(20), &[(access20, None), (native, Some(20))]),
        (trunk, Some(30), &[]),
        (trunk, None, &[]),
        (native, None, &[(access10, None), (trunk, Some(10))]),
        (native, Some(20), &[(access20, None), (trunk, Some(20))]),
    ];
    for (number, (from, tag, heard)) in cases.iter().enumerate() {
        let mark = number as u8 + 1;
        let what = format!("{} sends {tag:?}", PORTS[*from].0);
        let before = taken(&tramad, *from);
        taps[*from].send(&frame(*tag, mark));
        for (to, expected) in *heard {
            let seen = taps[*to]
                .receive(SOON, |bytes| recognise(bytes, mark).is_some())
                .unwrap_or_else(|| panic!("{what}: {} hears nothing", PORTS[*to].0));
            assert_eq!(recognise(&seen, mark), Some(*expected), "{what}: at {}", PORTS[*to].0);
        }
        // All hear what is sent once the switch has taken it; the others nothing before.
        let later = mark | 0x80;
        wait_until("the switch has the frame", SOON, || {
            (taken(&tramad, *from) > before).then_some(())
        });
        taps[trunk].send(&frame(Some(10), later));
        taps[trunk].send(&frame(Some(20), later));
        taps[access10].send(&frame(None, later));
        for (tap, (name, _)) in taps.iter().zip(PORTS) {
            let first = tap
                .receive(SOON, |b| [mark, later].iter().any(|mark| recognise(b, *mark).is_some()))
                .unwrap_or_else(|| panic!("{name} hears nothing any more"));
            assert_eq!(recognise(&first, mark), None, "{what}: {name} hears it");
        }
    }
    for (port, count) in [("access10", 2), ("trunk", 2)] {
        let dropped = tramad.metric(
            "trama_port_drops_total",
            &[&format!("port=\"{port}\""), "reason=\"vlan_not_allowed\""],
        );
        assert!(dropped >= count, "{port}: {dropped} drops, {count} frames were not allowed");
    }
    tramad.stop();
}
