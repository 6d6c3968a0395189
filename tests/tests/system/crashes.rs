//! The switch crashes: what one port has caused does not come back to all others again and again.

use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use trama_test_kit::requests::GET_FEATURES;
use trama_test_kit::{Card, RawFrontend, connect, frame, mac};
use trama_tests::{Netns, Pinging, SOON, Tramad, wait_until};
use trama_vhost_net_backend::features;
use vhost::VhostBackend;

use crate::restart::lab;

/// Seconds that stand for a minute.
const MINUTE: u64 = 10;
/// Frames by which two guests show that nothing is lost.
const FRAMES: u64 = 1000;
/// Of how many kills none is held against a port.
const KILLS: u32 = 10;

/// Three vhost-user ports on a network.
fn guests() -> String {
    let port = |name: &str| {
        format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\n"
        )
    };
    "[[network]]\nname = \"lab\"\n".to_owned() + &["left", "right", "bad"].map(port).concat()
}

/// Starts a daemon whose threads have a fault at the port `bad`: where, and what happens.
fn tramad(fault: &str) -> Tramad {
    let minute = MINUTE.to_string();
    let fault = format!("bad {fault}");
    Tramad::start_with(&[("TRAMA_FAULT", &fault), ("TRAMA_FAULT_MINUTE", &minute)], &guests())
}

fn plug(tramad: &Tramad, port: &str) -> Card {
    Card::plug(connect(&tramad.path(&format!("{port}.sock"))), features::ALL, 1)
}

/// Sends frames to and fro, one after the other; each must arrive before the next.
fn exchange(left: &mut Card, right: &mut Card) {
    for number in 0..FRAMES {
        let (from, to, ends) = match number % 2 {
            0 => (&mut *left, &mut *right, (mac(2), mac(1))),
            _ => (&mut *right, &mut *left, (mac(1), mac(2))),
        };
        let mut bytes = frame(ends.0, ends.1, 60);
        bytes[14..22].copy_from_slice(&number.to_be_bytes());
        from.send(0, &bytes);
        // Those of others come first.
        while to.receive()[..22] != bytes[..22] {}
    }
}

/// Waits until the port is left out, for this reason and time.
#[track_caller]
fn expect_left_out(tramad: &Tramad, reason: &str, seconds: u64) {
    let text =
        format!("port bad brought the switch down twice ({reason}); left out for {seconds} s");
    wait_until("the port is left out", SOON, || tramad.log().contains(&text).then_some(()));
    wait_until("a switch serves again", SOON, || {
        let shown = tramad.try_ctl(&["get", "Interface", "bad", "error"]);
        shown.text.contains(&text).then_some(())
    });
    assert!(tramad.ctl("show").contains(&text), "{}", tramad.ctl("show"));
    assert_eq!(tramad.metric("trama_port_left_out", &["port=\"bad\""]), 1);
    assert!(UnixStream::connect(tramad.path("bad.sock")).is_err(), "its socket is there");
}

/// How often a switch has followed another, by the reason.
fn restarts(tramad: &Tramad, reason: &str) -> u64 {
    tramad.metric("trama_switch_restarts_total", &[&format!("reason=\"{reason}\"")])
}

/// A frame of a guest makes the worker crash, so the next one as well, which finds it again.
fn a_frame_that_crashes(what: &str, signal: &str) {
    let mut tramad = tramad(&format!("transmit {what}"));
    let [mut left, mut right, mut bad] = ["left", "right", "bad"].map(|port| plug(&tramad, port));
    exchange(&mut left, &mut right);
    let crash = |bad: &mut Card| bad.send(0, &frame(mac(1), mac(3), 60));
    crash(&mut bad);
    let reason = format!("{signal} while its transmit queue was served");
    expect_left_out(&tramad, &reason, MINUTE);
    assert!(bad.frontend.get_features().is_err(), "its connection is open");
    assert_eq!(restarts(&tramad, "crash"), 2);
    exchange(&mut left, &mut right);

    // It is tried again, and crashes again.
    let mut bad = plug(&tramad, "bad");
    assert_eq!(tramad.metric("trama_port_left_out", &[]), 0);
    crash(&mut bad);
    expect_left_out(&tramad, &reason, 2 * MINUTE);
    exchange(&mut left, &mut right);

    // Made anew by a user, it begins again. The others were never disturbed.
    tramad.ctl("del-port lab bad");
    let path = tramad.path("bad.sock");
    let options = format!("type=vhost-user options:path={}", path.display());
    tramad.ctl(&format!("add-port lab bad -- set Interface bad {options}"));
    plug(&tramad, "bad");
    assert_eq!(tramad.metric("trama_port_left_out", &[]), 0);
    exchange(&mut left, &mut right);
    // The fourth one: two for each time.
    tramad.wait_for_stand_in(3);
    tramad.signal_current(Signal::TERM);
}

