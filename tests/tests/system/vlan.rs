//! VLAN tags on real TAPs: what trunks, native trunks and access ports accept, and how frames leave
//! them. Also VLAN devices of real guests, stacked or with their own addresses.

use std::time::Duration;

use etherparse::{PacketBuilder, SlicedPacket, VlanSlice};
use trama_tests::tramad::sum;
use trama_tests::{
    Guest, GuestOptions, Host, Netns, Nic, Pinging, RawTap, SOON, Tramad, wait_until,
};

/// The ports: name and VLAN keys of their table.
const PORTS: [(&str, &str); 4] = [
    ("access10", "tag = 10"),
    ("access20", "tag = 20"),
    ("trunk", "trunks = [10, 20]"),
    ("native", "vlan-mode = \"native-untagged\"\ntag = 10\ntrunks = [20]"),
];

/// Returns a broadcast with a distinctive payload.
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

/// Returns the tag of `bytes` if it is the frame with this mark.
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

/// Returns the frames that the switch received from a port, including dropped ones.
fn received_frames(tramad: &Tramad, port: usize) -> u64 {
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

    // Bridges take a moment to forward; from then on, every frame counts.
    for (from, to) in [(access10, trunk), (access20, trunk), (trunk, access10), (native, access10)]
    {
        let tag = (from == trunk).then_some(10);
        wait_until("the bridges forward", SOON, || {
            taps[from].send(&frame(tag, 0));
            taps[to].receive(Duration::from_millis(100), |bytes| recognise(bytes, 0).is_some())
        });
    }

    // (from, tag sent, [(to, tag received)]): all others must receive nothing.
    type Received<'a> = &'a [(usize, Option<u16>)];
    let cases: [(usize, Option<u16>, Received<'_>); 10] = [
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
        let before = received_frames(&tramad, *from);
        taps[*from].send(&frame(*tag, mark));
        for (to, expected) in *heard {
            let seen = taps[*to]
                .receive(SOON, |bytes| recognise(bytes, mark).is_some())
                .unwrap_or_else(|| panic!("{what}: {} hears nothing", PORTS[*to].0));
            assert_eq!(recognise(&seen, mark), Some(*expected), "{what}: at {}", PORTS[*to].0);
        }
        // A frame sent later arrives everywhere; the ports must have received nothing before it.
        let later = mark | 0x80;
        wait_until("the switch has the frame", SOON, || {
            (received_frames(&tramad, *from) > before).then_some(())
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

/// Returns two guests, each with an interface on a shared network and one on its own network; a
/// bridge of the host joins the two own networks by TAPs.
fn two_ways(host: &Netns) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    for guest in ["a", "b"] {
        text += &format!(
            "[[network]]\nname = \"{guest}\"\n\
             [[port]]\nname = \"tap-{guest}\"\nnetwork = \"{guest}\"\ntype = \"tap\"\n\
             ifname = \"tap-{guest}\"\nnetns = \"{}\"\n",
            host.name()
        );
        for (port, network) in [(format!("{guest}0"), "lab"), (format!("{guest}1"), guest)] {
            text += &format!(
                "[[port]]\nname = \"{port}\"\nnetwork = \"{network}\"\ntype = \"vhost-user\"\n\
                 path = \"{{dir}}/{port}.sock\"\nrole = \"server\"\n"
            );
        }
    }
    text
}

/// A stack of VLAN devices: suffix of the name, device below, TPID and VLAN, and a subnet that
/// states the number of tags.
const STACK: [(&str, &str, &str, u8, u8); 5] = [
    ("v", "", "802.1q", 100, 1),
    ("q", "v", "802.1q", 200, 2),
    ("s", "", "802.1ad", 30, 3),
    ("c", "s", "802.1q", 7, 4),
    ("d", "c", "802.1q", 8, 5),
];

/// Stacks VLAN devices on both interfaces of a guest, each with the MTU of the one below.
fn stack_vlans(guest: &Guest, number: u8) {
    for interface in 0..2 {
        let below = format!("eth{interface}");
        let mut commands =
            format!("ip link set {below} up; ip addr add 10.{interface}.0.{number}/24 dev {below}");
        for (name, on, protocol, id, subnet) in STACK {
            commands += &format!(
                "; ip link add link {below}{on} name {below}{name} type vlan protocol {protocol} \
                 id {id}; ip link set {below}{name} mtu 1500 up; \
                 ip addr add 10.{interface}.{subnet}.{number}/24 dev {below}{name}"
            );
        }
        guest.run(&commands);
    }
}

#[test]
fn stacked_vlans_carry_full_packets_and_large_segments() {
    let host = Netns::new("host");
    let tramad = Tramad::start(&two_ways(&host));
    host.run("ip link add br0 type bridge; ip link set br0 up");
    // The kernel's bridge lets two tags exceed its MTU, and there will be three.
    host.run("for tap in tap-a tap-b; do ip link set $tap mtu 1504 master br0 up; done");
    // Without offloads, but with mergeable buffers, for a second tag.
    let plain = Nic::PLAIN.replace(",mrg_rxbuf=off", "");
    let guest = |name: &str, number: u8, properties: &str| {
        let nic = |at: u8| {
            let path = tramad.path(&format!("{name}{at}.sock"));
            Nic::connecting(path, &format!("52:54:00:00:0{at}:0{number}"))
        };
        GuestOptions::new(name, [nic(0), nic(1).with(properties)])
    };
    let guests = [guest("a", 1, ""), guest("b", 2, &plain)].map(|options| Guest::launch(&options));
    guests.iter().for_each(Guest::wait_until_ready);
    let [a, b] = &guests;
    stack_vlans(a, 1);
    stack_vlans(b, 2);
    for interface in 0..2 {
        for subnet in 0..=5 {
            let to = format!("10.{interface}.{subnet}.2");
            a.wait_for_ping(&to, Duration::from_secs(30));
            // Packets of 1500 bytes with any number of tags; Linux sets Don't Fragment.
            let full = format!("ping -c 1 -W 5 -s 1472 {to}");
            assert_eq!(a.try_run(&full).status, 0, "{full}: {}", tramad.ctl("counters"));
        }
    }

    b.start_iperf_server(5201);
    for (interface, subnets) in [(0, &[1, 2, 4, 5][..]), (1, &[1, 2])] {
        for direction in ["", "-R"] {
            // Other work on the machine may disturb one run or the other.
            let is_even = (0..4).any(|_| {
                let rates = subnets.iter().map(|subnet| {
                    let to = format!("10.{interface}.{subnet}.2");
                    a.iperf_received(&to, 5201, &format!("-t 1 {direction}"))
                });
                let rates: Vec<u64> = rates.collect();
                println!("eth{interface} {direction}, subnets {subnets:?}: {rates:?} bytes/s");
                rates.iter().all(|rate| *rate > rates[0] / 3)
            });
            assert!(is_even, "eth{interface} {direction}: slower than a third of one tag's rate");
        }
    }
    assert!(tramad.statistic("b1", "software_gso_frames") > 0);
    for port in ["a0", "b0", "a1", "b1", "tap-a", "tap-b"] {
        for reason in ["header_malformed", "mtu_exceeded", "egress_too_large", "offload_failed"] {
            let labels = [&format!("port=\"{port}\"")[..], &format!("reason=\"{reason}\"")];
            assert_eq!(tramad.metric("trama_port_drops_total", &labels), 0, "{port}: {reason}");
        }
    }
    tramad.stop();
}

const FIRST: &str = "52:54:00:00:00:01";
const SECOND: &str = "52:54:00:00:00:02";

/// A guest whose VLAN device has its own address, as with a bridge or a macvlan in it.
#[test]
fn a_guest_is_reached_at_its_second_address_after_that_was_forgotten() {
    let [near, far] = ["near", "far"].map(Netns::new);
    let port = |name: &str, host: &Netns, address: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"{name}\"\n\
             netns = \"{}\"\naddress = \"{address}\"\n",
            host.name()
        )
    };
    let tramad = Tramad::start(&format!(
        "[[network]]\nname = \"lab\"\nmac-aging = \"1s\"\n\
         [[port]]\nname = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
         path = \"{{dir}}/guest.sock\"\nrole = \"server\"\n{}{}tag = 100\n",
        port("near", &near, "10.0.0.100/24"),
        port("far", &far, "10.1.0.100/24")
    ));
    let guest = Guest::boot("guest", Nic::connecting(tramad.path("guest.sock"), FIRST));
    guest.address("10.0.0.1/24");
    guest.run(&format!(
        "ip link add link eth0 vlan100 type vlan id 100; ip link set vlan100 address {SECOND} up; \
         ip addr add 10.1.0.1/24 dev vlan100"
    ));
    guest.wait_for_ping("10.1.0.100", Duration::from_secs(20));
    assert!(tramad.ctl("fdb/show lab").contains(SECOND));
    far.run(&format!("ip neigh replace 10.1.0.1 lladdr {SECOND} dev far nud permanent"));

    let first = Pinging::start(&near, "10.0.0.1", 0.2);
    wait_until("the second address is forgotten", Duration::from_secs(30), || {
        (!tramad.ctl("fdb/show lab").contains(SECOND)).then_some(())
    });
    assert_eq!(far.ping_losses("10.1.0.1", 3), 0, "{}", tramad.ctl("counters"));
    first.stop_without_loss(1);

    // The guest keeps to a new address, so it no longer receives frames for unknown addresses.
    guest.run("ip link del vlan100; ip link set eth0 address 52:54:00:00:00:03");
    near.run("ip neigh replace 10.0.0.55 lladdr 52:54:00:00:00:55 dev near nud permanent");
    near.run("ip neigh flush to 10.0.0.1");
    let withheld = ["port=\"near\"", "reason=\"unknown_unicast\""];
    wait_until("what is for others is withheld from it", Duration::from_secs(30), || {
        near.wait_for_ping("10.0.0.1", Duration::from_secs(20));
        near.pings("10.0.0.55", 1);
        (tramad.metric("trama_port_drops_total", &withheld) > 0).then_some(())
    });
    tramad.stop();
}
