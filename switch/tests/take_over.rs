//! Devices whose process is killed, and that another process takes over by the same descriptors.
//! Each test runs in its own network namespace; without the privilege to create one it prints so
//! and passes.
#![cfg(test)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::thread::UnshareFlags;
use trama_frame::vnet::NEEDS_CSUM;
use trama_frame::{MacAddr, Offloads, VnetHeader};
use trama_switch::{
    Captured, CounterSlab, Device, DummyHandle, Engine, Epoch, MacImage, NetworkId,
    NetworkSettings, PortIndex, PortSettings, Tap, TapOptions, TapParts, Time, Uplink,
    UplinkOptions, UplinkParts, WorkerGroup, dummy,
};
use trama_test_kit::{Station, c_tag, eventually, frame, mac, network, port, tagged, trunk};

/// Names the kind of device that a child process of a test reads from its standard input.
const KIND: &str = "TRAMA_TEST_DEVICE";
const HEADER: usize = 12;

/// Runs `test` on a thread in its own network namespace.
fn in_own_netns(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            #[allow(deprecated, reason = "it does not share descriptors")]
            let done = rustix::thread::unshare(UnshareFlags::NEWNET);
            match done {
                Ok(()) => test(),
                Err(error) => eprintln!("skipped: cannot make a namespace: {error}"),
            }
        });
    });
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

/// An engine with the device, and a station that gets what the device receives.
struct Lab {
    engine: Engine,
    station: Station,
    clock: u64,
}

impl Lab {
    fn new(device: Device) -> Lab {
        let mut engine = Engine::new(1);
        let network = network(&mut engine, 1500);
        engine.add_port(port(network, trunk()), device).unwrap();
        let station = Station::add(&mut engine, port(network, trunk()), Offloads::ALL);
        Lab { engine, station, clock: 0 }
    }

    fn tap(fd: OwnedFd) -> Lab {
        Lab::new(Device::Tap(Tap::from_parts(tap_parts(fd))))
    }

    fn uplink(socket: OwnedFd) -> Lab {
        let (to_host, offloads, mac) = (Err("not passed".to_owned()), Offloads::ALL, mac(1));
        let parts = UplinkParts { socket, to_host, header: HEADER, offloads, mac, namespace: None };
        Lab::new(Device::Uplink(Box::new(Uplink::from_parts(parts).unwrap())))
    }

    fn poll(&mut self) {
        self.clock += 1_000_000;
        self.engine.poll(Time(self.clock));
    }

    /// Moves frames once; returns the numbers of those of the test.
    fn numbers(&mut self) -> Vec<u32> {
        self.poll();
        self.station.handle.captured().iter().filter_map(number_of).collect()
    }

    /// Moves frames until all up to `last` have come; returns their numbers.
    fn numbers_to(&mut self, last: u32) -> Vec<u32> {
        let mut numbers = Vec::new();
        eventually("the last frame comes", || {
            numbers.append(&mut self.numbers());
            numbers.contains(&last)
        });
        numbers
    }

    /// Sends frames with these numbers, some of them tagged.
    fn send(&mut self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let mut bytes = frame(mac(1), mac(2), 60);
            bytes[14..18].copy_from_slice(&number.to_be_bytes());
            let is_tagged = number % 3 == 0;
            self.station.send(&if is_tagged { tagged(c_tag(5), &bytes) } else { bytes });
            self.poll();
        }
    }
}

fn tap_parts(fd: OwnedFd) -> TapParts {
    TapParts { fd, offloads: Offloads::ALL, vnet_header: true, namespace: None }
}

/// Returns the number of a frame of the test: an experimental frame, or a UDP datagram.
fn number_of(Captured { header, bytes }: &Captured) -> Option<u32> {
    let is_tagged = bytes[12..16] == [0x81, 0, 0, 5];
    let payload = &bytes[if is_tagged { 16 } else { 12 }..];
    let number = |at: usize| Some(u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()));
    match (payload, &bytes[..6]) {
        ([0x88, 0xb5, ..], _) => {
            let number = number(2)?;
            assert_eq!((is_tagged, &bytes[..6]), (number % 3 == 0, &mac(1).0[..]), "{number}");
            Some(number)
        }
        ([8, 0, ..], dst) if dst == mac(9).0 => {
            // The device still leaves the checksum to the receiver.
            assert_eq!((header.flags, header.csum_start), (NEEDS_CSUM, 34));
            number(30)
        }
        _ => None,
    }
}

