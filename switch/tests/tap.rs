//! TAP ports against the kernel's own network stack, each test in its own namespaces, which vanish
//! with their threads. Without the privilege to create them the tests print so and pass.
#![cfg(test)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::thread::UnshareFlags;
use trama_frame::vnet::NEEDS_CSUM;
use trama_frame::{MacAddr, Offloads, VnetHeader, checksum, ethernet};
use trama_switch::{
    Device, DropReason, Engine, NetworkId, PortFault, Spin, Tap, TapOptions, Time, WorkerHandle,
    WorkerOptions,
};
use trama_test_kit::{PATIENCE, Station, frame, mac, network, port, trunk};

fn options(ifname: &str, last: u8) -> TapOptions {
    TapOptions {
        ifname: ifname.into(),
        netns: None,
        address: vec![(IpAddr::V4(Ipv4Addr::new(10, 77, 0, last)), 24)],
        mtu: 1500,
        mac: Some(mac(last)),
        vnet_header: true,
        must_be_new: false,
    }
}

/// Moves this thread into its own namespaces; returns `false` if that is not permitted.
fn unshare(flags: UnshareFlags) -> bool {
    #[allow(deprecated, reason = "it does not share descriptors, which is what the newer is about")]
    let done = rustix::thread::unshare(flags);
    match done {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: cannot make a namespace: {error}");
            false
        }
    }
}

/// Runs `test` on a thread in its own network namespace.
fn in_own_netns(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if unshare(UnshareFlags::NEWNET) {
                test();
            }
        });
    });
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// An engine with a TAP, whose other side is this namespace, and a station played by the test.
struct Lab {
    engine: Engine,
    network: NetworkId,
    tap: trama_switch::PortId,
    tap_counters: trama_switch::Lasting<trama_switch::PortCounters>,
    station: Station,
    clock: u64,
}

impl Lab {
    fn new(options: &TapOptions, offloads: Offloads) -> Lab {
        let mut engine = Engine::new(1);
        let network = network(&mut engine, 1500);
        let device = Device::Tap(Tap::open(options).unwrap());
        let (tap, tap_counters) = engine.add_port(port(network, trunk()), device).unwrap();
        let station = Station::add(&mut engine, port(network, trunk()), offloads);
        Lab { engine, network, tap, tap_counters, station, clock: 0 }
    }

    fn poll(&mut self) -> bool {
        self.clock += 1_000_000;
        self.engine.poll(Time(self.clock))
    }

    /// Switches until `wanted` accepts a captured frame.
    fn until<R>(&mut self, mut wanted: impl FnMut(&VnetHeader, &[u8]) -> Option<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.poll();
            for frame in self.station.handle.captured() {
                if let Some(found) = wanted(&frame.header, &frame.bytes) {
                    return found;
                }
            }
            assert!(Instant::now() < deadline, "it does not come");
        }
    }
}

const OUR_ADDRESS: [u8; 4] = [10, 77, 0, 9];

/// Answers the ARP request for the station's address.
fn answer_arp(lab: &mut Lab) {
    let request = lab.until(|_, bytes| {
        let is_it = bytes[12..14] == [8, 6] && bytes[38..42] == OUR_ADDRESS;
        is_it.then(|| bytes.to_vec())
    });
    let mut reply = request.clone();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&mac(9).0);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&mac(9).0);
    reply[28..32].copy_from_slice(&OUR_ADDRESS);
    reply[32..42].copy_from_slice(&request[22..32]);
    lab.station.send(&reply);
    lab.poll();
}

/// Builds a UDP datagram from the station to the host.
fn udp_to_host(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 9, 10, 77, 0, 1];
    ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    let sum = checksum::internet(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let ports = [from.to_be_bytes(), to.to_be_bytes(), udp_len.to_be_bytes()].concat();
    let pseudo = [&ip[12..20], &[0, 17], &udp_len.to_be_bytes()].concat();
    let partial = !checksum::internet(&pseudo);
    let sum = partial.to_be_bytes();
    [&mac(1).0, &mac(9).0, &[8, 0][..], &ip, &ports, &sum, payload].concat()
}

