//! A daemon is replaced on purpose: by an upgrade, or by a service manager's stop and start.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use trama_tests::tramad::OWN_PROGRAM;
use trama_tests::{Host, Netns, Pinging, SOON, Tramad, wait_until};

use crate::restart::{Transfer, lab, shown, with_guest};

/// How often a successor takes over.
const UPGRADES: usize = 10;
/// Ports of a host of some size.
const PORTS: usize = 100;
/// How long frames may wait in milliseconds, on a host that is busy with other tests.
const MOST: f64 = 500.0;

/// Prints the median and the worst of times in milliseconds, which must be of the right size.
fn print_times(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let worst = times.last().copied().unwrap_or_default();
    println!("{what}: frames waited, median {:.1} ms, worst {worst:.1} ms", times[times.len() / 2]);
    assert!(worst < MOST, "{times:?}");
}

#[test]
fn an_upgrade_is_not_noticed_by_hosts_on_taps() {
    let [left, right, bridged] = ["left", "right", "bridged"].map(Netns::new);
    let mut tramad = Tramad::start(&lab([&left, &right, &bridged]));
    left.run("ip addr add 10.7.7.7/32 dev eth0");
    left.wait_for_ping("10.1.0.2", SOON);
    let hosts = [&left, &right, &bridged];
    let before = hosts.map(shown);
    right.run("iperf3 -s -D");
    let transfer = Transfer::start(&left, "10.1.0.2", 8);

    let mut waits = Vec::new();
    for number in 0..UPGRADES {
        let pings = Pinging::start(&left, "10.1.0.2", 0.005);
        waits.push(tramad.upgrade(|tramad| match number % 2 {
            0 => tramad.signal_current(Signal::USR2),
            _ => assert!(tramad.ctl("upgrade").contains("tramad (trama)")),
        }));
        pings.stop_with_losses(0);
        assert_eq!(hosts.map(shown), before);
    }
    print_times("TAPs", waits);
    transfer.finish();
    tramad.signal_current(Signal::TERM);
    wait_until("the last one removes its devices", SOON, || {
        (!left.run("ip -o link").contains("eth0")).then_some(())
    });
}

#[test]
fn an_upgrade_is_not_noticed_by_a_guest() {
    let host = Netns::new("host");
    let (mut tramad, guest) = with_guest(&host);
    let link = || guest.run("cat /sys/class/net/eth0/carrier /sys/class/net/eth0/carrier_changes");
    let before = link();
    let transfer = Transfer::start(&host, "10.1.0.1", 8);
    let mut waits = Vec::new();
    for _ in 0..UPGRADES {
        let pings = Pinging::start(&host, "10.1.0.1", 0.005);
        waits.push(tramad.upgrade(|tramad| tramad.signal_current(Signal::USR2)));
        pings.stop_with_losses(0);
    }
    print_times("a guest", waits);
    transfer.finish();
    assert_eq!(link(), before, "the guest's link, and how often it has changed");
    assert!(tramad.log().contains("resumed the connection"), "{}", tramad.log());
    tramad.signal_current(Signal::TERM);
    wait_until("the last one removes its device", SOON, || {
        (!host.run("ip -o link").contains("eth0")).then_some(())
    });
}

fn tap_port(host: &Netns, number: usize) -> String {
    format!(
        "\n[[port]]\nname = \"port{number}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
         ifname = \"tap{number}\"\nnetns = \"{}\"\n",
        host.name()
    )
}

#[test]
fn a_hundred_ports_are_handed_over_at_once() {
    let host = Netns::new("host");
    let ports: String = (0..PORTS).map(|number| tap_port(&host, number)).collect();
    let mut tramad = Tramad::start(&format!("[[network]]\nname = \"lab\"\n{ports}"));
    let waits = (0..UPGRADES)
        .map(|_| tramad.upgrade(|tramad| tramad.signal_current(Signal::USR2)))
        .collect();
    print_times("100 ports", waits);
    tramad.signal_current(Signal::TERM);
    wait_until("the last one removes its devices", SOON, || {
        (!host.run("ip -o link").contains("tap0")).then_some(())
    });
}

#[test]
fn an_end_while_another_one_is_about_to_take_over_is_left_to_that_one() {
    let host = Netns::new("host");
    let ports: String = (0..PORTS).map(|number| tap_port(&host, number)).collect();
    let mut tramad = Tramad::start(&format!("[[network]]\nname = \"lab\"\n{ports}"));
    let devices = || host.run("ip -o link | cut -d: -f1,2");
    let before = devices();
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        tramad.end_during_take_over(signal);
        assert_eq!(devices(), before);
    }
    // As after any other take-over.
    tramad.kill_and_follow();
    tramad.start_again();
    assert_eq!(devices(), before);
    tramad.stop();
}

#[test]
fn what_is_changed_meanwhile_is_applied_as_a_difference() {
    let [left, right, third] = ["left", "right", "third"].map(Netns::new);
    let mut tramad = Tramad::start(&lab([&left, &right, &third]));
    let index = |host: &Netns| host.run("cat /sys/class/net/eth0/ifindex");
    let (unchanged, packets) = (index(&third), tramad.statistic("host3", "tx_packets"));
    let text = tramad.configuration().replace("10.1.0.1/24", "10.1.0.8/24");
    let (rest, _) = text.split_once("\n[[port]]\nname = \"host2\"").expect("a port");
    let (_, last) = text.rsplit_once("\n[[port]]").expect("a port");
    let more = "\n[[network]]\nname = \"more\"\n\n[[port]]\nname = \"new\"\n\
                network = \"more\"\ntype = \"vhost-user\"\npath = \"{dir}/new.sock\"\n";
    let dir = tramad.path("").display().to_string();
    let more = more.replace("{dir}", dir.trim_end_matches('/'));
    tramad.write_configuration(&format!("{rest}\n[[port]]{last}{more}"));
    tramad.upgrade(|tramad| tramad.signal_current(Signal::USR2));
    assert!(left.run("ip -4 -br addr show dev eth0").contains("10.1.0.8/24"));
    assert!(!right.run("ip -o link").contains("eth0"), "its port was removed");
    assert_eq!(index(&third), unchanged);
    assert!(tramad.path("new.sock").exists());
    assert!(tramad.statistic("host3", "tx_packets") >= packets);
    tramad.signal_current(Signal::TERM);
}

