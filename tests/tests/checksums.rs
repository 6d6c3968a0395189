//! Checksums at the receiver, as tcpdump there finds them, for senders and receivers with
//! different sets of offloads, in both directions.
//!
//! A receiver that offers to take unfinished checksums gets them unfinished, and tcpdump cannot
//! know; there the kernel's own count of bad segments is the judge. A receiver that does not
//! offer it must get every checksum finished, and there tcpdump judges each frame.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "nobody calls a test; one that cannot go on panics"
)]

use std::time::Duration;

use trama_tests::process::unique;
use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Tramad};

/// What a device may offer its driver: name, properties, whether it takes unfinished checksums.
const KINDS: [(&str, &str, bool); 5] = [
    ("everything", "", true),
    (
        "checksums-only",
        "gso=off,host_tso4=off,host_tso6=off,host_ecn=off,\
        guest_tso4=off,guest_tso6=off,guest_ecn=off",
        true,
    ),
    (
        "sends-large",
        "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
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

    // One guest for each kind, so that every pair is one of two running machines.
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
        // The guest's own stack must not join frames before tcpdump has seen their checksums.
        guest.run("ethtool -K eth0 gro off");
    }

    for (from, sender) in guests.iter().enumerate() {
        for (to, receiver) in guests.iter().enumerate() {
            if from == to {
                continue;
            }
            let what = format!("{} to {}", KINDS[from].0, KINDS[to].0);
            let address = format!("10.1.0.{}", to + 1);
            sender.wait_for_ping(&address, Duration::from_secs(20));
            check(&what, sender, receiver, "eth0", &address, KINDS[to].2);
        }
        // The TAP takes whatever the guest offers; the other way the host's stack sends it all.
        let what = format!("{} to the host", KINDS[from].0);
        check(&what, sender, &host, "host", "10.1.0.100", true);
        let what = format!("the host to {}", KINDS[from].0);
        check(&what, &host, sender, "eth0", &format!("10.1.0.{}", from + 1), KINDS[from].2);
    }
    tramad.stop();
}

fn mac(index: usize) -> String {
    format!("52:54:00:00:01:{:02x}", index + 1)
}

/// Sends TCP and UDP from one to the other and judges what arrived.
fn check<R: Host>(
    what: &str,
    sender: &dyn Host,
    receiver: &R,
    interface: &str,
    address: &str,
    takes_unfinished: bool,
) {
    let bad_before = bad_segments(receiver);
    let capture = receiver.capture(interface, "inbound and (tcp or udp)");
    let [tcp, udp] = [0, 1].map(|_| {
        // A server for each run: one that has just served refuses the next for a moment.
        let port = 5201 + u16::try_from(unique() % 10_000).unwrap_or_default();
        receiver.start_iperf_server_with(port, "-1");
        port
    });
    // Slow on purpose: an emulated guest decodes every frame.
    let bytes = sender.iperf_received(address, tcp, "-b 4M -t 1");
    assert!(bytes >= 50_000, "{what}: {bytes} bytes arrived");
    let report = sender.iperf(address, udp, "-u -b 2M -l 1000 -n 40K");
    assert_eq!(report["end"]["sum"]["lost_packets"].as_u64(), Some(0), "{what}: UDP");
    let seen = capture.stop();
    assert!(seen.frames > 40, "{what}: {} frames", seen.frames);

    assert_eq!(bad_segments(receiver), bad_before, "{what}: bad segments, says the kernel");
    if !takes_unfinished {
        assert_eq!(seen.wrong_checksums, 0, "{what}:\n{}", seen.excerpt);
        assert!(seen.correct_checksums > 40, "{what}: tcpdump judged nothing:\n{}", seen.excerpt);
    }
}

/// Segments and datagrams that the host's kernel has thrown away for their checksum.
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
