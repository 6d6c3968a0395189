//! The daemon's other processes are killed, alone and together with it, at any moment: what can go
//! on goes on, and otherwise the next start works at once and nothing is left.
//!
//! `TRAMA_KILLS` is the number of rounds of the random kills; if it is not set, there are 12.
//! `TRAMA_SEED` repeats an earlier run.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, kill_process};
use trama_test_kit::RawFrontend;
use trama_test_kit::requests::GET_FEATURES;
use trama_tests::sim::rng::Rng;
use trama_tests::tramad::binary;
use trama_tests::{Host, Netns, Pinging, SOON, Tramad, wait_until};

use crate::restart::{lab, shown};

const KEEPER: &str = "trama:keeper";
const HELPER: &str = "trama:helper";
const NEW_KEEPER: &str = "a new one has all that this process has";

fn hosts() -> [Netns; 3] {
    ["left", "right", "bridged"].map(Netns::new)
}

fn start(hosts: &[Netns; 3], more: &str) -> Tramad {
    let [left, right, bridged] = hosts;
    let tramad = Tramad::start(&(lab([left, right, bridged]) + more));
    left.run("ip addr add 10.7.7.7/32 dev eth0");
    right.run("ip route add 10.7.7.7/32 dev eth0");
    left.wait_for_ping("10.1.0.2", SOON);
    tramad
}

const GUEST: &str = "\n[[port]]\nname = \"vm\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
                     path = \"{dir}/vm.sock\"\n";

/// Stops the daemon, which must leave nothing.
#[track_caller]
fn stop(tramad: Tramad, hosts: &[Netns; 3]) {
    tramad.stop_and_look(|dir| {
        wait_until("no process is left", SOON, || {
            trama_tests::family::of(dir).is_empty().then_some(())
        });
        let names = std::fs::read_dir(dir).expect("a folder").flatten();
        let names = names.map(|file| file.file_name().into_string().expect("a name"));
        let left: Vec<_> = names.filter(|name| name.contains("control.sock")).collect();
        assert!(left.is_empty(), "{left:?}");
    });
    for host in hosts {
        assert!(!host.run("ip -o link").contains("eth0"), "a device is left");
    }
}

#[test]
fn a_keeper_that_is_killed_is_replaced() {
    let hosts = hosts();
    let [left, right, _] = &hosts;
    let mut tramad = start(&hosts, GUEST);
    let path = tramad.path("vm.sock");
    let mut frontend = RawFrontend::connect(&path);
    frontend.negotiate();
    let before = hosts.each_ref().map(shown);
    for round in 1..=3 {
        let pings = Pinging::start(left, "10.1.0.2", 0.005);
        let keeper = tramad.member(KEEPER);
        keeper.kill();
        wait_until("there is a new one", SOON, || {
            (tramad.log().matches(NEW_KEEPER).count() == round).then_some(())
        });
        assert_ne!(tramad.member(KEEPER).process, keeper.process);
        pings.stop_with_losses(0);
        assert!(frontend.is_closed(), "its connection went with the keeper");
        frontend = RawFrontend::connect(&path);
        frontend.negotiate();
        let packets = tramad.statistic("host2", "rx_packets");
        // The new keeper has all: a stand-in goes on with it.
        tramad.kill_and_follow();
        assert!(frontend.get(GET_FEATURES, &[]) != 0);
        assert_eq!(hosts.each_ref().map(shown), before);
        right.wait_for_ping("10.7.7.7", SOON);
        assert!(tramad.statistic("host2", "rx_packets") >= packets);
        tramad.start_again();
    }
    stop(tramad, &hosts);
}

