//! A frontend whose connection a keeper has: the processes of its session end and follow each
//! other, and it notices nothing.
#![cfg(test)]

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use trama_test_kit::requests::*;
use trama_test_kit::{
    KeptSwitch, MockRings, RawFrontend, SharedMemory, TestKeeper, eventfd, eventually, take_count,
};
use trama_vhost_net_backend::{Peer, Role, Session, SessionOptions, SessionState};

const POSTCOPY_ADVISE: u32 = 28;

/// One process with a session.
struct Switch {
    kept: Arc<KeptSwitch>,
    session: Session,
    rings: MockRings,
}

impl Switch {
    /// Ends the process without a word.
    fn die(self) {
        self.kept.die();
        drop(self.session);
    }
}

struct Setting {
    keeper: Arc<TestKeeper>,
    path: PathBuf,
    memory: SharedMemory,
    _dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
        let path = dir.path().join("port.sock");
        Setting { keeper: Arc::default(), path, memory, _dir: dir }
    }

    fn switch(&self) -> Switch {
        self.switch_with(|_| ())
    }

    fn switch_with(&self, change: impl FnOnce(&mut SessionOptions)) -> Switch {
        let kept = self.keeper.attach();
        let mut options = SessionOptions::new(&self.path, Role::Server);
        options.keeper = Some(kept.clone());
        change(&mut options);
        let rings = MockRings::new();
        let session = Session::spawn(options, rings.clone()).unwrap();
        Switch { kept, session, rings }
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

    /// Writes the used index of a ring, as the device that ran it did.
    fn set_used(&self, ring: u64, index: u16) {
        let used = ring * 0x4000 + 0x2000;
        self.memory.file.write_all_at(&index.to_le_bytes(), used + 2).unwrap();
    }
}

fn runs(switch: &Switch, rings: &[usize]) {
    eventually("the rings run", || switch.rings.running() == rings);
}

#[test]
fn a_frontend_does_not_notice_that_its_switch_dies() {
    let setting = Setting::new();
    let mut switch = setting.switch();
    let frontend = setting.frontend();
    let call = eventfd();
    frontend.vring_fd(SET_VRING_CALL, 1, &call);
    for round in 1..=20 {
        assert_eq!(switch.session.status().connects, 1);
        let features = switch.rings.recorded().features;
        switch.die();
        // The last SET_VRING_BASE says 0.
        setting.set_used(0, 300 * round);
        setting.set_used(1, 7 * round);
        switch = setting.switch();
        runs(&switch, &[0, 1]);
        eventually("both are called", || {
            let recorded = switch.rings.recorded();
            recorded.log.iter().filter(|line| line.starts_with("call")).count() >= 2
        });
        let status = switch.session.status();
        assert_eq!(status.state, SessionState::Connected);
        let own = std::process::id() as i32;
        assert!(matches!(status.peer, Some(Peer { pid, .. }) if pid == own), "{:?}", status.peer);
        let recorded = switch.rings.recorded();
        assert_eq!(recorded.features, features);
        assert_eq!(recorded.running[&0].0.next, 300 * round);
        assert_eq!(recorded.running[&1].0.next, 7 * round);
        drop(recorded);
        // Another request, which is remembered, and one that is only answered.
        frontend.vring_fd(SET_VRING_CALL, 1, &call);
        assert!(frontend.get(GET_FEATURES, &[]) != 0);
        eventually("the call is replaced", || switch.rings.recorded().running[&1].1.call.is_some());
    }
    assert_eq!(take_count(&call), 0, "mock rings call nobody");
}

#[test]
fn a_request_that_was_not_answered_is_served_by_the_next_process() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    switch.die();
    assert!(frontend.send(GET_VRING_BASE, 1, &vring_state(1, 0), &[]));
    setting.set_used(1, 42);
    let switch = setting.switch();
    let reply = frontend.reply().expect("an answer");
    assert_eq!(reply, vring_state(1, 42));
    runs(&switch, &[0]);
    // A ring that was stopped before has no kick, and its base is where it stopped.
    switch.die();
    let switch = setting.switch();
    runs(&switch, &[0]);
    assert_eq!(frontend.base(1), 42);
    assert_eq!(frontend.base(0), 0);
}

#[test]
fn a_refused_request_does_not_end_a_resumed_connection() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    assert!(!frontend.accepts(POSTCOPY_ADVISE, &[], &[]), "memory must come before the guest");
    switch.die();
    let switch = setting.switch();
    runs(&switch, &[0, 1]);
    assert!(frontend.get(GET_FEATURES, &[]) != 0);
    assert_eq!(switch.session.status().last_error, None);
}