#[test]
fn a_port_goes_on_with_its_counters() {
    let (mut slab, fd) = CounterSlab::create(2).unwrap();
    for process in 1..=3 {
        let mut engine = Engine::new(1);
        let network = network(&mut engine, 1500);
        let sender = Station::add(&mut engine, port(network, trunk()), Offloads::ALL);
        let (device, receiver) = dummy(64);
        let counters = slab.port("kept").unwrap();
        let settings = port(network, trunk());
        engine.add_port_with(settings, Device::Dummy(device), counters.clone()).unwrap();
        sender.send(&frame(mac(1), mac(2), 60));
        engine.poll(Time(1));
        assert_eq!((receiver.captured().len(), counters.tx_frames.get()), (1, process));
        slab = CounterSlab::open(fd.try_clone().unwrap()).unwrap();
    }
}

/// Addresses that a process learns in a table of a quarter as many, so that entries are evicted and
/// moved all the time.
const MACS: u32 = 4000;
const PORTS: [&str; 4] = ["p0", "p1", "p2", "p3"];

/// Makes an engine with a network and its ports; the table is kept if `keep` is set.
fn learner(keep: bool) -> (Engine, NetworkId, Vec<DummyHandle>, Option<OwnedFd>) {
    let settings = NetworkSettings {
        name: "lab".into(),
        mtu: 1500,
        mac_table_size: MACS as usize / 4,
        mac_aging: Duration::from_secs(300),
    };
    let (id, mut value) = WorkerGroup::new(1).network(settings);
    let fd = keep.then(|| value.keep_macs(Epoch::of(Time::ZERO)).unwrap());
    let mut engine = Engine::new(1);
    engine.take_network(value, Time::ZERO);
    let mut plug = |name: &str| {
        let (device, handle) = dummy(64);
        let settings = PortSettings { name: name.into(), ..port(id, trunk()) };
        engine.add_port(settings, Device::Dummy(device)).unwrap();
        handle
    };
    let handles = PORTS.map(&mut plug).into();
    (engine, id, handles, fd)
}

#[test]
fn a_learner_in_a_process_of_its_own() {
    if std::env::var(KIND).as_deref() != Ok("learner") {
        return;
    }
    let (mut engine, _, handles, fd) = learner(true);
    for round in 0u64.. {
        for n in 0..MACS {
            let source = MacAddr::from_u64(0x0200_0000_0000 | u64::from(n));
            let sender = &handles[n as usize % PORTS.len()];
            sender.inject(VnetHeader::default(), &frame(mac(1), source, 60)).unwrap();
            engine.poll(Time(round));
            handles.iter().for_each(|handle| drop(handle.captured()));
        }
        if round == 0 {
            println!("\nread: {}", fd.as_ref().unwrap().as_raw_fd());
        }
    }
}

/// A process is killed while it learns; no address has another port than it was seen on.
#[test]
fn what_a_killed_process_had_learned_is_known() {
    for _ in 0..20 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_learner_in_a_process_of_its_own", "--nocapture"]);
        let mut process =
            Reader(command.env(KIND, "learner").stdout(Stdio::piped()).spawn().unwrap());
        let fd = first_report(&mut process.0);
        let image = File::open(format!("/proc/{}/fd/{fd}", process.0.id())).unwrap();
        drop(process);
        let image = MacImage::read(image.into()).unwrap();
        let (mut engine, network, ..) = learner(false);
        let (now, mut imported) = (Time(1), 0);
        for part in image.parts() {
            imported += engine.import_macs(network, part, Epoch::of(now), now).unwrap();
        }
        let known = engine.fdb(network, now);
        assert!(known.len() == imported && imported >= MACS as usize / 4 - 1, "{imported}");
        for (_, entry) in known {
            let wanted = entry.mac.to_u64() as u16 % PORTS.len() as u16;
            assert_eq!(entry.port, PortIndex(wanted), "{}", entry.mac);
        }
    }
}

/// A process that reads a device.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has another process take over a device and read frames; kills it between two bursts with SIGKILL
/// and returns the numbers that it has read.
fn read_and_be_killed(kind: &str, device: &OwnedFd) -> Vec<u32> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_reader_in_a_process_of_its_own", "--nocapture"]).env(KIND, kind);
    command.stdin(device.try_clone().unwrap()).stdout(Stdio::piped());
    let mut reader = Reader(command.spawn().unwrap());
    let report = first_report(&mut reader.0);
    report.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// Waits until a process reports, and returns what.
