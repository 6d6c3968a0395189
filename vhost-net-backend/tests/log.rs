//! The dirty log of a frontend that migrates its guest: what a session makes of it.
#![cfg(test)]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use trama_test_kit::requests::*;
use trama_test_kit::{MockRings, RawFrontend, SharedMemory, TestKeeper, eventfd, eventually};
use trama_vhost_net_backend::features::{self, LOG_ALL};
use trama_vhost_net_backend::{Role, Session, SessionOptions, SessionState};

/// VHOST_VRING_F_LOG, in the flags of SET_VRING_ADDR.
const RING_LOGS: u64 = 1;
/// Bytes of guest memory, and of its log.
const MEMORY: u64 = 1 << 20;
const LOG: u64 = MEMORY / 4096 / 8;

struct Setting {
    keeper: Arc<TestKeeper>,
    memory: SharedMemory,
    log: SharedMemory,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

struct Switch {
    session: Session,
    rings: MockRings,
    end: Box<dyn FnOnce()>,
}

impl Setting {
    fn new() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let memory = SharedMemory::new(0, 0x7f00_0000_0000, MEMORY);
        let log = SharedMemory::new(0, 0, LOG);
        let path = dir.path().join("port.sock");
        Setting { keeper: Arc::default(), memory, log, path, _dir: dir }
    }

    fn switch(&self) -> Switch {
        let kept = self.keeper.attach();
        let mut options = SessionOptions::new(&self.path, Role::Server);
        options.keeper = Some(kept.clone());
        let rings = MockRings::new();
        let session = Session::spawn(options, rings.clone()).unwrap();
        Switch { session, rings, end: Box::new(move || kept.die()) }
    }

    /// Connects and starts both rings.
    fn frontend(&self) -> RawFrontend {
        let frontend = RawFrontend::connect(&self.path);
        frontend.share_memory(&self.memory);
        for ring in [0, 1] {
            frontend.describe_ring(ring, &self.memory, &eventfd());
            frontend.vring(SET_VRING_ENABLE, ring, 1);
        }
        frontend
    }

    /// Sets a ring's addresses; those of used rings in the log are 1 MiB apart from the guest's.
    fn log_ring(&self, frontend: &RawFrontend, ring: u32) {
        let mut body = self.memory.ring(ring);
        body[4..8].copy_from_slice(&(RING_LOGS as u32).to_ne_bytes());
        body[32..].copy_from_slice(&log_address(ring).to_ne_bytes());
        frontend.send_acknowledged(SET_VRING_ADDR, &body, &[]);
    }
}

impl Switch {
    /// The address in the log of each running ring; the outer `None` if it does not log.
    fn logged(&self) -> Vec<Option<Option<u64>>> {
        let recorded = self.rings.recorded();
        let log =
            |(setup, _): &(trama_virtqueue::RingSetup, _)| setup.log.as_ref().map(|log| log.used);
        recorded.running.values().map(log).collect()
    }

    fn error(&self) -> String {
        eventually("the connection ends", || {
            self.session.status().state == SessionState::Listening
        });
        self.session.status().last_error.expect("a reason is kept")
    }

    fn die(self) {
        (self.end)();
        drop(self.session);
    }
}

fn log_address(ring: u32) -> u64 {
    0x2000 + 0x4000 * u64::from(ring)
}

fn set_features(frontend: &RawFrontend, logs: bool) {
    let features = features::offered(features::ALL, 1, false);
    let features = if logs { features } else { features & !LOG_ALL };
    frontend.send_acknowledged(SET_FEATURES, &features.to_ne_bytes(), &[]);
}

/// Both rings log, to the addresses that the frontend has given.
fn both() -> Vec<Option<Option<u64>>> {
    [0, 1].map(|ring| Some(Some(log_address(ring)))).to_vec()
}

#[test]
fn rings_log_from_the_features_on_as_qemu_sets_them() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    assert_eq!(switch.logged(), [None, None]);
    switch.rings.log();
    frontend.share_log(&setting.log);
    assert_eq!(switch.rings.log(), [""; 0], "rings that do not log yet run on");
    set_features(&frontend, true);
    assert_eq!(switch.logged(), [Some(None), Some(None)], "at the used rings' own addresses");
    [0, 1].iter().for_each(|ring| setting.log_ring(&frontend, *ring));
    assert_eq!(switch.logged(), both());
    // Another log, as when memory is plugged in: no ring has the old one after the answer.
    let other = SharedMemory::new(0, 0, LOG + 8);
    switch.rings.log();
    frontend.share_log(&other);
    assert_eq!(switch.rings.log().join(", "), "stop 0, stop 1, start 0 at 0, start 1 at 0");
    assert_eq!(switch.logged(), both());
    // The migration was cancelled.
    set_features(&frontend, false);
    assert_eq!(switch.logged(), [None, None]);
}

#[test]
fn a_ring_that_is_to_log_waits_for_its_log() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    set_features(&frontend, true);
    assert!(switch.rings.running().is_empty());
    // As of a driver whose VMM acknowledges whatever is offered.
    let first_kick = eventfd();
    frontend.describe_ring(0, &setting.memory, &first_kick);
    rustix::io::write(&first_kick, &1u64.to_ne_bytes()).unwrap();
    eventually("the wait is named", || switch.session.status().last_error.is_some());
    let warning = switch.session.status().last_error.unwrap();
    assert!(warning.contains("has shared no dirty log"), "{warning}");
    frontend.share_log(&setting.log);
    assert_eq!(switch.logged(), [Some(None), Some(None)]);
    // QEMU frees the log of a device that it stops, and sends another before it starts it again.
    assert_eq!((frontend.base(0), frontend.base(1)), (0, 0));
    for ring in [0, 1] {
        frontend.describe_ring(ring, &setting.memory, &eventfd());
    }
    assert!(switch.rings.running().is_empty());
    frontend.share_log(&setting.log);
    assert_eq!(switch.rings.running(), [0, 1]);
}