#[test]
fn qemu_is_still_recognised_in_the_middle_of_its_set_up() {
    let setting = Setting::new();
    let several = |options: &mut SessionOptions| options.queue_pairs = 4;
    let switch = setting.switch_with(several);
    let frontend = RawFrontend::connect(&setting.path);
    assert!(frontend.get(GET_FEATURES, &[]) != 0);
    let protocol = frontend.get(GET_PROTOCOL_FEATURES, &[]);
    assert_eq!(protocol & PROTOCOL_CONFIG, 0);
    assert!(frontend.send(SET_PROTOCOL_FEATURES, 1, &protocol.to_ne_bytes(), &[]));
    frontend.send_acknowledged(SET_OWNER, &[], &[]);
    assert_eq!(frontend.get(GET_QUEUE_NUM, &[]), 4);
    switch.die();
    let _switch = setting.switch_with(several);
    assert_eq!(frontend.get(GET_QUEUE_NUM, &[]), 4);
    assert_eq!(frontend.get(GET_PROTOCOL_FEATURES, &[]), protocol);
}

#[test]
fn a_session_that_closes_its_connection_closes_it_for_good() {
    let setting = Setting::new();
    type End = fn(&Switch);
    let ends: [(&str, End); 3] = [
        ("stopped", |_| ()),
        ("disconnected", |switch| switch.session.handle().disconnect("test")),
        ("unplugged", |switch| switch.session.set_cable(false)),
    ];
    for (how, end) in ends {
        let switch = setting.switch();
        let frontend = setting.frontend();
        end(&switch);
        drop(switch);
        assert!(frontend.is_closed(), "{how}");
    }
    // A fault of the rings, and the next frontend.
    let switch = setting.switch();
    let frontend = setting.frontend();
    switch.rings.break_now("the driver did something");
    assert!(frontend.is_closed());
    let frontend = setting.frontend();
    runs(&switch, &[0, 1]);
    // The frontend itself.
    drop(frontend);
    eventually("it listens", || switch.session.status().state == SessionState::Listening);
    switch.die();
    let switch = setting.switch();
    setting.frontend();
    assert_eq!(switch.session.status().connects, 1, "nothing was left to resume");
}

#[test]
fn a_connection_is_not_resumed_without_a_cable_or_rings_for_it() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    switch.die();
    let switch = setting.switch_with(|options| options.cable = false);
    assert!(frontend.is_closed());
    assert_eq!(switch.session.status().state, SessionState::Unplugged);
    drop(switch);

    let two = |options: &mut SessionOptions| options.queue_pairs = 2;
    let switch = setting.switch_with(two);
    let frontend = setting.frontend();
    switch.die();
    let switch = setting.switch();
    assert!(frontend.is_closed());
    eventually("the reason is kept", || {
        switch.session.status().last_error.is_some_and(|e| e.contains("never offered"))
    });
    let _frontend = setting.frontend();
    runs(&switch, &[0, 1]);
}

#[test]
fn others_wait_for_a_resumed_frontend() {
    let setting = Setting::new();
    let switch = setting.switch();
    let frontend = setting.frontend();
    switch.die();
    let switch = setting.switch();
    runs(&switch, &[0, 1]);
    let other = RawFrontend::connect(&setting.path);
    eventually("it waits", || switch.session.status().waiting.len() == 1);
    drop(frontend);
    other.share_memory(&setting.memory);
    assert_eq!(switch.session.status().connects, 2);
}

#[test]
fn those_that_wait_keep_their_places_in_the_queue() {
    let setting = Setting::new();
    let mut switch = setting.switch();
    let waiting = |switch: &Switch, count| {
        eventually("they wait", || switch.session.status().waiting.len() == count);
    };
    let first = setting.frontend();
    let second = RawFrontend::connect(&setting.path);
    waiting(&switch, 1);
    let third = RawFrontend::connect(&setting.path);
    for frontend in [&second, &third] {
        assert!(frontend.send(GET_FEATURES, 1, &[], &[]), "before it is served");
    }
    waiting(&switch, 2);
    for _ in 0..3 {
        switch.die();
        switch = setting.switch();
        runs(&switch, &[0, 1]);
        waiting(&switch, 2);
    }
    drop(first);
    assert!(second.reply().is_some());
    waiting(&switch, 1);
    switch.die();
    switch = setting.switch();
    waiting(&switch, 1);
    assert!(second.get(GET_FEATURES, &[]) != 0);
    drop(second);
    assert!(third.reply().is_some());
    switch.die();
    let switch = setting.switch();
    waiting(&switch, 0);
    assert!(third.get(GET_FEATURES, &[]) != 0);
}

#[test]
fn a_client_resumes_too() {
    let setting = Setting::new();
    let listener = std::os::unix::net::UnixListener::bind(&setting.path).unwrap();
    let client = |options: &mut SessionOptions| options.role = Role::Client;
    let switch = setting.switch_with(client);
    let frontend = RawFrontend::new(listener.accept().unwrap().0);
    frontend.share_memory(&setting.memory);
    switch.die();
    let switch = setting.switch_with(client);
    frontend.describe_ring(1, &setting.memory, &eventfd());
    frontend.vring(SET_VRING_ENABLE, 1, 1);
    assert_eq!(switch.rings.running(), [1]);
    drop(frontend);
    RawFrontend::new(listener.accept().unwrap().0).negotiate();
}
