//! Networks and ports move between engines, and between workers under traffic.
#![cfg(test)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use trama_frame::{MacAddr, Offloads, VnetHeader};
use trama_switch::ports::dummy::dummy_with_offloads;
use trama_switch::{
    Device, Doorbell, Engine, EngineError, MoveError, NetworkId, NetworkSettings, PortMoved, Spin,
    Time, WorkerGroup, WorkerHandle,
};
use trama_test_kit::{
    Guest, PATIENCE, PLAIN, Station, driver_options, eventfd, eventually, frame, is_asleep, mac,
    network, port, thread_of, trunk,
};
use trama_virtqueue::RingFeatures;

fn settle(engine: &mut Engine, now: Time) {
    while engine.poll(now) {}
}

#[test]
fn a_network_moves_with_what_waits_what_it_learned_and_its_counters() {
    let mut here = Engine::new(3);
    let mut there = here.sibling();
    // Slots already in use there must not matter.
    let other = network(&mut there, 1500);
    let stranger = Station::add(&mut there, port(other, trunk()), Offloads::ALL);
    let lab = network(&mut here, 1500);
    assert_ne!(lab, other, "names of siblings differ");
    let options = driver_options(64, RingFeatures::default());
    let gone = Station::add(&mut here, port(lab, trunk()), Offloads::ALL);
    let mut a = Guest::add(&mut here, port(lab, trunk()), options, options);
    let mut b = Guest::add(&mut here, port(lab, trunk()), options, options);
    here.remove_port(gone.id).unwrap();
    b.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(2), 60));
    settle(&mut here, Time(1));
    let before = here.fdb(lab, Time(1));
    assert_eq!((before.len(), before[0].0), (1, b.id));
    assert_eq!(a.frames().len(), 1);

    a.send(&PLAIN, &frame(mac(2), mac(1), 60));
    a.send(&PLAIN, &frame(mac(2), mac(1), 61));
    let moving = here.give_network(lab, &Doorbell::default()).unwrap();
    assert!(matches!(here.stop_ring(a.id, 0), Err(EngineError::NoSuchPort(_))));
    assert!(!here.poll(Time(2)), "nothing of it is left");
    there.take_network(moving, Time(2));
    settle(&mut there, Time(2));
    let got: Vec<usize> = b.frames().iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(got, [60, 61]);
    assert_eq!(there.fdb(lab, Time(1))[1], before[0], "and the other's address is new");
    assert_eq!(stranger.frames().len(), 0);
    assert_eq!(a.counters.snapshot().rx_frames, 2);
    assert_eq!(b.counters.snapshot().rx_frames, 1);
    // Its ports keep their IDs.
    there.set_port(a.id, port(other, trunk())).unwrap();
    a.send(&PLAIN, &frame(mac(2), mac(1), 62));
    settle(&mut there, Time(3));
    assert_eq!(stranger.frames().len(), 1);
    assert!(matches!(
        here.give_network(lab, &Doorbell::default()),
        Err(EngineError::NoSuchNetwork(_))
    ));
}

#[test]
fn a_port_moves_with_what_waits_and_forgets_its_addresses() {
    let mut here = Engine::new(3);
    let mut there = here.sibling();
    let (from, to) = (network(&mut here, 1500), network(&mut there, 1500));
    let options = driver_options(64, RingFeatures::default());
    let mut a = Guest::add(&mut here, port(from, trunk()), options, options);
    let left = Station::add(&mut here, port(from, trunk()), Offloads::ALL);
    let joined = Station::add(&mut there, port(to, trunk()), Offloads::ALL);
    a.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(1), 60));
    settle(&mut here, Time(1));
    assert_eq!((left.frames().len(), here.fdb(from, Time(1)).len()), (1, 1));
    a.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(1), 61));
    let moving = here.give_port(a.id, &Doorbell::default()).unwrap();
    assert_eq!(here.fdb(from, Time(1)), []);
    there.take_port(moving, Time(2)).unwrap();
    there.set_port(a.id, port(to, trunk())).unwrap();
    settle(&mut there, Time(2));
    assert_eq!(joined.frames(), [frame(MacAddr::BROADCAST, mac(1), 61)]);
    assert_eq!(there.fdb(to, Time(2)).len(), 1);
    assert_eq!(a.counters.snapshot().rx_frames, 2);
}

