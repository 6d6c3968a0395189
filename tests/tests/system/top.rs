//! `tramactl top` as text: its rates are those of the counters, and it goes on when the daemon is
//! restarted.

use rustix::process::Signal;
use trama_tests::process::tied_command;
use trama_tests::tramad::binary;
use trama_tests::{Host, Netns, Process, SOON, Tramad};

/// Two hosts on a network.
fn lab() -> (Netns, Netns, Tramad) {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let mut configuration = "[[network]]\nname = \"lab\"\n".to_owned();
    for (name, netns, number) in [("left", &left, 1), ("right", &right, 2)] {
        configuration += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
             ifname = \"{name}\"\nnetns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            netns.name()
        );
    }
    let tramad = Tramad::start(&configuration);
    left.wait_for_ping("10.1.0.2", SOON);
    (left, right, tramad)
}

/// Starts `tramactl top`.
fn top(tramad: &Tramad, words: &str, dir: &tempfile::TempDir) -> Process {
    let mut command = tied_command(binary("tramactl"));
    command.arg("--socket").arg(tramad.path("control.sock")).arg("top");
    command.args(words.split_whitespace());
    Process::spawn("top", command, &dir.path().join("log"))
}

/// The thousands of frames a second that left's line of each table has received from it.
fn rates(log: &str) -> Vec<f64> {
    let rows = log.lines().filter(|line| line.starts_with("left "));
    rows.map(|row| row.split_whitespace().nth(5).and_then(|it| it.parse().ok()).expect(row))
        .collect()
}

#[test]
fn rates_are_what_the_counters_gained() {
    let (left, _right, tramad) = lab();
    let dir = tempfile::tempdir().expect("folder");
    let before = tramad.statistic("left", "rx_packets");
    let mut shown = top(&tramad, "lab -b -n 2 -d 0.5 -s name", &dir);
    while shown.is_running() {
        left.run("ping -q -c 50 -i 0.002 10.1.0.2");
    }
    let gained = tramad.statistic("left", "rx_packets") - before;
    let log = shown.log();
    let rates = rates(&log);
    assert_eq!(rates.len(), 2, "{log}");
    // Each interval is half a second or more, and each rate is rounded by 5 frames.
    let frames: f64 = rates.iter().map(|rate| (rate * 1000.0 - 5.0) * 0.5).sum();
    assert!(frames > 0.0 && frames <= gained as f64, "{frames} of {gained}: {log}");
    let order: Vec<_> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(order, ["port", "left", "right", "workers", "", "port", "left", "right", "workers"]);
}

#[test]
fn it_goes_on_with_the_next_daemon() {
    let (_left, _right, mut tramad) = lab();
    let dir = tempfile::tempdir().expect("folder");
    let mut shown = top(&tramad, "-b -d 0.1", &dir);
    shown.wait_for_log("workers busy", SOON);
    tramad.restart(Signal::TERM);
    shown.wait_for_log("tramad was restarted: process", SOON);
    let tables = || shown.log().matches("workers busy").count();
    let so_far = tables();
    trama_tests::wait_until("more tables", SOON, || (tables() > so_far + 1).then_some(()));
    assert_eq!(shown.end(Signal::TERM, SOON).code(), None, "ended by the signal: {}", shown.log());
}
