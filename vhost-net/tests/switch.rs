//! Frames from one frontend to another: the `vhost` crate's frontend and the driver side of our
//! rings, through sessions and a running worker.
#![cfg(test)]

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use trama_frame::vnet::VnetHeader;
use trama_switch::{
    Device, DummyHandle, HdrLen, NetworkSettings, PortId, PortSettings, Spin, VhostDevice,
    VlanMode, VlanSet, WorkerHandle, WorkerOptions, dummy,
};
use trama_test_kit::requests::SET_VRING_ENABLE;
use trama_test_kit::{Card, RawFrontend, SharedMemory, TestKeeper, connect, eventfd, eventually};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{Role, Session, SessionOptions, features};
use trama_virtqueue::RingFeatures;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

/// A worker with one network.
struct Switch {
    worker: WorkerHandle,
    thread: Option<JoinHandle<()>>,
    network: trama_switch::NetworkId,
    dir: tempfile::TempDir,
}

impl Switch {
    fn new() -> Switch {
        let options = WorkerOptions { spin: Spin::Never, name: "worker".into(), seed: 1 };
        let (worker, thread) = WorkerHandle::spawn(options).unwrap();
        let settings = NetworkSettings {
            name: "test".into(),
            mtu: 1500,
            mac_table_size: 64,
            mac_aging: Duration::from_secs(300),
        };
        let network = worker.call(|engine, _| engine.add_network(settings)).unwrap();
        Switch { worker, thread: Some(thread), network, dir: tempfile::tempdir().unwrap() }
    }

    fn port(&self, name: &str, device: Device) -> PortId {
        let settings = PortSettings {
            name: name.into(),
            network: Some(self.network),
            vlan: VlanMode::Trunk { trunks: VlanSet::all() },
            cable: true,
            filter: Default::default(),
            mark: 0,
            hdr_len: HdrLen::Headers,
        };
        self.worker.call(|engine, _| engine.add_port(settings, device)).unwrap().unwrap().0
    }

    fn dummy(&self) -> DummyHandle {
        let (device, handle) = dummy(64);
        self.port("dummy", Device::Dummy(device));
        handle
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn session(&self, name: &str, role: Role, queue_pairs: u16) -> Session {
        let port = self.port(name, Device::Vhost(VhostDevice::new(queue_pairs)));
        let rings = SwitchPort::new(self.worker.clone(), port).unwrap();
        let options = SessionOptions::new(self.path(name), role);
        Session::spawn(SessionOptions { queue_pairs, ..options }, rings).unwrap()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.worker.stop();
        let _ = self.thread.take().unwrap().join();
    }
}

/// A frame of 100 bytes from one station to another (0xff: broadcast).
fn frame(to: u8, from: u8, number: u32) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    bytes[..6].copy_from_slice(if to == 0xff { &[0xff; 6] } else { &[2, 0, 0, 0, 0, 0] });
    bytes[5] = to;
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, from]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn frames_pass_between_frontends_of_both_roles() {
    let switch = Switch::new();
    let all = features::ALL;
    for mask in [
        all,
        all & !features::IN_ORDER,
        all & !features::RING_EVENT_IDX,
        { features::VERSION_1 | features::VHOST_USER_PROTOCOL_FEATURES },
        features::VHOST_USER_PROTOCOL_FEATURES,
        features::RING_EVENT_IDX | features::RING_INDIRECT_DESC,
        0,
    ] {
        let _server = switch.session("server", Role::Server, 1);
        let listener = UnixListener::bind(switch.path("client")).unwrap();
        let _client = switch.session("client", Role::Client, 1);
        let mut a = Card::plug(connect(&switch.path("server")), mask, 1);
        let mut b = Card::plug(listener.accept().unwrap().0, mask, 1);
        a.send(0, &frame(0xff, 1, 0));
        assert_eq!(b.receive(), frame(0xff, 1, 0));
        // More than fit in a ring at once, both ways.
        for number in 1..=300 {
            b.send(0, &frame(1, 2, number));
            assert_eq!(a.receive(), frame(1, 2, number));
            a.send(0, &frame(2, 1, number));
            assert_eq!(b.receive(), frame(2, 1, number));
        }
        std::fs::remove_file(switch.path("client")).unwrap();
    }
}