#[test]
fn a_log_that_cannot_serve_ends_the_connection_with_the_reason() {
    let setting = Setting::new();
    let (memory, event) = (SharedMemory::new(0, 0, LOG), eventfd());
    let more = SharedMemory::new(MEMORY, 0x7e00_0000_0000, MEMORY);
    type Act<'a> = &'a dyn Fn(&RawFrontend) -> bool;
    let log = |frontend: &RawFrontend, words_: &[u64]| {
        frontend.send(SET_LOG_BASE, 1, &words(words_), &[memory.file.as_fd()])
    };
    let cases: [(Act, &str); 7] = [
        (&|p| log(p, &[LOG - 1, 0]), "has 31 bytes, but the guest's memory needs 32"),
        (&|p| log(p, &[LOG, 8]), "needs 40 bytes of its file, which has 32"),
        (&|p| log(p, &[0, 0]), "malformed"),
        (&|p| log(p, &[u64::MAX, 1]), "malformed"),
        (&|p| log(p, &[1 << 63, 1]), "cannot be mapped"),
        (&|p| p.send(SET_LOG_BASE, 1, &words(&[LOG, 0]), &[event.as_fd()]), "not of shared memory"),
        (
            &|p| {
                p.share_log(&setting.log);
                p.send(ADD_MEM_REG, 1, &more.single(), &[more.file.as_fd()])
            },
            "has 32 bytes, but the guest's memory needs 64",
        ),
    ];
    let switch = setting.switch();
    for (act, expected) in cases {
        let frontend = setting.frontend();
        assert!(act(&frontend));
        assert!(frontend.is_closed(), "{expected}");
        let error = switch.error();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

#[test]
fn logging_needs_the_protocol_feature_by_which_the_log_is_shared() {
    const LOG_SHMFD: u64 = 1 << 1;
    let setting = Setting::new();
    let switch = setting.switch();
    let connect = || {
        let frontend = RawFrontend::connect(&setting.path);
        let features = frontend.get(GET_FEATURES, &[]);
        assert!(features & LOG_ALL != 0);
        let protocol = frontend.get(GET_PROTOCOL_FEATURES, &[]);
        assert!(protocol & LOG_SHMFD != 0);
        let protocol = (protocol & !LOG_SHMFD).to_ne_bytes();
        assert!(frontend.send(SET_PROTOCOL_FEATURES, 1, &protocol, &[]));
        frontend
    };
    // It takes whatever is offered, and never shares a log.
    let frontend = connect();
    set_features(&frontend, true);
    frontend.send_acknowledged(
        SET_MEM_TABLE,
        &setting.memory.table(),
        &[setting.memory.file.as_fd()],
    );
    frontend.describe_ring(0, &setting.memory, &eventfd());
    frontend.vring(SET_VRING_ENABLE, 0, 1);
    assert_eq!(switch.logged(), [None]);
    let body = words(&[LOG, 0]);
    assert!(frontend.send(SET_LOG_BASE, 1, &body, &[setting.log.file.as_fd()]));
    assert!(frontend.is_closed());
    assert!(switch.error().contains("LOG_SHMFD"));
}

#[test]
fn a_guest_that_has_arrived_is_announced() {
    const RARP: u64 = 1 << 2;
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    assert!(frontend.get(GET_PROTOCOL_FEATURES, &[]) & RARP != 0);
    switch.rings.log();
    let address = [0x52, 0x54, 0, 0, 0, 1];
    frontend.send_acknowledged(SEND_RARP, &[&address[..], &[0, 0]].concat(), &[]);
    assert_eq!(switch.rings.log(), ["announce 52:54:00:00:00:01"]);
    assert!(frontend.send(SEND_RARP, 1, &address, &[]));
    assert!(frontend.is_closed());
    assert!(switch.error().contains("SEND_RARP (6 bytes): it is malformed"));
}

#[test]
fn a_descriptor_to_signal_the_log_is_answered_and_not_used() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    assert!(!frontend.accepts(SET_LOG_FD, &[], &[eventfd().as_fd()]));
    assert_eq!(switch.rings.running(), [0, 1]);
}

#[test]
fn a_switch_that_follows_a_dead_one_goes_on_logging() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    frontend.share_log(&setting.log);
    set_features(&frontend, true);
    [0, 1].iter().for_each(|ring| setting.log_ring(&frontend, *ring));
    switch.die();
    let switch = setting.switch();
    eventually("the rings run", || switch.rings.running() == [0, 1]);
    assert_eq!(switch.logged(), both());
    // An answer that is not one of the past.
    frontend.share_log(&setting.log);
    assert_eq!(switch.logged(), both());
    set_features(&frontend, false);
    assert_eq!(switch.logged(), [None, None]);
}

/// As if its keeper were of a version that does not keep the log.
#[test]
fn a_migration_whose_log_was_lost_with_the_switch_fails() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    set_features(&frontend, true);
    switch.die();
    let switch = setting.switch();
    assert!(frontend.is_closed());
    assert!(switch.error().contains("its dirty log was lost"));
}