#[test]
fn the_kernel_exchanges_packets_through_a_tap() {
    in_own_netns(|| {
        for offloads in [Offloads::ALL, Offloads::NONE] {
            let mut lab = Lab::new(&options("t0", 1), offloads);
            let socket = UdpSocket::bind("10.77.0.1:5000").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"to the guest", "10.77.0.9:7000").unwrap();
            answer_arp(&mut lab);
            let (header, bytes) = lab.until(|header, bytes| {
                (bytes[12..14] == [8, 0] && bytes[23] == 17).then(|| (*header, bytes.to_vec()))
            });
            assert_eq!(&bytes[42..], b"to the guest");
            assert_eq!((&bytes[..6], &bytes[6..12]), (&mac(9).0[..], &mac(1).0[..]));
            // The kernel leaves the checksum only to a receiver with the offload.
            if offloads.contains(Offloads::CSUM) {
                assert_eq!((header.flags, header.csum_start), (NEEDS_CSUM, 34));
            } else {
                assert!(header.is_plain());
                let length = (bytes.len() - 34) as u16;
                let pseudo = [&bytes[26..34], &[0, 17], &length.to_be_bytes()].concat();
                assert_eq!(checksum::internet(&[&pseudo[..], &bytes[34..]].concat()), 0);
            }
            // The kernel accepts a frame without its checksum.
            let reply = udp_to_host(7000, 5000, b"to the host");
            let unfinished = VnetHeader {
                flags: NEEDS_CSUM,
                csum_start: 34,
                csum_offset: 6,
                ..VnetHeader::default()
            };
            lab.station.handle.inject(unfinished, &reply).unwrap();
            lab.poll();
            let mut buffer = [0; 100];
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"to the host");
            assert_eq!(from, "10.77.0.9:7000".parse().unwrap());
            let counters = lab.tap_counters.snapshot();
            assert!(counters.tx_frames >= 2 && counters.dropped_total() == 0);
        }
    });
}

#[test]
fn without_a_virtio_net_header_offloads_are_done_in_software() {
    in_own_netns(|| {
        let mut lab =
            Lab::new(&TapOptions { vnet_header: false, ..options("t0", 1) }, Offloads::ALL);
        let socket = UdpSocket::bind("10.77.0.1:5000").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"to the guest", "10.77.0.9:7000").unwrap();
        answer_arp(&mut lab);
        lab.until(|header, bytes| {
            assert!(header.is_plain());
            (bytes[12..14] == [8, 0] && &bytes[42..] == b"to the guest").then_some(())
        });
        let unfinished =
            VnetHeader { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Default::default() };
        let reply = udp_to_host(7000, 5000, b"to the host");
        lab.station.handle.inject(unfinished, &reply).unwrap();
        lab.poll();
        assert_eq!(socket.recv_from(&mut [0; 100]).unwrap().0, 11);
        assert_eq!(lab.tap_counters.snapshot().software_checksum_frames, 1);
    });
}

/// Two namespaces, with TCP between them through the switch.
#[test]
fn tcp_passes_in_large_segments() {
    const TOTAL: usize = 64 << 20;
    let worker_options =
        WorkerOptions { spin: Spin::For(Duration::from_micros(20)), name: "w".into(), seed: 1 };
    let (worker, thread) = WorkerHandle::spawn(worker_options).unwrap();
    let network = worker.call(|engine, _| network(engine, 1500)).unwrap();
    let add = &|tap: Tap| {
        let settings = port(network, trunk());
        worker.call(move |engine, _| engine.add_port(settings, Device::Tap(tap)).unwrap()).unwrap()
    };
    let (listening, is_listening) = mpsc::channel();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            if !unshare(UnshareFlags::NEWNET) {
                return None;
            }
            let counters = add(Tap::open(&options("t1", 1)).unwrap()).1;
            let listener = TcpListener::bind("10.77.0.1:5001").unwrap();
            listening.send(()).unwrap();
            let mut stream = listener.accept().unwrap().0;
            let mut buffer = vec![0; 1 << 20];
            let mut received = 0;
            while received < TOTAL {
                let len = stream.read(&mut buffer).unwrap();
                assert!(len > 0, "ended after {received}");
                let wrong = (0..len).find(|i| buffer[*i] != pattern(received + i));
                assert_eq!(wrong.map(|i| received + i), None);
                received += len;
            }
            Some(counters)
        });
        scope.spawn(move || {
            if !unshare(UnshareFlags::NEWNET) || is_listening.recv().is_err() {
                return;
            }
            let _port = add(Tap::open(&options("t2", 2)).unwrap());
            let mut stream = TcpStream::connect("10.77.0.1:5001").unwrap();
            let bytes: Vec<u8> = (0..TOTAL).map(pattern).collect();
            stream.write_all(&bytes).unwrap();
        });
        let Some(counters) = server.join().unwrap() else { return };
        let counters = counters.snapshot();
        assert!(counters.tx_gso_frames > 500, "{counters:?}");
        assert_eq!(counters.software_gso_frames + counters.software_checksum_frames, 0);
    });
    worker.stop();
    thread.join().unwrap();
}

fn pattern(at: usize) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}

#[test]
fn a_device_that_is_down_drops_and_one_that_is_deleted_breaks_its_port() {
    in_own_netns(|| {
        let mut lab = Lab::new(&options("t0", 1), Offloads::NONE);
        let other = Station::add(&mut lab.engine, port(lab.network, trunk()), Offloads::NONE);
        let bytes = frame(MacAddr::BROADCAST, mac(9), 60);
        ip("link set t0 down");
        lab.station.send(&bytes);
        while lab.poll() {}
        assert!(!lab.poll(), "a device that is down is silent");
        assert_eq!(lab.tap_counters.snapshot().dropped(DropReason::DeviceError), 1);
        ip("link set t0 up");
        let before = lab.tap_counters.snapshot().tx_frames;
        lab.station.send(&bytes);
        while lab.poll() {}
        assert_eq!(lab.tap_counters.snapshot().tx_frames, before + 1);
        ip("link del t0");
        lab.poll();
        assert_eq!(lab.engine.broken_ports(), [(lab.tap, PortFault::DeviceGone)]);
        other.frames();
        lab.station.send(&bytes);
        while lab.poll() {}
        assert_eq!(other.frames(), [bytes]);
    });
}

