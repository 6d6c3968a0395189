//! What VMMs other than QEMU expect of a backend, and what QEMU expects besides the protocol: each
//! test speaks in the order of the VMM that it names.
#![cfg(test)]

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use trama_frame::MacAddr;
use trama_test_kit::requests::{
    GET_CONFIG, GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, NET_SET_MTU, PROTOCOL_CONFIG,
    RESET_DEVICE, SET_CONFIG, SET_FEATURES, SET_OWNER, SET_PROTOCOL_FEATURES, SET_VRING_ENABLE,
    vring_state, words,
};
use trama_test_kit::{MockRings, RawFrontend, SharedMemory, connect, eventfd, eventually};
use trama_vhost_net_backend::features::{self, VHOST_USER_PROTOCOL_FEATURES};
use trama_vhost_net_backend::{DeviceSettings, Role, Session, SessionOptions, SessionState};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

struct Port {
    rings: MockRings,
    session: Session,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn port(queue_pairs: u16, mac: Option<MacAddr>) -> Port {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("port.sock");
    let device = DeviceSettings { mtu: 1500, mac };
    let options =
        SessionOptions { queue_pairs, device, ..SessionOptions::new(&path, Role::Server) };
    let rings = MockRings::new();
    let session = Session::spawn(options, rings.clone()).unwrap();
    Port { rings, session, path, _dir: dir }
}

impl Port {
    /// A frontend of the `vhost` crate, as far as cloud-hypervisor goes before its guest boots.
    fn cloud_hypervisor(&self, rings: u64, wanted: Protocol) -> (Frontend, u64, Protocol) {
        let mut frontend = Frontend::from_stream(connect(&self.path), rings);
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let taken = frontend.get_protocol_features().unwrap() & wanted;
        frontend.set_protocol_features(taken).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        (frontend, offered, taken)
    }

    fn last_error(&self) -> Option<String> {
        self.session.status().last_error
    }