#[test]
fn a_helper_that_is_killed_is_replaced_by_a_take_over() {
    let hosts = hosts();
    let [left, right, _] = &hosts;
    let mut tramad = start(&hosts, "");
    let before = hosts.each_ref().map(shown);
    let pings = Pinging::start(left, "10.1.0.2", 0.005);
    tramad.member(HELPER).kill();
    tramad.wait_for_log("the helper has ended", SOON);
    let add = ["add-port", "lab", "more", "--", "set", "Interface", "more", "type=tap"];
    for command in [&add[..], &["upgrade"]] {
        let refused = tramad.try_ctl(command);
        assert!(refused.text.contains("tramad --take-over replaces it"), "{}", refused.text);
    }
    tramad.take_over();
    pings.stop_with_losses(0);
    assert_eq!(hosts.each_ref().map(shown), before);
    // The new one has a helper, which starts a stand-in.
    tramad.kill_and_follow();
    right.wait_for_ping("10.7.7.7", SOON);
    tramad.start_again();

    // With the daemon: no stand-in follows, but the next start goes on with everything.
    tramad.member(HELPER).kill();
    tramad.restart(Signal::KILL);
    assert_eq!(hosts.each_ref().map(shown), before);
    left.wait_for_ping("10.1.0.2", SOON);
    stop(tramad, &hosts);
}

#[test]
fn from_a_switch_that_is_all_that_is_left_none_can_take_over() {
    let hosts = hosts();
    let mut tramad = start(&hosts, "");
    [HELPER, KEEPER].map(|name| tramad.member(name)).iter().for_each(trama_tests::Member::kill);
    tramad.wait_for_log("the helper has ended", SOON);
    for options in [&["--take-over"][..], &[]] {
        let refused = tramad.start_another(options);
        assert!(refused.contains("whose keeper has ended"), "{refused}");
    }
    hosts[0].wait_for_ping("10.1.0.2", SOON);
    tramad.restart(Signal::KILL);
    stop(tramad, &hosts);
}

/// The process that goes on for a while is killed: the one that stands in goes on no longer.
#[test]
fn what_lingers_ends_even_if_it_is_killed_meanwhile() {
    let hosts = hosts();
    let mut tramad = start(&hosts, "");
    tramad.end_process(Signal::TERM);
    tramad.start_again_with(&["--linger", "2"]);
    tramad.upgrade(|tramad| tramad.signal(Signal::TERM));
    tramad.kill_and_follow();
    wait_until("the stand-in ends, too", SOON, || {
        tramad.log().contains("no tramad has taken over within 2 s; ends").then_some(())
    });
    wait_until("the devices are gone", SOON, || {
        (!hosts.iter().any(|host| host.run("ip -o link").contains("eth0"))).then_some(())
    });
}

#[test]
fn a_file_with_faults_costs_nothing_when_the_switch_is_killed() {
    let hosts = hosts();
    let [left, right, _] = &hosts;
    let mut tramad = start(&hosts, "");
    tramad.ctl("add-br later");
    let (file, before) = (tramad.path("trama.toml"), hosts.each_ref().map(shown));
    let good = std::fs::read_to_string(&file).expect("a configuration");
    let pings = Pinging::start(left, "10.1.0.2", 0.005);
    for faulty in ["garbage = [", "[[network]]\nname = \"lab\"\nmtu = 1\n"] {
        std::fs::write(&file, faulty).expect("write");
        tramad.kill_and_follow();
        assert_eq!(hosts.each_ref().map(shown), before);
        assert!(tramad.ctl("list-br").contains("later"), "what was saved meanwhile");
        let refused = tramad.try_ctl(&["add-br", "more"]);
        assert!(refused.text.contains("fix it first"), "{}", refused.text);
    }
    pings.stop_with_losses(2);
    assert!(tramad.log().contains("goes on with the configuration that was in force"));
    std::fs::write(&file, good + "\n[[network]]\nname = \"last\"\n").expect("write");
    tramad.ctl("reload");
    assert!(tramad.ctl("list-br").contains("last"));
    right.wait_for_ping("10.7.7.7", SOON);
    tramad.start_again();
    stop(tramad, &hosts);
}

