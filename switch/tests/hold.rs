//! One switch hands its rings over to another: the next one is built held while the first moves
//! frames, the first is held between two bursts, and the next one is released.
#![cfg(test)]

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trama_frame::Offloads;
use trama_switch::{
    Device, Engine, PortId, RingFds, Spin, Time, VhostDevice, WorkerHandle, WorkerOptions,
};
use trama_test_kit::{
    Exchange, Guest, IN_ORDER_FEATURES, LINUX_FEATURES, PLAIN, Plug, Station, driver_options,
    eventfd, frame, mac, network, port, take_count, trunk,
};
use trama_virtqueue::RingSetup;

/// Adds two ports and starts the rings of both guests, at the index at which they once began.
fn plug_in(engine: &mut Engine, rings: [[(RingSetup, RingFds); 2]; 2]) -> [PortId; 2] {
    let lab = network(engine, 1500);
    rings.map(|rings| {
        let device = Device::Vhost(VhostDevice::new(1));
        let (id, _) = engine.add_port(port(lab, trunk()), device).unwrap();
        for (index, (setup, fds)) in rings.into_iter().enumerate() {
            engine.start_ring(id, index, setup, fds).unwrap();
        }
        id
    })
}

fn rings_of(plug: &Plug) -> [(RingSetup, RingFds); 2] {
    [0, 1].map(|ring| (plug.setups[ring].clone(), plug.fds(ring)))
}

/// A worker whose engine is held, with the rings of both guests.
fn held_worker(plugs: &[Plug; 2]) -> WorkerHandle {
    let options = WorkerOptions { spin: Spin::Never, name: "worker".into(), seed: 1 };
    let (worker, _) = WorkerHandle::spawn(options).unwrap();
    let rings = plugs.each_ref().map(rings_of);
    worker
        .call(|engine, _| {
            engine.hold();
            plug_in(engine, rings);
        })
        .unwrap();
    worker
}

#[test]
fn nothing_is_lost_or_doubled_when_one_worker_hands_over_to_the_next() {
    for features in [LINUX_FEATURES, IN_ORDER_FEATURES] {
        let mut exchange = Exchange::new(features);
        let plugs = exchange.plugs();
        let stop = AtomicBool::new(false);
        let (arrived, gap) = std::thread::scope(|scope| {
            let driver = scope.spawn(|| exchange.run(&stop));
            let mut old = held_worker(&plugs);
            old.call(|engine, now| engine.release(now)).unwrap();
            for pause in 0..200 {
                let next = held_worker(&plugs);
                std::thread::sleep(Duration::from_micros(pause * 20));
                old.call(|engine, _| engine.hold()).unwrap();
                next.call(|engine, now| engine.release(now)).unwrap();
                // It is held: what it does no more, it does not do while it ends either.
                std::mem::replace(&mut old, next).stop();
            }
            stop.store(true, Ordering::SeqCst);
            let result = driver.join().unwrap();
            old.stop();
            result
        });
        println!("{arrived:?} frames, longest gap {gap:?}");
        assert!(arrived.iter().all(|frames| *frames > 1000));
    }
}

/// Two engines on this thread, and two guests that poll.
struct Lab {
    engines: [Engine; 2],
    guests: [Guest; 2],
    ports: [PortId; 2],
    /// Called by the rings of the second engine.
    call: OwnedFd,
}

impl Lab {
    /// The first engine runs the rings, the second one is held.
    fn new() -> Lab {
        let mut engines = [Engine::new(1), Engine::new(2)];
        let options = driver_options(256, LINUX_FEATURES);
        let first = network(&mut engines[0], 1500);
        let mut guest = || Guest::add(&mut engines[0], port(first, trunk()), options, options);
        let mut guests = [guest(), guest()];
        guests[1].send(&PLAIN, &frame(mac(1), mac(2), 60));
        while engines[0].poll(Time::ZERO) {}
        assert_eq!(guests[0].frames().len(), 1);
        engines[1].hold();
        let call = eventfd();
        let rings = guests.each_ref().map(|guest| {
            let map = guest.memory.map();
            [guest.rx.setup(map.clone()), guest.tx.setup(map)]
                .map(|setup| (setup, RingFds { kick: None, call: Some(call.try_clone().unwrap()) }))
        });
        let ports = plug_in(&mut engines[1], rings);
        Lab { engines, guests, ports, call }
    }

    fn poll(&mut self, engine: usize) -> bool {
        let mut moved = false;
        while self.engines[engine].poll(Time::ZERO) {
            moved = true;
        }
        moved
    }
}

#[test]
fn a_held_engine_moves_no_frame_and_tells_drivers_nothing() {
    let mut lab = Lab::new();
    let device_side = |lab: &Lab| {
        lab.guests.each_ref().map(|guest| {
            [guest.tx.addresses(), guest.rx.addresses()].map(|at| {
                let (spec, mut bytes) = (guest.memory.spec(), [0; 4 + 8 * 256 + 2]);
                let offset = spec.file_offset + at.used - spec.user_addr;
                spec.file.read_exact_at(&mut bytes, offset).unwrap();
                bytes
            })
        })
    };
    lab.guests[0].send(&PLAIN, &frame(mac(2), mac(1), 60));
    let before = device_side(&lab);
    assert!(!lab.poll(1));
    let settings = port(network(&mut lab.engines[1], 1500), trunk());
    lab.engines[1].set_port(lab.ports[0], settings).unwrap();
    assert!(!lab.poll(1));
    assert!(device_side(&lab) == before, "the used rings are as they were");
    assert!(lab.guests[1].frames().is_empty());
    // A station that is added meanwhile is read once the engine is released.
    let lan = network(&mut lab.engines[1], 1500);
    let [one, other] =
        [0; 2].map(|_| Station::add(&mut lab.engines[1], port(lan, trunk()), Offloads::NONE));
    one.send(&frame(mac(9), mac(8), 60));
    assert!(!lab.poll(1));
    assert!(lab.poll(0), "the other one goes on");
    assert_eq!(lab.guests[1].frames().len(), 1);
    lab.engines[0].hold();
    assert!(!lab.poll(0));
    assert_eq!(take_count(&lab.call), 0);
    lab.engines[1].release(Time::ZERO);
    assert_eq!(take_count(&lab.call), 4, "once for each ring");
    assert!(lab.poll(1));
    assert_eq!(other.frames().len(), 1);
}

#[test]
fn rings_that_are_stopped_meanwhile_stop_where_the_other_engine_has_got() {
    let mut lab = Lab::new();
    for _ in 0..41 {
        lab.guests[0].send(&PLAIN, &frame(mac(2), mac(1), 60));
        lab.poll(0);
    }
    let [first, second] = lab.ports;
    assert_eq!(lab.engines[1].stop_ring(first, 1).unwrap(), 41);
    assert_eq!(lab.engines[1].stop_ring(second, 0).unwrap(), 41);
    // An engine that is released without having been held, or twice, is as it was.
    lab.engines[0].release(Time::ZERO);
    lab.guests[0].send(&PLAIN, &frame(mac(2), mac(1), 60));
    assert!(lab.poll(0));
    assert_eq!(lab.guests[1].frames().len(), 42);
}
