//! What a session makes of the orders in which frontends say things.
#![cfg(test)]

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use trama_test_kit::requests::{
    ADD_MEM_REG, GET_FEATURES, GET_MAX_MEM_SLOTS, REM_MEM_REG, RESET_OWNER, SET_FEATURES,
    SET_MEM_TABLE, SET_OWNER, SET_PROTOCOL_FEATURES, SET_VRING_ADDR, SET_VRING_BASE,
    SET_VRING_CALL, SET_VRING_ENABLE, SET_VRING_KICK, SET_VRING_NUM, vring_state, words,
};
use trama_test_kit::{MockRings, RawFrontend, SharedMemory, eventfd, eventually, take_count};
use trama_vhost_net_backend::features::{self, VHOST_USER_PROTOCOL_FEATURES};
use trama_vhost_net_backend::{Role, Session, SessionOptions, SessionState};

struct Setting {
    rings: MockRings,
    session: Session,
    frontend: RawFrontend,
    memory: SharedMemory,
    dir: tempfile::TempDir,
}

/// A session with a frontend connected; `change` adjusts its options.
fn setting(change: impl FnOnce(&mut SessionOptions)) -> Setting {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("port.sock");
    let mut options = SessionOptions::new(&path, Role::Server);
    change(&mut options);
    let rings = MockRings::new();
    let session = Session::spawn(options, rings.clone()).unwrap();
    let frontend = RawFrontend::connect(&path);
    rings.log();
    Setting {
        rings,
        session,
        frontend,
        memory: SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20),
        dir,
    }
}

fn error(session: &Session) -> String {
    eventually("the connection ends", || session.status().state == SessionState::Listening);
    session.status().last_error.expect("a reason is kept")
}

#[test]
fn a_ring_starts_when_enabled_after_its_kick() {
    // The order of DPDK's virtio-user. The kick is never written.
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    for ring in [0, 1] {
        s.frontend.describe_ring(ring, &s.memory, &eventfd());
    }
    assert!(s.rings.running().is_empty(), "disabled rings do not run");
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    assert_eq!(s.rings.running(), [0]);
    assert_eq!(s.session.status().queue_pairs_active, 0);
    s.frontend.vring(SET_VRING_ENABLE, 1, 1);
    assert_eq!(s.rings.running(), [0, 1]);
    eventually("a pair is active", || s.session.status().queue_pairs_active == 1);
    let recorded = s.rings.recorded();
    let setup = &recorded.running[&1].0;
    assert_eq!((setup.size, setup.next), (256, 0));
    assert_eq!((setup.desc, setup.avail), (0x7f00_0000_4000, 0x7f00_0000_5000));
    assert_eq!(setup.used, 0x7f00_0000_6000);
    assert!(setup.features.event_idx && setup.features.in_order && setup.features.mergeable);
}

#[test]
fn a_ring_starts_by_its_kick_when_enabled_before() {
    // The order of QEMU, which enables before it even acknowledges features.
    let s = setting(|_| ());
    let offered = s.frontend.negotiate();
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    s.frontend.send_acknowledged(SET_FEATURES, &offered.to_ne_bytes(), &[]);
    s.frontend.send_acknowledged(SET_MEM_TABLE, &s.memory.table(), &[s.memory.file.as_fd()]);
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    assert_eq!(s.rings.running(), [0]);
}

#[test]
fn rings_are_enabled_from_the_start_without_protocol_features() {
    let s = setting(|_| ());
    let offered = s.frontend.get(GET_FEATURES, &[]);
    let plain = offered & !VHOST_USER_PROTOCOL_FEATURES;
    assert!(s.frontend.send(SET_FEATURES, 1, &plain.to_ne_bytes(), &[]));
    assert!(s.frontend.send(SET_MEM_TABLE, 1, &s.memory.table(), &[s.memory.file.as_fd()]));
    assert!(s.frontend.send(SET_VRING_NUM, 1, &vring_state(0, 256), &[]));
    assert!(s.frontend.send(SET_VRING_ADDR, 1, &s.memory.ring(0), &[]));
    assert!(s.frontend.send(SET_VRING_KICK, 1, &words(&[0]), &[eventfd().as_fd()]));
    eventually("the ring starts", || s.rings.running() == [0]);
}

