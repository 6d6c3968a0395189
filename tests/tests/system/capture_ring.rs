//! Captures that begin with what the ring has of the time before: as it passed, each frame once.

use std::path::Path;

use rustix::process::Signal;
use trama_tests::{Host, Process, SOON, wait_until};

use crate::capture::{Lab, counts, fields};

/// A capture of all that the ring has, both ways.
const ALL: &str = "any -Q inout --drops --last 5m";

/// Two hosts on a network, and a ring that keeps what they send.
fn lab() -> Lab {
    let lab = Lab::new();
    set_ring(&lab, "capture-ring = \"8Mi\"");
    let file = lab.path("first.pcapng");
    wait_until("the ring keeps frames", SOON, || {
        lab.left.run("ping -c 1 10.1.0.2");
        capture(&lab, &format!("{ALL} icmp"), &file);
        (!fields(&file, &["frame.number"]).is_empty()).then_some(())
    });
    lab
}

fn set_ring(lab: &Lab, line: &str) {
    let text = lab.tramad.configuration();
    let text = text.lines().filter(|it| !it.starts_with("capture-ring"));
    let text = text.map(|it| format!("{it}\n")).collect::<String>();
    lab.tramad.write_configuration(&text.replace("[daemon]\n", &format!("[daemon]\n{line}\n")));
    lab.tramad.ctl("reload");
}

/// Captures into a file until it has begun; what was before is in there as a whole.
fn capture(lab: &Lab, words: &str, file: &Path) {
    let mut capture = lab.tcpdump(&format!("{words} -w {}", file.display()));
    assert!(capture.end(Signal::INT, SOON).success(), "{}", capture.log());
    let (captured, missed) = counts(&capture.log());
    assert_eq!((fields(file, &["frame.number"]).len() as u64, missed), (captured, 0));
    lab.wait_for_end_of_all();
}

#[test]
fn frames_of_before_come_first_with_their_ids_and_reasons() {
    let lab = lab();
    lab.left.run("ping -c 3 -s 100 10.1.0.2");
    lab.tramad.ctl("set Port left tag=10 -- set Port right tag=20");
    lab.left.try_run("ping -c 1 -W 1 -s 101 10.1.0.2");
    // Its frames are still there when it is gone.
    lab.tramad.ctl("del-port lab right");
    let file = lab.path("all.pcapng");
    capture(&lab, ALL, &file);
    let names = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.packet_id",
        "frame.len",
        "frame.comment",
        "icmp.type",
        "icmp.seq",
    ];
    let rows = fields(&file, &names);
    let requests = |port: &str, way: &str| -> Vec<[String; 2]> {
        let is_one = |row: &&Vec<String>| {
            row[0] == port && row[1] == way && row[3] == "142" && row[5] == "8"
        };
        rows.iter().filter(is_one).map(|row| [row[6].clone(), row[2].clone()]).collect()
    };
    let entered = requests("left", "0x00000001");
    let numbers: Vec<&str> = entered.iter().map(|[number, _]| number.as_str()).collect();
    assert_eq!(numbers, ["1", "2", "3"], "{rows:?}");
    assert_eq!(requests("right", "0x00000002"), entered, "{rows:?}");
    let dropped = rows.iter().find(|row| row[3] == "143").expect("the dropped one");
    assert!(dropped[4].starts_with("dropped at left: no_member: No other port"), "{dropped:?}");
    // The same words choose among them as later.
    capture(&lab, "left -Q out --last 5m icmp and less 142 and greater 142", &file);
    let rows = fields(&file, &["frame.packet_flags_direction", "icmp.type", "icmp.seq"]);
    let reply = |number: &str| ["0x00000002", "0", number].map(str::to_owned).to_vec();
    assert_eq!(rows, ["1", "2", "3"].map(reply));
    let mut one = lab.start_tcpdump("any --last 5m -c 2 icmp and less 142 and greater 142");
    assert!(wait_until("it ends with two of before", SOON, || one.status()).success());
    assert_eq!(counts(&one.log()), (2, 0));
    // Of a time that is over.
    capture(&lab, "left --last 0s icmp", &file);
    assert!(fields(&file, &["frame.number"]).is_empty());
}

#[test]
fn each_frame_is_there_once_at_the_seam() {
    const PINGS: u64 = 3000;
    let lab = lab();
    let mut ping = lab.left.command("ping");
    ping.args(["-q", "-i", "0.001", "-s", "200", "-c", &PINGS.to_string(), "10.1.0.2"]);
    let before = lab.tramad.statistic("left", "rx_packets");
    let mut ping = Process::spawn("ping", ping, &lab.path("ping"));
    let captures = [300, 900, 1500].map(|sent| {
        wait_until("pings are sent", SOON, || {
            (lab.tramad.statistic("left", "rx_packets") >= before + sent).then_some(())
        });
        let file = lab.path(&format!("{sent}.pcapng"));
        // Of this length only they are.
        let words =
            format!("lab --last 5m icmp and greater 242 and less 242 -w {}", file.display());
        (lab.tcpdump(&words), file)
    });
    assert!(ping.is_running(), "the captures begin in between");
    wait_until("all pings are sent", 2 * SOON, || ping.status());
    for (mut capture, file) in captures {
        assert!(capture.end(Signal::INT, SOON).success(), "{}", capture.log());
        assert_eq!(counts(&capture.log()).1, 0, "missed");
        let rows = fields(&file, &["icmp.type", "icmp.seq"]);
        let requests = rows.iter().filter(|row| row[0] == "8");
        let numbers: Vec<u64> = requests.map(|row| row[1].parse().expect("a number")).collect();
        assert_eq!(numbers, (1..=PINGS).collect::<Vec<_>>());
    }
}

#[test]
fn without_a_ring_nothing_of_before_is_shown() {
    let lab = Lab::new();
    let refused = |words: &[&str], message: &str| {
        let answer = lab.tramad.try_ctl(words);
        assert_eq!(answer.status, 1, "{words:?}: {}", answer.text);
        assert!(answer.text.contains(message), "{words:?}: {}", answer.text);
        assert_eq!(answer.text.lines().count(), 1, "{}", answer.text);
    };
    let last = |time| ["tcpdump", "left", "--last", time];
    refused(&last("30s"), "no earlier frames are kept; set capture-ring = \"8Mi\" in [daemon] of");
    set_ring(&lab, "capture-ring = \"64Ki\"");
    refused(&last("soon"), "--last soon: ");
    refused(&last("5 parsecs"), "write it as \"30s\", \"5m\" or \"90\"");
    set_ring(&lab, "");
    refused(&last("30s"), "no earlier frames are kept");
}