/// A user may start a switch before the helper of the one that was killed starts a stand-in.
#[test]
fn a_stand_in_that_comes_late_leaves_the_place_whatever_the_file_says() {
    let hosts = hosts();
    let tramad = start(&hosts, "");
    let (file, control) = (tramad.path("late.toml"), tramad.path("control.sock"));
    let good = std::fs::read_to_string(tramad.path("trama.toml")).expect("a configuration");
    let goes_on = format!("process {} goes on; ends", tramad.member("tramad").process);
    for text in [&good, "garbage = ["] {
        std::fs::write(&file, text).expect("write");
        let flags = SocketFlags::CLOEXEC;
        let (helper, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
        let mut command = Command::new(binary("tramad"));
        command.arg("--config").arg(&file).args(["stand-in", "--after", "1", "--control"]);
        let command = command.arg(&control).stdin(Stdio::from(theirs)).stderr(Stdio::piped());
        let late = command.spawn().expect("run tramad");
        let told = rustix::io::read(&helper, &mut [0; 64]).expect("its last word");
        drop(helper);
        let output = late.wait_with_output().expect("its end");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(told > 0 && output.status.success() && log.contains(&goes_on), "{log}");
    }
    stop(tramad, &hosts);
}

#[test]
fn without_its_keeper_the_next_start_is_a_cold_one() {
    let hosts = hosts();
    let [left, ..] = &hosts;
    let mut tramad = start(&hosts, "");
    for also in [&[][..], &[HELPER]] {
        let keeper = tramad.member(KEEPER);
        // First the helper, which would start a stand-in.
        also.iter().for_each(|it| tramad.member(it).kill());
        tramad.signal(Signal::KILL);
        keeper.kill();
        tramad.start_again();
        left.wait_for_ping("10.1.0.2", SOON);
    }
    // And what follows is none.
    let before = hosts.each_ref().map(shown);
    tramad.kill_and_follow();
    tramad.start_again();
    assert_eq!(hosts.each_ref().map(shown), before);
    stop(tramad, &hosts);
}

/// Ends stand-ins that have started before their helper and their keeper were killed.
fn end_stand_ins(tramad: &Tramad) {
    wait_until("no stand-in is left", SOON, || {
        let switches = tramad.members().into_iter().filter(|member| member.name == "tramad");
        let ended: Vec<_> = switches.map(|it| kill_process(it.process, Signal::TERM)).collect();
        ended.is_empty().then_some(())
    });
}

#[test]
fn kills_at_any_moment_are_followed_by_a_start_that_works() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rounds = number("TRAMA_KILLS").unwrap_or(12);
    let seed = number("TRAMA_SEED").unwrap_or_else(|| std::process::id().into());
    println!("TRAMA_SEED={seed}");
    let mut random = Rng::new(seed);
    let hosts = hosts();
    let [left, ..] = &hosts;
    let mut tramad = start(&hosts, "");
    for round in 0..rounds {
        // Each is killed once or not at all, within some milliseconds: a stand-in may just build.
        let mut victims = Vec::new();
        for name in [KEEPER, HELPER, "tramad", "tramad"] {
            if random.below(2) == 0 {
                victims.push((random.below(40) as u64, name));
            }
        }
        victims.sort();
        let mut past = 0;
        for (at, name) in &victims {
            std::thread::sleep(Duration::from_millis(at - past));
            past = *at;
            let found = tramad.members().into_iter().find(|member| member.name == *name);
            found.iter().for_each(trama_tests::Member::kill);
        }
        println!("round {round}: {victims:?}");
        let is_killed = |wanted| victims.iter().any(|(_, name)| *name == wanted);
        // Nothing can take over from one that has neither.
        match (is_killed("tramad"), is_killed(KEEPER) && is_killed(HELPER)) {
            (true, true) => {
                end_stand_ins(&tramad);
                tramad.start_again();
            }
            (true, false) => tramad.start_again(),
            (false, true) => tramad.restart(Signal::TERM),
            (false, false) => tramad.take_over(),
        }
        left.wait_for_ping("10.1.0.2", SOON);
        for name in ["tramad", KEEPER, HELPER] {
            tramad.member(name);
        }
    }
    stop(tramad, &hosts);
}
