//! The generator against backends in this process: the null device, and a switch.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use trama_switch::{
    Device, HdrLen, NetworkSettings, PortSettings, Spin, VhostDevice, VlanMode, VlanSet,
    WorkerHandle, WorkerOptions,
};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{Role, Session, SessionOptions, features};

use super::*;

const FRAMES: u64 = 4_000;

/// Returns a load that an unoptimised build on a busy machine keeps up with.
fn paced(size: usize, direction: Direction) -> Load {
    Load {
        rate: Some(20_000.0),
        duration: Duration::from_secs(1) * FRAMES as u32 / 20_000,
        ..Load::new(size, direction)
    }
}

/// Returns rings that hold all frames of a test: no frame is lost for lack of room, however long a
/// thread is descheduled.
fn options() -> Options {
    Options { queue_size: 4096, ..Options::default() }
}

/// Asserts that the load arrived completely, once, in order, at its targets.
fn assert_exact(outcome: &Outcome, load: &Load, copies: u64) {
    let all = (load.rate.unwrap() * load.duration.as_secs_f64()).round() as u64;
    assert_eq!((outcome.offered, outcome.sent), (all, all));
    assert_eq!((outcome.expected, outcome.received), (copies * all, copies * all));
    let faults = (outcome.lost, outcome.duplicates, outcome.reordered, outcome.strays);
    assert_eq!(faults, (0, 0, 0, 0));
    assert_eq!(outcome.loss_ratio(), 0.0);
    let latency = outcome.latency.as_ref().unwrap();
    assert_eq!(latency.len(), copies * all);
    assert!(latency.min() > 0 && outcome.latency(100.0) >= outcome.latency(50.0));
}