#[test]
fn a_frontend_without_kick_descriptor_is_served() {
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.frontend.vring(SET_VRING_NUM, 0, 64);
    s.frontend.send_acknowledged(SET_VRING_ADDR, &s.memory.ring(0), &[]);
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    assert!(s.rings.running().is_empty());
    s.frontend.send_acknowledged(SET_VRING_KICK, &words(&[0x100]), &[]);
    assert!(s.rings.recorded().running[&0].1.kick.is_none());
}

#[test]
fn the_index_survives_disable_and_is_what_get_vring_base_answers() {
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.frontend.describe_ring(1, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 1, 1);
    s.rings.recorded().used = 65_535;
    s.frontend.vring(SET_VRING_ENABLE, 1, 0);
    s.frontend.vring(SET_VRING_ENABLE, 1, 1);
    s.rings.recorded().used = 10;
    s.frontend.vring(SET_VRING_ENABLE, 1, 0);
    assert_eq!(s.frontend.base(1), 9);
    let log = s.rings.log().join(", ");
    assert!(log.ends_with("start 1 at 0, stop 1, start 1 at 65535, stop 1"), "{log}");
    s.frontend.vring(SET_VRING_ENABLE, 1, 1);
    assert!(s.rings.running().is_empty(), "GET_VRING_BASE stops until the next kick descriptor");
    s.frontend.vring_fd(SET_VRING_KICK, 1, &eventfd());
    assert_eq!(s.rings.log(), ["start 1 at 9"]);
    // This one runs when it is asked.
    s.rings.recorded().used = 1;
    assert_eq!(s.frontend.base(1), 10);
    assert_eq!(s.rings.log(), ["stop 1"]);
}

#[test]
fn a_ring_resumes_at_its_used_index_whatever_the_frontend_sets() {
    // DPDK's virtio-user sends 0 to a backend that was restarted under it.
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.memory.file.write_all_at(&77u16.to_le_bytes(), 0x2002).unwrap();
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    assert_eq!(s.rings.recorded().running[&0].0.next, 77);
}

#[test]
fn a_call_descriptor_is_replaced_under_the_running_ring() {
    let s = setting(|_| ());
    let (first, second) = (eventfd(), eventfd());
    s.frontend.share_memory(&s.memory);
    s.frontend.vring_fd(SET_VRING_CALL, 0, &first);
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    s.rings.log();
    s.frontend.vring_fd(SET_VRING_CALL, 0, &second);
    assert_eq!(s.rings.log(), ["call 0"]);
    let call = s.rings.recorded().running[&0].1.call.as_ref().unwrap().try_clone().unwrap();
    rustix::io::write(&call, &1u64.to_ne_bytes()).unwrap();
    assert_eq!((take_count(&first), take_count(&second)), (0, 1));
    s.frontend.send_acknowledged(SET_VRING_CALL, &words(&[0x100]), &[]);
    assert!(s.rings.recorded().running[&0].1.call.is_none());
    s.frontend.vring_fd(SET_VRING_KICK, 0, &eventfd());
    assert_eq!(s.rings.log(), ["call 0", "kick 0"]);
}

#[test]
fn memory_is_swapped_under_running_rings() {
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    s.rings.log();
    s.frontend.send_acknowledged(SET_MEM_TABLE, &s.memory.table(), &[s.memory.file.as_fd()]);
    assert_eq!(s.rings.log(), ["memory 1"], "the ring goes on");

    // A table without the ring's memory: it waits, and goes on when the memory is back.
    s.rings.recorded().used = 3;
    let other = SharedMemory::new(1 << 32, 0x6000_0000_0000, 1 << 16);
    s.frontend.send_acknowledged(SET_MEM_TABLE, &other.table(), &[other.file.as_fd()]);
    assert_eq!(s.rings.log(), ["stop 0", "memory 1"]);
    s.frontend.send_acknowledged(ADD_MEM_REG, &s.memory.single(), &[s.memory.file.as_fd()]);
    assert_eq!(s.rings.log(), ["memory 2", "start 0 at 3"]);
    s.frontend.send_acknowledged(REM_MEM_REG, &other.single(), &[]);
    assert_eq!(s.rings.log(), ["memory 1"]);
    s.frontend.send_acknowledged(REM_MEM_REG, &s.memory.single(), &[s.memory.file.as_fd()]);
    assert_eq!(s.rings.log(), ["stop 0"]);
    s.frontend.send_acknowledged(ADD_MEM_REG, &s.memory.single(), &[s.memory.file.as_fd()]);
    assert_eq!(s.rings.log(), ["memory 1", "start 0 at 6"]);
}