    fn complaint(&self) -> String {
        eventually("the complaint is shown", || self.last_error().is_some());
        assert_eq!(self.session.status().state, SessionState::Connected);
        self.last_error().unwrap()
    }
}

/// Returns the protocol features that cloud-hypervisor accepts for a network device.
fn cloud_hypervisor_protocol() -> Protocol {
    Protocol::MQ | Protocol::CONFIGURE_MEM_SLOTS | Protocol::REPLY_ACK | Protocol::CONFIG
}

#[test]
fn a_driver_can_take_the_whole_offer() {
    // virtio 1.2, section 5.1.3.1: each of these needs CTRL_VQ, and without it Linux refuses the
    // device: CTRL_RX, CTRL_VLAN, GUEST_ANNOUNCE, MQ, CTRL_MAC_ADDR.
    let of_control_queue = 0b1_1110 << 18 | 1 << 23;
    for queue_pairs in [1, 2, 4] {
        for mac in [None, Some(MAC)] {
            let port = port(queue_pairs, mac);
            let offer = RawFrontend::connect(&port.path).negotiate();
            let has_control_queue = offer & features::NET_F_CTRL_VQ != 0;
            assert_eq!(has_control_queue, queue_pairs > 1, "{offer:#x}");
            assert!(has_control_queue || offer & of_control_queue == 0, "{offer:#x}");
            assert_eq!(offer & features::NET_F_MQ != 0, queue_pairs > 1, "{offer:#x}");
            assert_eq!(offer & features::NET_F_MAC != 0, mac.is_some(), "{offer:#x}");
        }
    }
}

#[test]
fn qemu_counts_pairs_and_is_not_offered_what_it_warns_of() {
    let port = port(2, Some(MAC));
    let frontend = RawFrontend::connect(&port.path);
    // Once for each pair of its own; SET_OWNER comes with the first.
    for pair in 0..3 {
        frontend.get(GET_FEATURES, &[]);
        let offered = frontend.get(GET_PROTOCOL_FEATURES, &[]);
        assert_eq!(offered & PROTOCOL_CONFIG, 0, "pair {pair}");
        assert!(frontend.send(SET_PROTOCOL_FEATURES, 1, &offered.to_ne_bytes(), &[]));
        assert_eq!(frontend.get(GET_QUEUE_NUM, &[]), 2, "pair {pair}");
        frontend.send_acknowledged(SET_OWNER, &[], &[]);
    }
}

#[test]
fn vmms_that_count_rings_may_use_all_of_them() {
    let port = port(2, None);
    let (mut frontend, offered, _) = port.cloud_hypervisor(4, cloud_hypervisor_protocol());
    assert_eq!(frontend.get_queue_num().unwrap(), 4);
    frontend.set_features(offered & !features::NET_F_CTRL_VQ & !features::LOG_ALL).unwrap();
    frontend.set_vring_num(3, 256).unwrap();
    let config = VringConfigData { queue_max_size: 256, queue_size: 256, ..Default::default() };
    frontend.set_vring_addr(3, &config).unwrap();
    drop(frontend);

    // One that takes whatever is offered, MTU too, still is no QEMU.
    let (mut frontend, _, taken) = port.cloud_hypervisor(4, Protocol::all());
    assert!(taken.contains(Protocol::MTU));
    assert_eq!(frontend.get_queue_num().unwrap(), 4);
    drop(frontend);

    // libkrun asks before SET_OWNER, as QEMU does.
    let mut frontend = Frontend::from_stream(connect(&port.path), 4);
    frontend.get_features().unwrap();
    let taken = frontend.get_protocol_features().unwrap() & (Protocol::MQ | Protocol::CONFIG);
    frontend.set_protocol_features(taken).unwrap();
    assert_eq!(frontend.get_queue_num().unwrap(), 4);
}

#[test]
fn the_configuration_can_be_read_and_follows_the_port() {
    let port = port(2, Some(MAC));
    let (mut frontend, _, taken) = port.cloud_hypervisor(4, cloud_hypervisor_protocol());
    assert!(taken.contains(Protocol::CONFIG));
    let mut read = |offset, size| {
        let none = vec![0; size];
        let flags = VhostUserConfigFlags::WRITABLE;
        frontend.get_config(offset, size as u32, flags, &none).map(|(_, bytes)| bytes)
    };
    // As cloud-hypervisor: mac, status, max_virtqueue_pairs, mtu, speed, duplex.
    let whole = read(0, 17).unwrap();
    assert_eq!(whole[..12], [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 2, 0, 0xdc, 5]);
    // As crosvm: what the driver reads.
    assert_eq!(read(10, 2).unwrap(), [0xdc, 5]);
    assert_eq!(read(4000, 8).unwrap(), [0; 8], "behind the last field");

    port.session.set_device(DeviceSettings { mtu: 9000, mac: None });
    assert_eq!(read(0, 12).unwrap(), [0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0x28, 0x23]);
    assert_eq!(frontend.get_features().unwrap() & features::NET_F_MAC, 0);

    // A driver before virtio 1.0 writes its address; nothing else is anyone's to write.
    let flags = VhostUserConfigFlags::WRITABLE;
    frontend.set_config(0, flags, &[1; 6]).unwrap();
    assert!(frontend.set_config(10, flags, &[1; 2]).is_err());
    assert!(frontend.get_features().is_ok(), "the connection goes on");
    assert_eq!(port.last_error(), None);
}

#[test]
fn the_configuration_can_be_read_before_anything_is_negotiated() {
    let port = port(1, None);
    let frontend = RawFrontend::connect(&port.path);
    let body = [10u32, 2, 0].map(u32::to_ne_bytes).concat();
    assert!(frontend.send(GET_CONFIG, 1, &[&body[..], &[0, 0]].concat(), &[]));
    assert_eq!(frontend.reply().unwrap(), [&body[..], &[0xdc, 5]].concat());
    assert!(frontend.send(SET_CONFIG, 1, &[&body[..], &[0, 0]].concat(), &[]));
    assert_eq!(frontend.get(GET_QUEUE_NUM, &[]), 2);
    // More than there is: an answer without bytes.
    let body = [4000u32, 97, 0].map(u32::to_ne_bytes).concat();
    assert!(frontend.send(GET_CONFIG, 1, &[&body[..], &[0; 97]].concat(), &[]));
    assert_eq!(frontend.reply().unwrap(), [4000u32, 0, 0].map(u32::to_ne_bytes).concat());
    assert!(frontend.send(GET_CONFIG, 1, &[0; 4], &[]));
    assert!(frontend.is_closed(), "not even an offset");
}

/// Requests that are not offered but have replies of their own, and bytes of the reply.
const WITH_REPLY: [(u32, usize); 5] = [(31, 24), (40, 8), (41, 0), (42, 8), (43, 8)];
/// Requests that cannot be ignored.
const NOT_IGNORABLE: [u32; 7] = [22, 23, 26, 27, 28, 29, 33];

#[test]
fn a_request_that_is_not_offered_gets_the_answer_that_is_due() {
    let port = port(1, None);
    let frontend = RawFrontend::connect(&port.path);
    frontend.negotiate();
    let file = SharedMemory::new(0, 0, 4096).file;
    for (request, size) in WITH_REPLY {
        assert!(frontend.send(request, 1, &[0; 24], &[file.as_fd()]));
        assert_eq!(frontend.reply().expect("an answer").len(), size, "request {request}");
    }
    for request in [7, 21, 32, 35, 39, 45, 63, 64, 1000, u32::MAX].into_iter().chain(NOT_IGNORABLE)
    {
        assert!(
            !frontend.accepts(request, &[0; 8], &[file.as_fd()]),
            "request {request} was accepted"
        );
        assert!(frontend.accepts(SET_OWNER, &[], &[]), "the connection goes on after {request}");
    }
    for request in [7, 21, 32, 35, 39, 45, 1000] {
        assert!(frontend.send(request, 1, &[0; 8], &[]));
    }
    frontend.send_acknowledged(RESET_DEVICE, &[], &[]);
    assert_eq!(port.last_error(), None);
    assert_eq!(port.session.status().connects, 1);
}

#[test]
fn a_request_that_cannot_be_ignored_ends_the_connection_with_its_name_and_a_remedy() {
    for request in NOT_IGNORABLE {
        let port = port(1, None);
        let frontend = RawFrontend::connect(&port.path);
        assert!(frontend.send(request, 1, &[0; 8], &[]));
        assert!(frontend.is_closed(), "request {request}");
        eventually("a reason is kept", || port.last_error().is_some());
        let error = port.last_error().unwrap();
        assert!(error.contains(" (8 bytes): ") && !error.contains("malformed"), "{error}");
    }
}

#[test]
fn reset_device_stops_the_rings() {
    let port = port(1, None);
    let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
    let frontend = RawFrontend::connect(&port.path);
    frontend.share_memory(&memory);
    frontend.describe_ring(0, &memory, &eventfd());
    frontend.vring(SET_VRING_ENABLE, 0, 1);
    assert_eq!(port.rings.running(), [0]);
    frontend.send_acknowledged(RESET_DEVICE, &[], &[]);
    assert!(port.rings.running().is_empty());
}

#[test]
fn an_mtu_above_the_networks_is_refused_and_the_session_goes_on() {
    let port = port(1, None);
    let frontend = RawFrontend::connect(&port.path);
    frontend.negotiate();
    assert!(frontend.accepts(NET_SET_MTU, &words(&[1500]), &[]));
    assert!(!frontend.accepts(NET_SET_MTU, &words(&[1501]), &[]));
    assert!(frontend.accepts(SET_OWNER, &[], &[]));
    let recorded = port.complaint();
    assert!(recorded.contains("MTU of 1501") && recorded.contains("has 1500"), "{recorded}");
    port.session.set_device(DeviceSettings { mtu: 9000, mac: None });
    assert!(frontend.accepts(NET_SET_MTU, &words(&[9000]), &[]), "the network's MTU was raised");
}

#[test]
fn a_guest_with_a_larger_mtu_than_the_network_is_reported() {
    let port = port(1, None);
    let frontend = RawFrontend::connect(&port.path);
    frontend.negotiate();
    frontend.send_acknowledged(NET_SET_MTU, &words(&[1400]), &[]);
    port.session.set_device(DeviceSettings { mtu: 1450, mac: None });
    assert_eq!(port.last_error(), None, "what it was recorded still fits");
    port.session.set_device(DeviceSettings { mtu: 1300, mac: None });
    let recorded = port.complaint();
    assert!(recorded.contains("MTU of 1400") && recorded.contains("has 1300"), "{recorded}");
    drop(frontend);
    eventually("it goes", || port.session.status().state == SessionState::Listening);
    let next = RawFrontend::connect(&port.path);
    next.negotiate();
    port.session.set_device(DeviceSettings { mtu: 1200, mac: None });
    assert_eq!(port.last_error(), None, "the next one was recorded nothing");
}

#[test]
fn a_second_frontend_is_shown_as_waiting_and_served_next() {
    let port = port(1, None);
    let first = RawFrontend::connect(&port.path);
    first.negotiate();
    let me = format!("pid {} uid {}", std::process::id(), rustix::process::geteuid().as_raw());
    let status = || port.session.status();
    assert_eq!(status().peer.unwrap().to_string(), me);
    assert!(status().waiting.is_empty());

    let second = RawFrontend::connect(&port.path);
    assert!(second.send(GET_FEATURES, 1, &[], &[]));
    let third = RawFrontend::connect(&port.path);
    eventually("both wait", || status().waiting.len() == 2);
    assert_eq!(status().waiting[0].to_string(), me);
    assert!(first.accepts(SET_OWNER, &[], &[]), "the first is served as before");
    drop(third);
    eventually("the third has gone", || status().waiting.len() == 1);
    drop(first);
    assert_eq!(second.reply().expect("the second is served").len(), 8);
    assert_eq!((status().connects, status().waiting.len()), (2, 0));
}

#[test]
fn frontends_that_wait_are_bounded() {
    let port = port(1, None);
    let first = RawFrontend::connect(&port.path);
    first.negotiate();
    let mut others: Vec<_> = (0..20).map(|_| RawFrontend::connect(&port.path)).collect();
    eventually("eight wait", || port.session.status().waiting.len() == 8);
    first.send_acknowledged(SET_OWNER, &[], &[]);
    assert_eq!(port.session.status().waiting.len(), 8, "the others are not let in");
    // The last of them has its turn, too.
    let last = others.pop().unwrap();
    drop((first, others));
    last.negotiate();
    assert!(port.session.status().waiting.is_empty());
}

/// A frontend with ring 0 running in `memory`; QEMU's kick descriptors come with a kick.
fn with_ring(port: &Port, memory: &SharedMemory) -> (RawFrontend, std::os::fd::OwnedFd) {
    let (frontend, kick) = (RawFrontend::connect(&port.path), eventfd());
    signal(&kick);
    frontend.share_memory(memory);
    frontend.describe_ring(0, memory, &kick);
    frontend.vring(SET_VRING_ENABLE, 0, 1);
    assert_eq!(port.rings.running(), [0]);
    (frontend, kick)
}

fn signal(event: &std::os::fd::OwnedFd) {
    rustix::io::write(event, &1u64.to_ne_bytes()).unwrap();
}

#[test]
fn memory_that_is_not_shared_is_named_with_its_remedy() {
    // Nothing that the guest wrote arrives in the file: neither its kernel nor its ring.
    let port = port(1, None);
    let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
    let (frontend, kick) = with_ring(&port, &memory);
    frontend.send_acknowledged(SET_OWNER, &[], &[]);
    assert_eq!(port.last_error(), None, "the driver has written nothing yet");
    signal(&kick);
    let recorded = port.complaint();
    assert!(recorded.contains("share=on"), "{recorded}");
    assert_eq!(port.rings.running(), [0], "it is only said");
}

#[test]
fn a_healthy_guest_is_not_suspected() {
    // Nothing but the ring was ever written: firmware, huge or hot-plugged memory with holes. A
    // buffer is at descriptor 3, which only the available ring or the table may show.
    let index = |memory: &SharedMemory| memory.file.write_all_at(&[1, 0], 0x1002).unwrap();
    let descriptor = |memory: &SharedMemory| memory.file.write_all_at(&[8], 3 * 16 + 8).unwrap();
    let shown: [&dyn Fn(&SharedMemory); 2] = [&index, &descriptor];
    for write_ring in shown {
        let port = port(1, None);
        let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 30);
        let (frontend, kick) = with_ring(&port, &memory);
        write_ring(&memory);
        signal(&kick);
        // Kicks are looked at before requests are.
        frontend.send_acknowledged(SET_OWNER, &[], &[]);
        frontend.send_acknowledged(SET_OWNER, &[], &[]);
        assert_eq!(port.last_error(), None);
    }
}

#[test]
fn nothing_needs_protocol_features() {
    // A frontend without them enables rings all the same: they run from the start.
    let port = port(1, None);
    let frontend = RawFrontend::connect(&port.path);
    let plain = frontend.get(GET_FEATURES, &[]) & !VHOST_USER_PROTOCOL_FEATURES;
    assert!(frontend.send(SET_FEATURES, 1, &plain.to_ne_bytes(), &[]));
    assert!(frontend.send(SET_VRING_ENABLE, 1, &vring_state(0, 1), &[]));
    assert_eq!(frontend.get(GET_FEATURES, &[]) & plain, plain);
}