struct Workers {
    group: WorkerGroup,
    workers: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn new(spin: Spin, load: Option<OwnedFd>) -> Workers {
        let group = WorkerGroup::new(7);
        let (mut load, mut workers, mut threads) = (load, Vec::new(), Vec::new());
        for number in 0..2 {
            let (worker, thread) =
                group.spawn(spin, format!("worker{number}"), load.take()).unwrap();
            workers.push(worker);
            threads.push(thread);
        }
        Workers { group, workers, threads }
    }

    /// Makes a network on worker 0.
    fn network(&self) -> NetworkId {
        let (id, network) = self.group.network(settings(8192));
        self.workers[0].take_network(network).unwrap();
        id
    }

    fn wakeups(&self, worker: usize) -> u64 {
        self.workers[worker].counters().snapshot().wakeups
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.workers.iter().for_each(WorkerHandle::stop);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn settings(mac_table_size: usize) -> NetworkSettings {
    let mac_aging = Duration::from_secs(300);
    NetworkSettings { name: "lab".into(), mtu: 1500, mac_table_size, mac_aging }
}

/// Makes a guest whose kicks wake its worker.
fn guest(worker: &WorkerHandle, network: NetworkId) -> (Guest, OwnedFd) {
    let kick = eventfd();
    let kick_of_the_switch = kick.try_clone().unwrap();
    let guest = worker.call(move |engine, _| {
        let features = RingFeatures { event_idx: true, ..RingFeatures::default() };
        let options = driver_options(256, features);
        let guest = Guest::add(engine, port(network, trunk()), options, options);
        engine.set_kick(guest.id, 1, Some(kick_of_the_switch)).unwrap();
        guest
    });
    (guest.unwrap(), kick)
}

fn send(guest: &mut Guest, kick: &OwnedFd, number: u32, to: u8, from: u8) {
    let mut bytes = frame(mac(to), mac(from), 60);
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    guest.tx.reclaim().unwrap();
    guest.tx.send(&PLAIN, &[&bytes]).unwrap();
    if guest.tx.publish() {
        rustix::io::write(kick, &1u64.to_ne_bytes()).unwrap();
    }
}

#[test]
fn a_network_under_traffic_moves_back_and_forth_and_loses_nothing() {
    for spin in [Spin::Never, Spin::For(Duration::from_micros(50)), Spin::Always] {
        let running = Workers::new(spin, None);
        let lab = running.network();
        let [(mut a, kick_a), (mut b, kick_b)] = [(); 2].map(|()| guest(&running.workers[0], lab));
        send(&mut b, &kick_b, 0, 1, 2);
        eventually("the frame arrives", || a.frames().len() == 1);
        let (done, moved) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let number = moved.fetch_add(1, Ordering::Relaxed);
                    let [from, to] = [number % 2, (number + 1) % 2].map(|i| &running.workers[i]);
                    from.move_network(lab, to, |_| {}).unwrap();
                }
            });
            let (mut sent, mut received) = (0, 0);
            let deadline = Instant::now() + PATIENCE;
            while received < 10_000 || moved.load(Ordering::Relaxed) < 20 {
                assert!(Instant::now() < deadline, "{received} received, {moved:?} moves");
                // Never more than the receiver has buffers for.
                for _ in 0..(received + 200 - sent).min(8) {
                    send(&mut a, &kick_a, sent, 2, 1);
                    sent += 1;
                }
                for (_, bytes) in b.frames() {
                    let number = u32::from_be_bytes(*bytes[14..].first_chunk().unwrap());
                    assert_eq!(number, received, "{spin:?}: lost, doubled or out of order");
                    received += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let counted = [a.counters.snapshot(), b.counters.snapshot()];
        assert_eq!(counted[0].rx_frames, counted[1].tx_frames);
        assert_eq!(counted.map(|counters| counters.dropped_total()), [0, 0]);
        let last = running.workers[moved.into_inner() % 2].clone();
        let addresses = last.call(move |engine, now| engine.fdb(lab, now).len()).unwrap();
        assert_eq!(addresses, 2, "what was learned moves along");
    }
}

#[test]
fn after_a_move_kicks_wake_the_new_worker_only() {
    let running = Workers::new(Spin::Never, None);
    let lab = running.network();
    let [(mut a, kick), (mut b, _kick_b)] = [(); 2].map(|()| guest(&running.workers[0], lab));
    running.workers[0].move_network(lab, &running.workers[1], |_| {}).unwrap();
    let kicks = a.counters.snapshot().kicks;
    let threads: Vec<_> = running.workers.iter().map(thread_of).collect();
    eventually("the workers sleep", || threads.iter().all(|thread| is_asleep(*thread)));
    let before = running.wakeups(0);
    send(&mut a, &kick, 0, 9, 1);
    eventually("the frame arrives", || b.frames().len() == 1);
    assert!(a.counters.snapshot().kicks > kicks);
    assert_eq!(running.wakeups(0), before);
}

#[test]
fn a_port_moves_between_workers_and_errors_leave_it_where_it_is() {
    let running = Workers::new(Spin::Never, None);
    let [here, there] = [0, 1].map(|worker| running.workers[worker].clone());
    let from = running.network();
    let (to, network) = running.group.network(settings(64));
    there.take_network(network).unwrap();
    let (mut a, kick) = guest(&here, from);
    let joined = there
        .call(move |engine, _| Station::add(engine, port(to, trunk()), Offloads::ALL))
        .unwrap();
    let moved = here.move_port(a.id, &there, port(to, trunk())).unwrap();
    assert!(matches!(moved, PortMoved::Attached));
    send(&mut a, &kick, 1, 9, 1);
    eventually("the frame arrives", || joined.frames().len() == 1);
    let missing = here.move_port(a.id, &there, port(to, trunk()));
    assert!(matches!(missing, Err(MoveError::Engine(EngineError::NoSuchPort(_)))));
    let missing = here.move_network(to, &there, |_| {});
    assert!(matches!(missing, Err(MoveError::Engine(EngineError::NoSuchNetwork(_)))));
}

#[test]
fn a_network_is_resized_on_the_way_and_keeps_its_addresses() {
    let running = Workers::new(Spin::Never, None);
    let lab = running.network();
    let (mut a, kick) = guest(&running.workers[0], lab);
    send(&mut a, &kick, 0, 9, 1);
    let worker = &running.workers[0];
    let known = || worker.call(move |engine, now| engine.fdb(lab, now).len()).unwrap();
    eventually("the address is learned", || known() == 1);
    worker.move_network(lab, worker, |network| network.set(settings(1 << 20))).unwrap();
    assert_eq!(known(), 1);
}

#[test]
fn busy_time_is_counted_and_a_loaded_worker_signals_it() {
    let load = eventfd();
    let running =
        Workers::new(Spin::For(Duration::from_micros(20)), Some(load.try_clone().unwrap()));
    let (id, network) = running.group.network(settings(64));
    let counters = network.counters();
    running.workers[0].take_network(network).unwrap();
    let worker = running.workers[0].clone();
    let (mut a, kick) = guest(&worker, id);
    let asked = worker.call(move |engine, _| {
        // Hundreds of checksums per frame, so that the sender is never the slower side.
        let add = |_| {
            let (device, handle) = dummy_with_offloads(1, Offloads::NONE);
            engine.add_port(port(id, trunk()), Device::Dummy(device)).unwrap();
            handle
        };
        (0..400).map(add).collect::<Vec<_>>()
    });
    let _stations = asked.unwrap();
    let broadcast = frame(MacAddr::BROADCAST, mac(1), 1400);
    let unfinished = VnetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..Default::default() };
    // Without a pause, so that the ring never runs empty.
    let deadline = Instant::now() + PATIENCE;
    while rustix::io::read(&load, &mut [0; 8]).is_err() {
        assert!(Instant::now() < deadline, "the worker does not signal its load");
        a.tx.reclaim().unwrap();
        while a.tx.free() > 0 {
            a.tx.send(&unfinished.to_bytes(), &[&broadcast]).unwrap();
        }
        if a.tx.publish() {
            rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
        }
        std::thread::yield_now();
    }
    let busy = counters.snapshot().busy_nanos;
    assert!(busy >= 800_000_000, "{busy} ns in the first loaded second");
    assert!(busy <= worker.counters().snapshot().busy_nanos, "it was the only one there");
    assert_eq!(running.workers[1].counters().snapshot().busy_nanos, 0);
}