#[test]
fn rings_resume_where_they_were() {
    let switch = Switch::new();
    let dummy = switch.dummy();
    let session = switch.session("s", Role::Server, 1);
    let mut card = Card::plug(connect(&switch.path("s")), features::ALL, 1);
    let mut number = 0;
    let mut exchange = |card: &mut Card| {
        for _ in 0..300 {
            number += 1;
            card.send(0, &frame(0xff, 1, number));
            let mut captured = Vec::new();
            eventually("the frame comes out", || {
                captured.extend(dummy.captured());
                !captured.is_empty()
            });
            assert_eq!(captured.len(), 1);
            assert_eq!(captured[0].bytes, frame(0xff, 1, number));
            dummy.inject(VnetHeader::default(), &frame(1, 9, number)).unwrap();
            assert_eq!(card.receive(), frame(1, 9, number));
        }
    };
    exchange(&mut card);
    // As a guest's reset or a migration does it.
    for ring in 0..2 {
        let base = card.frontend.get_vring_base(ring).unwrap();
        assert_eq!(base, 300);
        card.start(ring, base as u16);
    }
    exchange(&mut card);
    // As QEMU does when the guest uses fewer queues.
    for ring in 0..2 {
        card.frontend.set_vring_enable(ring, false).unwrap();
        card.frontend.set_vring_enable(ring, true).unwrap();
    }
    exchange(&mut card);
    // The frontend stays, the connection does not: it goes on at its used index.
    session.handle().disconnect("test");
    let Card { features, memory, rx, tx, kicks, calls, .. } = card;
    let mut frontend = Frontend::from_stream(connect(&switch.path("s")), 2);
    frontend.set_owner().unwrap();
    frontend.get_features().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_features(features).unwrap();
    let spec = memory.spec();
    frontend
        .add_mem_region(&VhostUserMemoryRegionInfo {
            guest_phys_addr: spec.guest_phys,
            memory_size: spec.size,
            userspace_addr: spec.user_addr,
            mmap_offset: spec.file_offset,
            mmap_handle: spec.file.as_raw_fd(),
        })
        .unwrap();
    let mut card = Card { frontend, features, memory, rx, tx, kicks, calls };
    for ring in 0..2 {
        card.start(ring, 900);
    }
    exchange(&mut card);
}

/// The frontend and the driver stay, all of the device's side goes and comes again.
#[test]
fn a_guest_does_not_notice_that_its_switch_dies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let keeper = Arc::new(TestKeeper::default());
    let (mut card, mut number) = (None, 0);
    for _ in 0..20 {
        let (switch, kept) = (Switch::new(), keeper.attach());
        let dummy = switch.dummy();
        let port = switch.port("s", Device::Vhost(VhostDevice::new(1)));
        let rings = SwitchPort::new(switch.worker.clone(), port).unwrap();
        let mut options = SessionOptions::new(&path, Role::Server);
        options.keeper = Some(kept.clone());
        let session = Session::spawn(options, rings).unwrap();
        let card = card.get_or_insert_with(|| Card::plug(connect(&path), features::ALL, 1));
        eventually("both rings run", || session.status().queue_pairs_active == 1);
        for _ in 0..50 {
            number += 1;
            card.send(0, &frame(0xff, 1, number));
            let came = |bytes: &[u8]| bytes == frame(0xff, 1, number);
            eventually("it comes", || dummy.captured().iter().any(|frame| came(&frame.bytes)));
            dummy.inject(VnetHeader::default(), &frame(1, 9, number)).unwrap();
            assert_eq!(card.receive(), frame(1, 9, number));
        }
        assert_eq!(session.status().connects, 1);
        // Some of these are served before the end, and the others by the next switch, whose dummy
        // has room for 64.
        (0..40).for_each(|_| card.send(0, &frame(0xff, 1, 0)));
        kept.die();
    }
}

/// Firmware, boot loader and system drive one device in turn, with another header each time.
#[test]
fn drivers_replace_each_other_on_one_connection() {
    let switch = Switch::new();
    let dummy = switch.dummy();
    let session = switch.session("s", Role::Server, 1);
    let mut card = Card::plug(connect(&switch.path("s")), features::ALL, 1);
    let protocol = features::VHOST_USER_PROTOCOL_FEATURES;
    let takes_large = features::NET_F_GUEST_CSUM | features::NET_F_GUEST_TSO4;
    for (driver, header_len) in [
        (protocol, 10),
        (protocol | features::VERSION_1, 12),
        (protocol | features::NET_F_MRG_RXBUF, 12),
        (protocol | takes_large, 10),
        (features::ALL, 12),
        // Without the protocol's features, too.
        (features::VERSION_1, 12),
        (features::RING_EVENT_IDX | features::IN_ORDER, 10),
        (features::RING_INDIRECT_DESC, 10),
    ] {
        card.change_driver(driver, 1);
        assert_eq!(features::ring_features(card.features).header_len(), header_len);
        for number in 1..=300 {
            card.send(0, &frame(0xff, 1, number));
            let mut captured = Vec::new();
            eventually("the frame comes out", || {
                captured.extend(dummy.captured());
                !captured.is_empty()
            });
            assert_eq!(captured[0].header, VnetHeader::default());
            assert_eq!(captured[0].bytes, frame(0xff, 1, number), "{driver:#x}");
            dummy.inject(VnetHeader::default(), &frame(1, 9, number)).unwrap();
            assert_eq!(card.receive(), frame(1, 9, number), "{driver:#x}");
        }
    }
    assert_eq!((session.status().connects, session.status().last_error), (1, None));
}

