//! Checksums as tcpdump sees them at the receiver, for senders and receivers with different sets of
//! offloads, in both directions. These tests use real kernels and a TAP; `vhost-net/tests/offloads`
//! tests every combination of offloads.
//!
//! A receiver with checksum offload gets unfinished checksums, which tcpdump cannot judge; there
//! the kernel's count of bad segments decides. A receiver without it must get every checksum
//! finished, and tcpdump judges each frame.

use std::collections::BTreeSet;

use trama_tests::process::unique;
use trama_tests::{Capture, Guest, GuestOptions, Host, Netns, Nic, SOON, Tramad};

/// Kinds of devices: name, properties, whether the driver takes unfinished checksums.
const KINDS: [(&str, &str, bool); 5] = [
    ("everything", "", true),
    (
        "checksums-only",
        "gso=off,host_tso4=off,host_tso6=off,host_ecn=off,\
        guest_tso4=off,guest_tso6=off,guest_ecn=off",
        true,
    ),
    (
        // A legacy device (before virtio 1.0), with the short header.
        "sends-large",
        "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,\
        mrg_rxbuf=off,disable-modern=on",
        false,
    ),
    (
        "takes-large",
        "csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,\
        mrg_rxbuf=off",
        true,
    ),
    ("plain", Nic::PLAIN, false),
];

#[test]
fn every_checksum_is_right_at_the_receiver() {
    let host = Netns::new("host");
    let mut configuration = format!(
        "[[network]]\nname = \"lab\"\n\n[[port]]\nname = \"host\"\nnetwork = \"lab\"\n\
         type = \"tap\"\nifname = \"host\"\nnetns = \"{}\"\naddress = \"10.1.0.100/24\"\n",
        host.name()
    );
    for (name, ..) in KINDS {
        configuration += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\nrole = \"server\"\n"
        );
    }
    let tramad = Tramad::start(&configuration);

    // One guest for each kind, so that every pair consists of running machines.
    let nic = |index: usize| {
        let (name, properties, _) = KINDS[index];
        Nic::connecting(tramad.path(&format!("{name}.sock")), &mac(index)).with(properties)
    };
    let guests: Vec<Guest> = (0..KINDS.len())
        .map(|index| Guest::launch(&GuestOptions::new(KINDS[index].0, [nic(index)])))
        .collect();
    for (index, guest) in guests.iter().enumerate() {
        guest.wait_until_ready();
        guest.address(&format!("10.1.0.{}/24", index + 1));
        // GRO must not merge frames before tcpdump has seen their checksums.
        guest.run("ethtool -K eth0 gro off");
    }

    let mut ends: Vec<End<'_>> = guests
        .iter()
        .zip(KINDS)
        .zip(1..)
        .map(|((guest, (name, _, takes_unfinished)), number)| {
            let address = format!("10.1.0.{number}");
            End { name, host: guest, interface: "eth0", address, takes_unfinished }
        })
        .collect();
    // The TAP uses all offloads of the guest; in the other direction the host's stack does.
    let address = "10.1.0.100".to_owned();
    let (name, interface) = ("the host", "host");
    ends.push(End { name, host: &host, interface, address, takes_unfinished: true });
    for round in rounds(ends.len()) {
        std::thread::scope(|scope| {
            for (a, b) in round.map(|(a, b)| (&ends[a], &ends[b])) {
                scope.spawn(move || {
                    a.host.wait_for_ping(&b.address, SOON);
                    check(a, b);
                    check(b, a);
                });
            }
        });
    }
    tramad.stop();
}

/// One endpoint of an exchange.
struct End<'a> {
    name: &'a str,
    host: &'a (dyn Host + Sync),
    interface: &'a str,
    address: String,
    /// Whether it may receive unfinished checksums.
    takes_unfinished: bool,
}

/// Returns a round-robin schedule in which everyone plays once a round: the last one stays in
/// place, the others rotate. `players` is even.
fn rounds(players: usize) -> impl Iterator<Item = impl Iterator<Item = (usize, usize)>> {
    let table = players - 1;
    (0..table).map(move |round| {
        let seat = move |n: usize| (round + n) % table;
        let across = (1..players / 2).map(move |n| (seat(n), seat(table - n)));
        across.chain([(round, table)])
    })
}

fn mac(index: usize) -> String {
    format!("52:54:00:00:01:{:02x}", index + 1)
}

/// Sends TCP and UDP from one to the other and checks what arrived.
fn check(from: &End<'_>, to: &End<'_>) {
    let what = format!("{} to {}", from.name, to.name);
    let bad_before = bad_segments(to.host);
    let capture = Capture::start(to.host, to.interface, "inbound and (tcp or udp)");
    let [tcp, udp] = [0, 1].map(|_| {
        // A server for each run: one that has just served refuses the next run for a moment.
        let port = 5201 + u16::try_from(unique() % 10_000).unwrap_or_default();
        to.host.start_iperf_server_with(port, "-1");
        port
    });
    // Limited rate: an emulated guest decodes every frame.
    let bytes = from.host.iperf_received(&to.address, tcp, "-b 16M -n 400K");
    assert!(bytes >= 50_000, "{what}: {bytes} bytes arrived");
    let report = from.host.iperf(&to.address, udp, "-u -b 2M -l 1000 -n 40K");
    assert_eq!(report["end"]["sum"]["lost_packets"].as_u64(), Some(0), "{what}: UDP");
    let seen = capture.stop();
    assert!(seen.frames > 40, "{what}: {} frames", seen.frames);

    assert_eq!(bad_segments(to.host), bad_before, "{what}: bad segments, says the kernel");
    if !to.takes_unfinished {
        assert_eq!(seen.wrong_checksums, 0, "{what}:\n{}", seen.excerpt);
        assert!(seen.correct_checksums > 40, "{what}: tcpdump judged nothing:\n{}", seen.excerpt);
    }
}

/// Returns the kernel's counts of segments and datagrams with bad checksums.
fn bad_segments(host: &dyn Host) -> Vec<String> {
    let table = host.run("cat /proc/net/snmp");
    let mut found = Vec::new();
    for (heads, values) in table.lines().zip(table.lines().skip(1)) {
        let (heads, values) = (heads.split_whitespace(), values.split_whitespace());
        for (head, value) in heads.zip(values) {
            if head.ends_with("InCsumErrors") || head == "InHdrErrors" {
                found.push(format!("{head}={value}"));
            }
        }
    }
    assert!(found.len() >= 3, "no checksum counters in:\n{table}");
    found
}

#[test]
fn everyone_meets_everyone_once() {
    let mut pairs = BTreeSet::new();
    for round in rounds(6) {
        let round: Vec<_> = round.collect();
        let players: BTreeSet<_> = round.iter().flat_map(|(a, b)| [a, b]).collect();
        assert_eq!(players.len(), 6, "{round:?}");
        pairs.extend(round.into_iter().map(|(a, b)| (a.min(b), a.max(b))));
    }
    assert_eq!(pairs.len(), 6 * 5 / 2);
}
