//! What a switch has kept is not what it should be when the next one comes: that port is opened
//! anew and the log says why. The other ports go on with what they had.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::process::Signal;
use trama_keeper::{AttachError, Claim, Keeper, Kept};
use trama_test_kit::requests::*;
use trama_test_kit::{RawFrontend, SharedMemory, eventfd};
use trama_tests::{Host, Netns, SOON, Tramad};

use crate::restart::{lab, shown};

fn vhost_user(name: &str) -> String {
    format!(
        "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
         path = \"{{dir}}/{name}.sock\"\n"
    )
}

/// Three hosts on TAPs, and two vhost-user ports.
struct Lab {
    hosts: [Netns; 3],
    tramad: Tramad,
}

impl Lab {
    fn start() -> Lab {
        let hosts = ["left", "right", "bridged"].map(Netns::new);
        let [left, right, bridged] = &hosts;
        let ports = lab([left, right, bridged]) + &vhost_user("vm1") + &vhost_user("vm2");
        let tramad = Tramad::start(&ports);
        bridged.run("ip addr add 10.1.0.3/24 dev eth0");
        right.wait_for_ping("10.1.0.3", SOON);
        Lab { hosts, tramad }
    }

    /// Kills the daemon and its helper, so that no stand-in follows. `tamper` is the next switch,
    /// and ends; then the daemon is started again. Returns what that one has logged.
    #[track_caller]
    fn between(&mut self, tamper: impl FnOnce(&Keeper)) -> String {
        let before = self.tramad.log().len();
        self.tramad.member("trama:helper").kill();
        self.tramad.restart_after(Signal::KILL, |tramad| {
            let until = Instant::now() + SOON;
            let keeper = loop {
                let keeper = Keeper::find(&tramad.path("control.sock.keeper"));
                let keeper = keeper.expect("its socket").expect("a keeper");
                match keeper.attach(Claim::StandIn) {
                    Ok(_) => break keeper,
                    Err(AttachError::Busy { .. }) if Instant::now() < until => {}
                    Err(error) => panic!("{error}"),
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            tamper(&keeper);
            keeper.leave();
        });
        self.tramad.log()[before..].to_owned()
    }

    /// Replaces the descriptor of an entry by another one.
    #[track_caller]
    fn swap(&mut self, key: &str, fd: OwnedFd) -> String {
        self.between(|keeper| {
            let Kept { value, .. } = keeper.get(key).expect("an answer").expect(key);
            keeper.put(key, &value, &[fd.as_fd()]).expect("its place");
        })
    }

    fn key(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}", self.tramad.path(name).display())
    }

    fn tap(&self, host: usize) -> String {
        format!("tap/eth0/{}", self.hosts[host].name())
    }
}

fn memory(bytes: u64) -> OwnedFd {
    let memory = memfd_create("other", MemfdFlags::CLOEXEC).expect("memory");
    ftruncate(&memory, bytes).expect("its size");
    memory
}

#[track_caller]
fn assert_has(log: &str, text: &str) {
    assert!(log.contains(text), "no {text:?} in:\n{log}");
}

#[test]
fn descriptors_that_are_something_else_are_not_used() {
    let mut lab = Lab::start();
    let others = |lab: &Lab| [1, 2].map(|host: usize| shown(&lab.hosts[host]));
    let before = others(&lab);
    let tap = lab.tap(0);
    let anew = "eth0 is opened anew: what the last switch has kept is not used";

    let log = lab.swap(&tap, eventfd());
    assert_has(&log, anew);
    assert_has(&log, "it is not a TAP device");
    let log = lab.swap(&tap, UnixDatagram::unbound().expect("a socket").into());
    assert_has(&log, anew);

    let listen = lab.key("listen", "vm1.sock");
    let log = lab.swap(&listen, eventfd());
    assert_has(&log, "made anew");
    let log = lab.swap(&listen, UnixDatagram::unbound().expect("a socket").into());
    assert_has(&log, "does not listen there");
    RawFrontend::connect(&lab.tramad.path("vm1.sock")).negotiate();

    lab.swap("control", eventfd());
    lab.swap("metrics", eventfd());
    lab.tramad.metrics();
    for fd in [eventfd(), memory(0), memory(1 << 20)] {
        let log = lab.swap("counters", fd);
        assert_has(&log, "counters begin at zero");
    }
    for fd in [eventfd(), memory(0), memory(1 << 20)] {
        let log = lab.swap("macs/lab", fd);
        assert_has(&log, "network lab: begins to learn");
    }
    assert_eq!(others(&lab), before, "the other ports");
    lab.hosts[0].wait_for_ping("10.1.0.2", SOON);
    lab.hosts[1].wait_for_ping("10.1.0.3", SOON);
    lab.tramad.stop();
}

#[test]
fn torn_values_are_not_used() {
    let mut lab = Lab::start();
    let others = |lab: &Lab| [1, 2].map(|host: usize| shown(&lab.hosts[host]));
    let before = others(&lab);
    let keys = [lab.tap(0), lab.key("listen", "vm1.sock"), "macs/lab".into(), "counters".into()];
    // In `helper`, each place and each bit.
    for (cut, flipped) in
        [(0, None), (1, None), (3, None), (usize::MAX, Some(0)), (usize::MAX, Some(2))]
    {
        lab.between(|keeper| {
            for key in &keys {
                let Kept { mut value, fds } = keeper.get(key).expect("an answer").expect(key);
                value.truncate(cut);
                if let Some(byte) = flipped.and_then(|at: usize| value.get_mut(at)) {
                    *byte ^= 0x10;
                }
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                keeper.put(key, &value, &fds).expect("its place");
            }
            keeper.put("nonsense", b"\xff\xff\xff", &[]).expect("a place");
        });
        assert_eq!(others(&lab), before, "the other ports");
        lab.hosts[0].wait_for_ping("10.1.0.2", SOON);
        RawFrontend::connect(&lab.tramad.path("vm1.sock")).negotiate();
    }
    assert_has(&lab.tramad.log(), "nonsense of the last switch is not used any more");
    lab.tramad.stop();
}

#[test]
fn frontends_that_changed_meanwhile_are_disconnected_and_the_others_are_not() {
    let mut lab = Lab::start();
    let path = lab.tramad.path("vm1.sock");
    let other = RawFrontend::connect(&lab.tramad.path("vm2.sock"));
    let well = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
    other.share_memory(&well);
    let connect = || {
        let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
        let frontend = RawFrontend::connect(&path);
        frontend.share_memory(&memory);
        for ring in [0, 1] {
            frontend.describe_ring(ring, &memory, &eventfd());
            frontend.vring(SET_VRING_ENABLE, ring, 1);
        }
        (frontend, memory)
    };

    // It hangs up.
    let (frontend, _) = connect();
    let log = lab.between(|_| drop(frontend));
    assert!(!log.contains("panicked"), "{log}");
    // Its memory shrinks, to nothing and to less than its rings.
    for size in [0, 0x2000] {
        let (frontend, memory) = connect();
        let log = lab.between(|_| memory.file.set_len(size).expect("a smaller file"));
        assert!(frontend.is_closed(), "{log}");
        assert_has(&log, "vm1.sock");
        drop(frontend);
    }
    // An event where its memory should be, as a switch with other ideas has let it pass.
    let key = lab.key("frontend", "vm1.sock");
    let (own, theirs) = UnixStream::pair().expect("a pair");
    let frontend = RawFrontend::new(own);
    let log = lab.between(|keeper| {
        let stream = keeper.relay(&key, b"", theirs).expect("a relay");
        let switch = RawFrontend::new(stream);
        let table = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20).table();
        assert!(frontend.send(SET_OWNER, 1, &[], &[]));
        assert!(switch.reply().is_some());
        keeper.done(&key).expect("the keeper");
        assert!(frontend.send(SET_MEM_TABLE, 1, &table, &[eventfd().as_fd()]));
        assert!(switch.reply().is_some());
        keeper.done(&key).expect("the keeper");
    });
    assert!(frontend.is_closed(), "{log}");
    assert_has(&log, "SET_MEM_TABLE");

    assert!(other.get(GET_FEATURES, &[]) != 0, "the other one was not disconnected");
    connect();
    lab.hosts[0].wait_for_ping("10.1.0.2", SOON);
    lab.tramad.stop();
}