#[test]
fn regions_may_be_added_and_removed_twice() {
    // QEMU 7 does so for each queue pair.
    let s = setting(|options| options.queue_pairs = 2);
    s.frontend.negotiate();
    let other = SharedMemory::new(1 << 32, 0x6000_0000_0000, 1 << 16);
    let both = [&s.memory, &other];
    for _ in 0..2 {
        for memory in both {
            s.frontend.send_acknowledged(ADD_MEM_REG, &memory.single(), &[memory.file.as_fd()]);
        }
    }
    assert_eq!(s.rings.recorded().memory.as_ref().unwrap().regions().len(), 2);
    for _ in 0..2 {
        s.frontend.send_acknowledged(REM_MEM_REG, &other.single(), &[]);
    }
    assert_eq!(s.rings.recorded().memory.as_ref().unwrap().regions().len(), 1);
    // What overlaps without being the same is an error.
    let overlap = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 16);
    assert!(!s.frontend.accepts(ADD_MEM_REG, &overlap.single(), &[overlap.file.as_fd()]));
    assert!(error(&s.session).contains("overlap"));
}

#[test]
fn the_same_features_set_again_disturb_nothing() {
    // QEMU sets them for each queue pair.
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    s.rings.log();
    s.frontend.send_acknowledged(SET_FEATURES, &offered_features(1).to_ne_bytes(), &[]);
    assert!(s.rings.log().is_empty());
}

#[test]
fn other_features_set_again_restart_the_rings() {
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    s.rings.recorded().used = 7;
    let fewer = offered_features(1) & !features::IN_ORDER;
    s.frontend.send_acknowledged(SET_FEATURES, &fewer.to_ne_bytes(), &[]);
    assert!(s.rings.log().join(", ").ends_with("start 0 at 0, stop 0, features, start 0 at 7"));
    assert!(!s.rings.recorded().running[&0].0.features.in_order);
    eventually("the status shows it", || s.session.status().features == fewer);
}

#[test]
fn reset_owner_disables_all_rings() {
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    s.frontend.send_acknowledged(RESET_OWNER, &[], &[]);
    assert!(s.rings.running().is_empty());
    s.frontend.describe_ring(0, &s.memory, &eventfd());
    s.frontend.vring(SET_VRING_ENABLE, 0, 1);
    assert_eq!(s.rings.running(), [0]);
}

#[test]
fn the_offer_depends_on_the_options_alone() {
    let s = setting(|_| ());
    assert_eq!(s.frontend.negotiate(), offered_features(1));
    assert_eq!(s.frontend.get(GET_MAX_MEM_SLOTS, &[]), 64);
    drop(s.frontend);
    assert_eq!(
        RawFrontend::connect(&s.dir.path().join("port.sock")).negotiate(),
        offered_features(1)
    );

    let s = setting(|options| options.queue_pairs = 4);
    assert_eq!(s.frontend.negotiate(), offered_features(4));
    s.frontend.vring(SET_VRING_NUM, 7, 256);
    assert!(!s.frontend.accepts(SET_VRING_NUM, &vring_state(8, 256), &[]));
    assert!(error(&s.session).contains("ring 8 does not exist, the port has 8"));

    let s = setting(|options| options.features = !features::IN_ORDER);
    assert_eq!(s.frontend.negotiate() & features::IN_ORDER, 0);
}

fn offered_features(queue_pairs: u16) -> u64 {
    features::offered(features::ALL, queue_pairs, false) & !features::LOG_ALL
}

#[test]
fn memory_without_its_file_is_named_with_its_remedy() {
    // No descriptor, and one of something that is not memory.
    for wrong in [vec![], vec![eventfd()]] {
        let s = setting(|_| ());
        s.frontend.negotiate();
        let fds: Vec<_> = wrong.iter().map(AsFd::as_fd).collect();
        assert!(!s.frontend.accepts(SET_MEM_TABLE, &s.memory.table(), &fds));
        let error = error(&s.session);
        assert!(error.contains("SET_MEM_TABLE") && error.contains("share=on"), "{error}");
    }
}