#[test]
fn the_cable_shows_as_carrier() {
    in_own_netns(|| {
        let mut lab = Lab::new(&options("t0", 1), Offloads::NONE);
        // sysfs shows the namespace in which it was mounted; query as a host would.
        let carrier = || {
            let shown = Command::new("ip").args(["-o", "link", "show", "t0"]).output().unwrap();
            !String::from_utf8(shown.stdout).unwrap().contains("NO-CARRIER")
        };
        assert!(carrier());
        let mut settings = port(lab.network, trunk());
        settings.cable = false;
        lab.engine.set_port(lab.tap, settings).unwrap();
        assert!(!carrier());
        lab.engine.set_port(lab.tap, port(lab.network, trunk())).unwrap();
        assert!(carrier());
    });
}

#[test]
fn addresses_mtu_and_mac_are_as_asked() {
    in_own_netns(|| {
        let v6 = "fd00:77::1".parse().unwrap();
        let more = [(IpAddr::V4(Ipv4Addr::new(192, 168, 9, 1)), 20), (v6, 64)];
        let mut wanted = TapOptions { mtu: 9000, mac: Some(mac(0x55)), ..options("t0", 1) };
        wanted.address.extend(more);
        let _tap = Tap::open(&wanted).unwrap();
        let shown = Command::new("ip").args(["-o", "addr", "show", "t0"]).output().unwrap();
        let addresses = String::from_utf8(shown.stdout).unwrap();
        for address in ["10.77.0.1/24", "192.168.9.1/20", "fd00:77::1/64"] {
            assert!(addresses.contains(address), "{address}: {addresses}");
        }
        let shown = Command::new("ip").args(["-o", "link", "show", "t0"]).output().unwrap();
        let link = String::from_utf8(shown.stdout).unwrap();
        assert!(link.contains("mtu 9000") && link.contains("02:00:00:00:00:55"), "{link}");
    });
}

#[test]
fn errors_name_the_device_and_the_remedy() {
    in_own_netns(|| {
        let error = |options: &TapOptions| Tap::open(options).err().unwrap().to_string();
        let _tap = Tap::open(&options("t0", 1)).unwrap();
        let said = error(&options("t0", 1));
        assert!(said.contains("t0") && said.contains("taken") && said.contains("in use"), "{said}");
        let said = error(&options("lo", 1));
        assert!(said.contains("another kind of interface"), "{said}");
        for name in ["", "a-name-too-long-", "a/b", "a b", "t%d"] {
            assert!(error(&options(name, 1)).contains("1 to 15"), "{name}");
        }
        let lost = TapOptions { netns: Some("not-there".into()), ..options("t1", 1) };
        let said = error(&lost);
        assert!(said.contains("/run/netns/not-there") && said.contains("ip netns add"), "{said}");
        let said = error(&TapOptions { netns: Some("../x".into()), ..options("t1", 1) });
        assert!(said.contains("or an absolute path"), "{said}");
        let said = error(&TapOptions { mtu: 20, ..options("t1", 1) });
        assert!(said.contains("t1") && said.contains("MTU 20"), "{said}");
        // The failed creation left nothing behind.
        let shown = Command::new("ip").args(["link", "show", "t1"]).output().unwrap();
        assert!(!shown.status.success());
    });
}

#[test]
fn a_named_namespace_gets_the_device() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A private /run, so that no name stays behind in any case.
            if !unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS) {
                return;
            }
            let mount = |arguments: &str| {
                let status = Command::new("mount").args(arguments.split(' ')).status().unwrap();
                assert!(status.success(), "mount {arguments}");
            };
            mount("--make-rprivate /");
            mount("-t tmpfs tmpfs /run");
            ip("netns add there");
            let wanted = TapOptions { netns: Some("there".into()), ..options("t0", 1) };
            let mut lab = Lab::new(&wanted, Offloads::NONE);
            ip("-n there link show t0");
            let here = Command::new("ip").args(["link", "show", "t0"]).output().unwrap();
            assert!(!here.status.success(), "not in this namespace");
            // Frames pass between the two.
            let arp = |bytes: &[u8]| ethernet::parse(bytes).is_some_and(|e| e.ethertype == 0x0806);
            let script = "netns exec there ping -c 1 -W 1 10.77.0.9";
            let mut ping = Command::new("ip").args(script.split(' ')).spawn().unwrap();
            lab.until(|_, bytes| arp(bytes).then_some(()));
            let _ = ping.kill();
            let _ = ping.wait();
        });
    });
}