#[test]
fn a_successor_that_does_not_start_changes_nothing() {
    let hosts = ["left", "right", "third"].map(Netns::new);
    let [left, right, third] = &hosts;
    let mut tramad = Tramad::start_copy(&lab([left, right, third]));
    left.wait_for_ping("10.1.0.2", SOON);
    let before = shown(left);
    let program = tramad.path(OWN_PROGRAM);
    let good = tramad.path("good");
    std::fs::rename(&program, &good).expect("another name");

    let refused = tramad.try_ctl(&["upgrade"]);
    assert_eq!(refused.status, 1);
    assert!(refused.text.contains("cannot be started"), "{}", refused.text);
    std::os::unix::fs::symlink("/bin/false", &program).expect("another program");
    let refused = tramad.try_ctl(&["upgrade"]);
    assert_eq!(refused.status, 1);
    assert!(refused.text.contains("has ended (exit status: 1)"), "{}", refused.text);
    std::fs::remove_file(&program).expect("a link");
    let slow = "#!/bin/sh\nexec sleep 1000\n";
    std::fs::write(&program, slow).expect("another program");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("its mode");
    let refused = tramad.try_ctl(&["upgrade"]);
    assert_eq!(refused.status, 1);
    assert!(refused.text.contains("was not ready within 10 s"), "{}", refused.text);
    assert!(tramad.is_running());
    let pings = Pinging::start(left, "10.1.0.2", 0.01);
    pings.stop_with_losses(0);

    std::fs::rename(&good, &program).expect("the program");
    tramad.upgrade(|tramad| drop(tramad.ctl("upgrade")));
    assert_eq!(shown(left), before);
    tramad.signal_current(Signal::TERM);
}

/// Receives what the service manager is told, until it is ready; returns the main process that it
/// was told of last.
#[track_caller]
fn wait_for_ready(manager: &UnixDatagram) -> Option<u32> {
    manager.set_read_timeout(Some(SOON)).expect("a time limit");
    let (mut main, mut bytes) = (None, [0; 256]);
    loop {
        let length = manager.recv(&mut bytes).expect("a word of the daemon");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if let Some(process) = text.strip_prefix("MAINPID=") {
            main = process.parse().ok();
        }
        if text == "READY=1" {
            return main;
        }
    }
}

/// The options of a unit's command.
fn options(unit: &str) -> Vec<String> {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/tramad"));
    line.expect("a command").split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_service_is_restarted_unnoticed_and_stopped_for_good() {
    // The helper of a user's service is its child; the system's is tried with the package.
    let unit = include_str!("../../../packaging/trama-user.service");
    let options = options(unit);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    assert_eq!(options, ["--user", "--linger", "10"]);
    // The test says where files are.
    let options = &options[1..];
    let hosts = ["left", "right", "bridged"].map(Netns::new);
    let [left, right, bridged] = &hosts;
    let (mut tramad, manager) = Tramad::start_managed(&lab([left, right, bridged]));
    assert_eq!(wait_for_ready(&manager), None);
    // From here on with the unit's options.
    tramad.end_process(Signal::TERM);
    tramad.start_again_with(options);
    wait_for_ready(&manager);
    left.wait_for_ping("10.1.0.2", SOON);
    let before = hosts.each_ref().map(shown);
    right.run("iperf3 -s -D");
    let transfer = Transfer::start(left, "10.1.0.2", 8);
    for _ in 0..UPGRADES / 2 {
        let pings = Pinging::start(left, "10.1.0.2", 0.005);
        // A restart, as the manager does it.
        tramad.end_process(Signal::TERM);
        tramad.start_again_with(options);
        assert_eq!(wait_for_ready(&manager), Some(tramad.id()));
        pings.stop_with_losses(0);
        assert_eq!(hosts.each_ref().map(shown), before);
    }
    transfer.finish();
    // An upgrade: the manager follows the main process.
    tramad.upgrade(|tramad| tramad.signal_current(Signal::USR2));
    let main = wait_for_ready(&manager).expect("a main process");
    assert!(main != tramad.id());
    assert!(tramad.log().contains(&format!("started process {main},")));
    // A stop.
    tramad.signal_current(Signal::TERM);
    wait_until("another process goes on", SOON, || {
        tramad.log().contains(&format!("took over from process {main} ")).then_some(())
    });
    assert_eq!(hosts.each_ref().map(shown), before);
    wait_until("nothing is left", SOON + Duration::from_secs(10), || {
        (!left.run("ip -o link").contains("eth0")).then_some(())
    });
    tramad.wait_for_log("no tramad has taken over within 10 s", SOON);
    wait_until("no socket is left", SOON, || {
        (!tramad.path("control.sock.keeper").exists()).then_some(())
    });
    assert!(!tramad.path("control.sock").exists());
}