#[test]
fn wrong_requests_end_the_connection_with_their_name_and_reason() {
    let file = SharedMemory::new(0, 0, 4096).file;
    type Act<'a> = &'a dyn Fn(&RawFrontend, &SharedMemory) -> bool;
    let cases: [(Act, &str); 7] = [
        (&|p, _| p.send(SET_OWNER, 2, &[], &[]), "SET_OWNER (0 bytes): it is malformed"),
        (&|p, _| p.send(SET_FEATURES, 1, &[0; 4], &[]), "SET_FEATURES (4 bytes): it is mal"),
        (&|p, _| p.send(SET_FEATURES, 1, &words(&[1 << 34]), &[]), "0x400000000 were ack"),
        (&|p, _| p.send(SET_PROTOCOL_FEATURES, 1, &words(&[0x1000]), &[]), "0x1000 were ack"),
        (&|p, _| p.send(SET_VRING_NUM, 1, &vring_state(0, 65_536), &[]), "65536 entries"),
        (&|p, _| p.send(SET_VRING_BASE, 1, &vring_state(0, 65_536), &[]), "base 65536"),
        (
            &|p, _| p.send(SET_VRING_KICK, 1, &words(&[0]), &[file.as_fd()]),
            "ring 0: the descriptor is /memfd:guest (deleted), not an eventfd",
        ),
    ];
    for (act, expected) in cases {
        let s = setting(|_| ());
        assert!(act(&s.frontend, &s.memory));
        assert!(s.frontend.is_closed());
        let error = error(&s.session);
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        assert_eq!(s.session.status().features, 0);
        // The next one is served.
        RawFrontend::connect(&s.dir.path().join("port.sock")).negotiate();
    }
}

#[test]
fn broken_rings_and_disconnect_close_the_connection() {
    let s = setting(|_| ());
    s.frontend.share_memory(&s.memory);
    s.rings.break_now("the driver broke ring 0");
    assert!(s.frontend.is_closed());
    assert_eq!(error(&s.session), "the driver broke ring 0");
    assert!(s.rings.recorded().memory.is_none());

    let frontend = RawFrontend::connect(&s.dir.path().join("port.sock"));
    frontend.negotiate();
    s.session.handle().disconnect("removed from the network");
    assert!(frontend.is_closed());
    assert_eq!(error(&s.session), "removed from the network");
    let frontend = RawFrontend::connect(&s.dir.path().join("port.sock"));
    frontend.negotiate();
    let status = s.session.status();
    assert_eq!((status.last_error, status.connects), (None, 3));
}

/// A port's regions take no descriptors of the process while they are mapped.
#[test]
fn a_mapped_region_keeps_no_descriptor() {
    let s = setting(|_| {});
    s.frontend.negotiate();
    let regions: Vec<_> = (0..40u64)
        .map(|i| SharedMemory::new(i << 20, 0x6000_0000_0000 + (i << 20), 1 << 16))
        .collect();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for region in &regions {
        s.frontend.send_acknowledged(ADD_MEM_REG, &region.single(), &[region.file.as_fd()]);
    }
    assert_eq!(s.rings.recorded().memory.as_ref().unwrap().regions().len(), 40);
    // The first mapping opens what tells how much memory the process has left.
    assert!(count() < before + 30, "{before} -> {}", count());
    let opened = count();
    for region in &regions {
        s.frontend.send_acknowledged(REM_MEM_REG, &region.single(), &[]);
        s.frontend.send_acknowledged(ADD_MEM_REG, &region.single(), &[region.file.as_fd()]);
    }
    assert_eq!(count(), opened);
    assert_eq!(s.session.status().memory_mapped, 40 << 16);
}

#[test]
fn a_frontend_may_share_as_much_memory_as_its_limit() {
    let s = setting(|options| options.memory.max = Some(1 << 20));
    s.frontend.negotiate();
    let (fits, more) = (1 << 20, SharedMemory::new(1 << 32, 0x6000_0000_0000, 1 << 12));
    let fits = SharedMemory::new(0, 0x7000_0000_0000, fits);
    s.frontend.send_acknowledged(ADD_MEM_REG, &fits.single(), &[fits.file.as_fd()]);
    assert!(!s.frontend.accepts(ADD_MEM_REG, &more.single(), &[more.file.as_fd()]));
    let error = error(&s.session);
    assert!(error.contains("2 MiB") && error.contains("1 MiB"), "{error}");
    assert!(error.contains("memory-max"), "{error}");
    assert_eq!(s.session.status().memory_mapped, 0);
}