fn first_report(process: &mut Child) -> String {
    let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut reports = lines.filter_map(|line| Some(line.strip_prefix("read: ")?.to_owned()));
    reports.next().expect("the process reports")
}

#[test]
fn a_reader_in_a_process_of_its_own() {
    let Ok(kind) = std::env::var(KIND) else { return };
    assert!(["tap", "uplink"].contains(&kind.as_str()), "{kind}");
    let device = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut lab = if kind == "tap" { Lab::tap(device) } else { Lab::uplink(device) };
    let mut numbers = Vec::new();
    eventually("a frame of the test comes", || {
        numbers = lab.numbers();
        !numbers.is_empty()
    });
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    println!("\nread: {}", numbers.join(" "));
    loop {
        std::thread::park();
    }
}

#[test]
fn a_tap_outlives_the_process_that_reads_it() {
    in_own_netns(|| {
        let options = |ifname: &str, address| TapOptions {
            ifname: ifname.into(),
            netns: None,
            address,
            mtu: 1500,
            mac: Some(mac(1)),
            vnet_header: true,
            must_be_new: false,
        };
        let address = vec![(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 24)];
        let tap = Tap::open(&options("t0", address)).unwrap().into_parts().fd;
        let bridged = Tap::open(&options("t1", Vec::new())).unwrap().into_parts().fd;
        ip("link add br0 type bridge");
        ip("link set t1 master br0");
        ip("route add default via 10.77.0.254 dev t0");
        ip("neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev t0");
        let shown = || [ip("route show"), ip("-o link show"), ip("-o -4 addr show")];
        let before = shown();

        let socket = UdpSocket::bind("10.77.0.1:5000").unwrap();
        let send = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                socket.send_to(&number.to_be_bytes(), "10.77.0.9:7000").unwrap();
            }
        };
        send(0..100);
        let mut numbers = read_and_be_killed("tap", &tap);
        assert!(numbers.len() < 100, "it was killed before it had read all");
        send(100..150);
        let mut lab = Lab::tap(tap);
        numbers.extend(lab.numbers_to(149));
        assert_eq!(numbers, (0..150).collect::<Vec<_>>());

        assert_eq!(shown(), before);
        assert!(before[0].contains("default via 10.77.0.254 dev t0"), "{before:?}");
        assert!(before[1].contains("t1") && before[1].contains("master br0"), "{before:?}");

        // A cable that was pulled meanwhile is plugged in as the new process is told.
        let bridged = Tap::from_parts(tap_parts(bridged));
        bridged.set_carrier(false).unwrap();
        assert!(ip("-o link show t1").contains("NO-CARRIER"));
        let _lab = Lab::new(Device::Tap(bridged));
        assert!(!ip("-o link show t1").contains("NO-CARRIER"));
    });
}

fn join(ifname: &str) -> UplinkParts {
    let options = UplinkOptions { ifname: ifname.into(), netns: None, mtu: 1500 };
    UplinkParts::open(&options).unwrap()
}

#[test]
fn an_uplink_outlives_the_process_that_reads_it() {
    in_own_netns(|| {
        ip("link add eth0 type veth peer lan0");
        ip("link set eth0 up");
        ip("link set lan0 up");
        let UplinkParts { socket, header, .. } = join("eth0");
        if header != HEADER {
            eprintln!("skipped: the kernel is older than 6.5");
            return;
        }
        let other = join("lan0").socket;
        let mut lan = Lab::uplink(other);

        // More than once round the ring, so that its start tells nothing.
        let (mut sent, mut read) = (0, Vec::new());
        for round in 0..7 {
            lan.send(sent..sent + 100);
            if round > 0 {
                read.append(&mut read_and_be_killed("uplink", &socket));
            }
            lan.send(sent + 100..sent + 130);
            sent += 130;
            // The last reader has read everything, or a burst remains for the next.
            let mut next = Lab::uplink(socket.try_clone().unwrap());
            if round % 2 == 0 {
                read.append(&mut next.numbers_to(sent - 1));
            } else {
                read.append(&mut next.numbers());
            }
        }
        assert_eq!(read, (0..sent).collect::<Vec<_>>());

        // It sends, too.
        let mut next = Lab::uplink(socket);
        let mut back = frame(mac(2), mac(1), 60);
        back[14..18].copy_from_slice(&1u32.to_be_bytes());
        next.station.handle.inject(VnetHeader::default(), &back).unwrap();
        next.poll();
        eventually("the frame crosses the uplink", || {
            lan.poll();
            lan.station.frames().contains(&back)
        });
    });
}