#[test]
fn several_queue_pairs_carry_frames() {
    let switch = Switch::new();
    let dummy = switch.dummy();
    let session = switch.session("s", Role::Server, 4);
    let mut card = Card::plug(connect(&switch.path("s")), features::ALL, 4);
    eventually("all pairs run", || session.status().queue_pairs_active == 4);
    for pair in 0..4 {
        card.send(pair, &frame(0xff, 1, pair as u32));
        let mut captured = Vec::new();
        eventually("the frame comes out", || {
            captured.extend(dummy.captured());
            !captured.is_empty()
        });
        assert_eq!(captured[0].bytes, frame(0xff, 1, pair as u32));
        dummy.inject(VnetHeader::default(), &frame(1, 9, 5)).unwrap();
        assert_eq!(card.receive(), frame(1, 9, 5));
    }
}

#[test]
fn a_driver_that_breaks_its_ring_is_disconnected_and_may_come_back() {
    let switch = Switch::new();
    let dummy = switch.dummy();
    let session = switch.session("s", Role::Server, 1);
    let card = Card::plug(connect(&switch.path("s")), features::ALL, 1);
    // The available index jumps far past the ring.
    use std::os::unix::fs::FileExt;
    let spec = card.memory.spec();
    let avail = card.tx[0].addresses().avail - spec.user_addr;
    spec.file.write_all_at(&40_000u16.to_le_bytes(), spec.file_offset + avail + 2).unwrap();
    card.kicks[1].write(1).unwrap();
    eventually("the connection is closed", || {
        session
            .status()
            .last_error
            .is_some_and(|error| error.contains("ring 1: the available index jumped"))
    });
    assert!(card.frontend.get_features().is_err());
    drop(card);
    let mut card = Card::plug(connect(&switch.path("s")), features::ALL, 1);
    card.send(0, &frame(0xff, 1, 1));
    eventually("it works again", || !dummy.captured().is_empty());
}

#[test]
fn a_frontend_that_takes_its_memory_away_loses_its_connection_only() {
    let switch = Switch::new();
    let dummy = switch.dummy();
    let session = switch.session("s", Role::Server, 1);
    let other = switch.session("other", Role::Server, 1);
    let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
    let frontend = RawFrontend::connect(&switch.path("s"));
    frontend.share_memory(&memory);
    for ring in 0..2 {
        frontend.describe_ring(ring, &memory, &eventfd());
        frontend.vring(SET_VRING_ENABLE, ring, 1);
    }
    let mut neighbour = Card::plug(connect(&switch.path("other")), features::ALL, 1);
    memory.file.set_len(0).unwrap();
    dummy.inject(VnetHeader::default(), &frame(0xff, 9, 1)).unwrap();
    assert_eq!(neighbour.receive(), frame(0xff, 9, 1));
    eventually("the connection is closed", || {
        session.status().last_error.is_some_and(|error| error.contains("removed its memory"))
    });
    neighbour.send(0, &frame(0xff, 2, 2));
    eventually("the neighbour's frame comes out", || !dummy.captured().is_empty());
    assert_eq!(other.status().last_error, None);
}

#[test]
fn what_the_driver_takes_becomes_offloads() {
    use trama_frame::offload::Offloads;
    let none = features::VERSION_1;
    let csum = none | features::NET_F_GUEST_CSUM;
    let tso4 = features::NET_F_GUEST_TSO4;
    let ecn = features::NET_F_GUEST_ECN;
    assert_eq!(features::offloads(none), Offloads::NONE);
    assert_eq!(features::offloads(none | tso4 | ecn), Offloads::NONE, "TSO needs CSUM");
    assert_eq!(features::offloads(csum | ecn), Offloads::CSUM, "ECN needs TSO");
    assert_eq!(features::offloads(csum | tso4 | ecn), {
        Offloads::CSUM | Offloads::TSO4 | Offloads::ECN
    });
    let six = features::NET_F_GUEST_TSO6;
    assert_eq!(features::offloads(csum | six), Offloads::CSUM | Offloads::TSO6);
    let some = features::ring_features(features::RING_EVENT_IDX | features::NET_F_MRG_RXBUF);
    let (event_idx, mergeable) = (true, true);
    assert_eq!(some, RingFeatures { event_idx, mergeable, ..RingFeatures::default() });
    // Virtio 1.2, section 5.1.6.1.
    let (modern, mergeable) = (features::VERSION_1, features::NET_F_MRG_RXBUF);
    let lens = [0, modern, mergeable, modern | mergeable]
        .map(|set| features::ring_features(set).header_len());
    assert_eq!(lens, [10, 12, 12, 12]);
}