#[test]
fn a_port_whose_frames_make_the_switch_fault_is_left_out() {
    a_frame_that_crashes("segv", "SIGSEGV");
}

#[test]
fn a_port_whose_frames_make_the_switch_panic_is_left_out() {
    a_frame_that_crashes("panic", "SIGABRT");
}

#[test]
fn a_port_whose_requests_make_the_switch_crash_is_left_out() {
    let mut tramad = tramad("request segv");
    let [mut left, mut right] = ["left", "right"].map(|port| plug(&tramad, port));
    let bad = RawFrontend::connect(&tramad.path("bad.sock"));
    bad.send(GET_FEATURES, 1, &[], &[]);
    let reason = "SIGSEGV while a request of its frontend was carried out";
    expect_left_out(&tramad, reason, MINUTE);
    assert!(bad.is_closed());
    exchange(&mut left, &mut right);
    tramad.wait_for_stand_in(1);
    tramad.signal_current(Signal::TERM);
}

#[test]
fn a_port_whose_frames_stop_the_worker_is_left_out() {
    let minute = (6 * MINUTE).to_string();
    let variables = [
        ("TRAMA_FAULT", "bad transmit hang"),
        ("TRAMA_FAULT_MINUTE", &minute),
        ("WATCHDOG_USEC", "1000000"),
    ];
    let (mut tramad, _manager) = Tramad::start_managed_with(&variables, &guests());
    let [mut left, mut right, mut bad] = ["left", "right", "bad"].map(|port| plug(&tramad, port));
    exchange(&mut left, &mut right);
    bad.send(0, &frame(mac(1), mac(3), 60));
    for hang in 1..=2 {
        // What the service manager does: it ends the daemon, and starts it again.
        wait_until("the watchdog notices", SOON, || {
            (tramad.log().matches("worker0 does not answer").count() == hang).then_some(())
        });
        tramad.end_and_follow(Signal::ABORT);
        if hang == 1 {
            tramad.begin_again();
        }
    }
    let reason = "a worker stood still while its transmit queue was served";
    expect_left_out(&tramad, reason, 6 * MINUTE);
    exchange(&mut left, &mut right);
    tramad.signal_current(Signal::TERM);
}

#[test]
fn kills_are_held_against_no_port() {
    let hosts = ["left", "right", "third"].map(Netns::new);
    let [left, right, third] = &hosts;
    let mut tramad = Tramad::start(&lab([left, right, third]));
    let pings = Pinging::start(left, "10.1.0.2", 0.005);
    for _ in 0..KILLS {
        tramad.kill_and_follow();
    }
    // A pause of seconds loses some: the third of several quick ends is not followed at once.
    pings.stop_with_losses(u32::MAX);
    assert_eq!((restarts(&tramad, "killed"), restarts(&tramad, "crash")), (u64::from(KILLS), 0));
    assert_eq!(tramad.metric("trama_port_left_out", &[]), 0);
    assert!(!tramad.log().contains("left out"), "{}", tramad.log());
    // What is known lives on over an upgrade.
    tramad.upgrade(|tramad| tramad.signal_current(Signal::USR2));
    assert_eq!((restarts(&tramad, "killed"), restarts(&tramad, "upgrade")), (u64::from(KILLS), 1));
    tramad.signal_current(Signal::TERM);
}

#[test]
fn three_crashes_for_no_port_start_cold_once() {
    let mut tramad = Tramad::start(&guests());
    let left = plug(&tramad, "left");
    let colds = |tramad: &Tramad| tramad.log().matches("nothing is kept").count();
    for crashes in 1..=3 {
        assert_eq!(colds(&tramad), 0);
        assert!(left.frontend.get_features().is_ok(), "it was disconnected");
        tramad.end_and_follow(Signal::SEGV);
        assert_eq!(restarts(&tramad, "crash"), crashes);
    }
    assert_eq!(colds(&tramad), 1);
    assert!(left.frontend.get_features().is_err(), "its connection was kept");
    // From then on everything is kept again.
    let [mut left, mut right] = ["left", "right"].map(|port| plug(&tramad, port));
    tramad.end_and_follow(Signal::SEGV);
    assert_eq!(colds(&tramad), 1);
    exchange(&mut left, &mut right);
    tramad.signal_current(Signal::TERM);
}