struct Sockets {
    _dir: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn sockets(count: usize) -> Sockets {
    let dir = tempfile::tempdir().unwrap();
    let paths = (0..count).map(|i| dir.path().join(i.to_string())).collect();
    Sockets { _dir: dir, paths }
}

/// A worker with a network whose ports are vhost-user sockets.
struct Switch {
    worker: WorkerHandle,
    thread: Option<JoinHandle<()>>,
    sessions: Vec<Session>,
}

impl Switch {
    fn start(sockets: &Sockets, vlans: &[VlanMode], spin: Spin) -> Switch {
        let options = WorkerOptions { spin, name: "worker".into(), seed: 1 };
        let (worker, thread) = WorkerHandle::spawn(options).unwrap();
        let settings = NetworkSettings {
            name: "test".into(),
            mtu: 1500,
            mac_table_size: 8192,
            mac_aging: Duration::from_secs(300),
        };
        let network = worker.call(|engine, _| engine.add_network(settings)).unwrap();
        let session = |(path, vlan): (&PathBuf, VlanMode)| {
            let port = PortSettings {
                name: path.display().to_string(),
                network: Some(network),
                vlan,
                cable: true,
                filter: Default::default(),
                mark: 0,
                hdr_len: HdrLen::Headers,
            };
            let device = Device::Vhost(VhostDevice::new(1));
            let added = worker.call(|engine, _| engine.add_port(port, device)).unwrap();
            let rings = SwitchPort::new(worker.clone(), added.unwrap().0).unwrap();
            Session::spawn(SessionOptions::new(path, Role::Server), rings).unwrap()
        };
        let vlans = vlans.iter().cloned().chain(std::iter::repeat_with(trunk));
        let sessions = sockets.paths.iter().zip(vlans).map(session).collect();
        Switch { worker, thread: Some(thread), sessions }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.sessions.clear();
        self.worker.stop();
        let _ = self.thread.take().unwrap().join();
    }
}

fn trunk() -> VlanMode {
    VlanMode::Trunk { trunks: VlanSet::all() }
}

fn start_null_device(sockets: &Sockets, forwarding: Forwarding) -> Result<NullDevice> {
    NullDevice::start(&sockets.paths, NullDeviceOptions::new(forwarding))
}

/// Runs `load` on a switch with this many trunks, and expects no loss.
fn run_through_a_switch(ports: usize, load: &Load, options: Options, copies: u64) {
    let sockets = sockets(ports);
    let _switch = Switch::start(&sockets, &[], Spin::For(Duration::from_micros(20)));
    let mut group = Group::connect(&sockets.paths, options).unwrap();
    group.learn(load).unwrap();
    assert_exact(&group.run(load).unwrap(), load, copies);
}

#[test]
fn the_null_device_delivers_exactly() {
    let variants = [
        (Serving::Immediate, Role::Server),
        (Serving::Batched, Role::Server),
        (Serving::Batched, Role::Client),
    ];
    let pairs = NullDeviceOptions::new(Forwarding::Pairs);
    for (serving, role) in variants {
        let sockets = sockets(4);
        // A socket file left behind by a killed process does no harm.
        drop(std::os::unix::net::UnixListener::bind(&sockets.paths[0]).unwrap());
        let device =
            NullDevice::start(&sockets.paths, NullDeviceOptions { role, serving, ..pairs })
                .unwrap();
        let mut group =
            Group::connect(&sockets.paths, Options { backend_role: role, ..options() }).unwrap();
        for (size, direction) in
            [(60, Direction::Both), (64, Direction::Uni), (1514, Direction::Both)]
        {
            let load = paced(size, direction);
            group.learn(&load).unwrap();
            assert_exact(&group.run(&load).unwrap(), &load, 1);
        }
        // Without a schedule there is no latency, and the offered frames are those that the rings
        // took.
        let load = Load { duration: Duration::from_millis(50), ..Load::new(60, Direction::Both) };
        let outcome = group.run(&load).unwrap();
        assert!(outcome.sent > 0 && outcome.sent == outcome.offered, "{outcome:?}");
        assert_eq!(outcome.received + outcome.lost, outcome.sent);
        assert_eq!((outcome.duplicates, outcome.reordered, outcome.strays), (0, 0, 0));
        assert!(outcome.latency.is_none() && outcome.rate() > 0.0);
        drop((group, device));
        assert!(sockets.paths.iter().all(|path| !path.exists()), "sockets are left behind");
    }
}

#[test]
fn every_direction_reaches_its_receivers_through_a_switch() {
    for (direction, copies) in [
        (Direction::Uni, 1),
        (Direction::Both, 1),
        (Direction::Mesh, 1),
        (Direction::FanIn, 1),
        (Direction::FanOut, 1),
        (Direction::Flood, 3),
    ] {
        run_through_a_switch(4, &paced(60, direction), options(), copies);
    }
}

#[test]
fn stations_and_tags_pass_a_switch() {
    let stations = Load { sources: 50, destinations: 30, ..paced(200, Direction::Both) };
    run_through_a_switch(2, &stations, options(), 1);
    let tagged = Load { vlans: vec![Some(10); 4], ..paced(64, Direction::Mesh) };
    run_through_a_switch(4, &tagged, options(), 1);
    let moving = Load { moving: true, sources: 4, ..paced(60, Direction::Flood) };
    run_through_a_switch(3, &moving, options(), 2);
}

#[test]
fn large_segments_pass_a_switch_whole() {
    // Fifty frames each way, of ten buffers each: all fit into a ring of 512.
    let load = Load { rate: Some(500.0), ..paced(20_000, Direction::Both) };
    let options = Options { queue_size: 512, largest_frame: 20_000, offloads: true, ..options() };
    run_through_a_switch(2, &Load { gso: Some(1448), ..load }, options, 1);
}

#[test]
fn tags_are_pushed_and_popped_on_the_way() {
    let sockets = sockets(2);
    let access = VlanMode::Access { tag: trama_frame::VlanId::new(10).unwrap() };
    let _switch = Switch::start(&sockets, &[access, trunk()], Spin::Always);
    let mut group = Group::connect(&sockets.paths, options()).unwrap();
    let load = Load { vlans: vec![None, Some(10)], ..paced(100, Direction::Both) };
    group.learn(&load).unwrap();
    assert_exact(&group.run(&load).unwrap(), &load, 1);
    // Another VLAN has no route.
    let elsewhere = Load { vlans: vec![None, Some(11)], ..load };
    let outcome = group.run(&elsewhere).unwrap();
    assert_eq!((outcome.received, outcome.lost), (FRAMES / 2, FRAMES / 2), "only from access");
}

#[test]
fn a_sleeping_group_is_woken_by_a_sleeping_switch() {
    for mask in [0, features::RING_EVENT_IDX, features::IN_ORDER | features::NET_F_MRG_RXBUF] {
        let sockets = sockets(2);
        let _switch = Switch::start(&sockets, &[], Spin::Never);
        let options = Options { sleeping: true, features: mask, ..options() };
        let mut group = Group::connect(&sockets.paths, options).unwrap();
        let load = paced(60, Direction::Both);
        group.learn(&load).unwrap();
        assert_exact(&group.run(&load).unwrap(), &load, 1);
        // Frames are so far apart that both ends sleep in between.
        let duration = Duration::from_millis(100);
        let rare = Load { rate: Some(500.0), duration, ..load };
        let outcome = group.run(&rare).unwrap();
        assert_eq!((outcome.offered, outcome.received, outcome.lost), (50, 50, 0));
    }
}

#[test]
fn a_stalled_device_shows_in_the_percentiles() {
    const STALL: Duration = Duration::from_millis(100);
    let sockets = sockets(2);
    let device = start_null_device(&sockets, Forwarding::Pairs).unwrap();
    let mut group = Group::connect(&sockets.paths, options()).unwrap();
    let load = paced(60, Direction::Uni);
    group.learn(&load).unwrap();
    // The first half of the run.
    device.stall(STALL);
    let outcome = group.run(&load).unwrap();
    assert_exact(&outcome, &load, 1);
    let at = |percentile| Duration::from_nanos(outcome.latency(percentile).unwrap());
    assert!(at(100.0) > STALL / 2, "{:?}", at(100.0));
    assert!(at(75.0) > STALL / 8, "a quarter of all frames waited longer: {:?}", at(75.0));
}

#[test]
fn a_switch_that_does_not_keep_up_loses() {
    let sockets = sockets(2);
    let device = start_null_device(&sockets, Forwarding::Pairs).unwrap();
    let small = Options { queue_size: 64, ..options() };
    let mut group = Group::connect(&sockets.paths, small).unwrap();
    let load = paced(60, Direction::Uni);
    group.learn(&load).unwrap();
    // Until long after the last frame was due: what finds no room in the ring counts as lost.
    device.stall(load.duration * 10);
    let outcome = group.run(&load).unwrap();
    assert_eq!((outcome.offered, outcome.sent), (FRAMES, 64));
    // A few find no buffer, because buffers are returned in batches.
    assert!((48..=64).contains(&outcome.received), "{outcome:?}");
    assert_eq!(outcome.lost, FRAMES - outcome.received);
    assert!(outcome.loss_ratio() > 0.9 && outcome.rate() < 1000.0);
    // The group then continues with the next run.
    let few = Load { rate: Some(1000.0), duration: Duration::from_millis(50), ..load };
    assert_exact(&group.run(&few).unwrap(), &few, 1);
}

#[test]
fn a_null_device_by_address_serves_any_number_of_ports() {
    let sockets = sockets(3);
    let _device = start_null_device(&sockets, Forwarding::ByAddress).unwrap();
    let mut group = Group::connect(&sockets.paths, options()).unwrap();
    for direction in [Direction::Mesh, Direction::FanIn, Direction::FanOut] {
        let load = paced(60, direction);
        group.learn(&load).unwrap();
        assert_exact(&group.run(&load).unwrap(), &load, 1);
    }
}

#[test]
fn a_null_device_to_all_floods() {
    let sockets = sockets(3);
    let _device = start_null_device(&sockets, Forwarding::All).unwrap();
    let mut group = Group::connect(&sockets.paths, options()).unwrap();
    let load = paced(60, Direction::Flood);
    group.learn(&load).unwrap();
    assert_exact(&group.run(&load).unwrap(), &load, 2);
}

#[test]
fn impossible_requests_are_refused_with_a_reason() {
    let none = sockets(1);
    let odd = start_null_device(&none, Forwarding::Pairs).err().unwrap();
    assert!(odd.to_string().contains("one is left over"), "{odd}");
    let sockets = sockets(2);
    let _device = start_null_device(&sockets, Forwarding::Pairs).unwrap();
    let odd_size = Options { queue_size: 100, ..options() };
    let size = Group::connect(&sockets.paths, odd_size).err().unwrap().to_string();
    assert!(size.contains("not a power of two"), "{size}");
    let listening = Options { backend_role: Role::Client, ..options() };
    let taken = Group::connect(&sockets.paths, listening).err().unwrap().to_string();
    assert!(taken.contains("cannot listen there"), "{taken}");
    let mut group = Group::connect(&sockets.paths, options()).unwrap();
    let load = Load::new(60, Direction::Both);
    let mut refused = |load: Load, reason: &str| {
        let error = group.run(&load).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(Load { size: 59, ..load.clone() }, "59 bytes");
    refused(Load { size: 60, vlans: vec![Some(1)], ..load.clone() }, "64 to");
    refused(Load { vlans: vec![Some(4095)], size: 64, ..load.clone() }, "VLAN 4095");
    refused(Load { size: 1523, ..load.clone() }, "1523 bytes is larger");
    refused(Load { gso: Some(1448), size: 1514, ..load.clone() }, "offloads");
    let core = pin_to(100_000).unwrap_err().to_string();
    assert!(core.contains("core 100000"), "{core}");
}
