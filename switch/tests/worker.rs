//! The worker's thread: requests, panics, sleep and wake-ups.
#![cfg(test)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::EventfdFlags;
use trama_frame::{MacAddr, Offloads};
use trama_switch::{NetworkId, Spin, WorkerGone, WorkerHandle, WorkerOptions};
use trama_test_kit::{
    Guest, PATIENCE, PLAIN, Station, driver_options, eventfd, eventually, frame, is_asleep, mac,
    network, port, thread_of, trunk,
};
use trama_virtqueue::RingFeatures;

struct Running {
    worker: WorkerHandle,
    thread: Option<JoinHandle<()>>,
    network: NetworkId,
}

impl Running {
    fn new(spin: Spin) -> Running {
        let options = WorkerOptions { spin, name: "worker".into(), seed: 5 };
        let (worker, thread) = WorkerHandle::spawn(options).unwrap();
        let network = worker.call(|engine, _| network(engine, 1500)).unwrap();
        Running { worker, thread: Some(thread), network }
    }

    fn station(&self) -> Station {
        let settings = port(self.network, trunk());
        self.worker.call(move |engine, _| Station::add(engine, settings, Offloads::ALL)).unwrap()
    }

    fn wakeups(&self) -> u64 {
        self.worker.counters().snapshot().wakeups
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.worker.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Waits until the worker sleeps; from then on only the test wakes it.
fn until_asleep(running: &Running) {
    let thread = thread_of(&running.worker);
    eventually("the worker sleeps", || is_asleep(thread));
}

#[test]
fn frames_pass_whatever_the_spin() {
    for spin in [Spin::Never, Spin::For(Duration::from_micros(50)), Spin::Always] {
        let running = Running::new(spin);
        let (a, b) = (running.station(), running.station());
        for round in 0..50 {
            let bytes = frame(MacAddr::BROADCAST, mac(1), 60 + round);
            a.send(&bytes);
            let mut got = Vec::new();
            eventually("the frame arrives", || {
                got.append(&mut b.frames());
                !got.is_empty()
            });
            assert_eq!(got, [bytes], "{spin:?}");
        }
    }
}

#[test]
fn many_silent_ports_sleep_and_any_of_them_wakes_the_worker() {
    let running = Running::new(Spin::For(Duration::from_micros(20)));
    let stations: Vec<Station> = (0..128).map(|_| running.station()).collect();
    until_asleep(&running);
    let asleep = running.wakeups();
    let busy = running.worker.counters().snapshot().busy_nanos;
    // Here the duration itself is tested.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(running.wakeups(), asleep);
    assert_eq!(running.worker.counters().snapshot().busy_nanos, busy);
    for from in [0, 77, 127] {
        stations[from].send(&frame(MacAddr::BROADCAST, mac(1), 60));
        let to = (from + 1) % 128;
        eventually("the frame arrives", || !stations[to].frames().is_empty());
    }
    assert!(running.wakeups() > asleep);
}

#[test]
fn a_kick_wakes_the_worker_and_the_driver_is_called() {
    let running = Running::new(Spin::Never);
    let settings = [port(running.network, trunk()), port(running.network, trunk())];
    let event = eventfd;
    let (kick, call) = (event(), event());
    let clone = |fd: &OwnedFd| fd.try_clone().unwrap();
    let (worker_kick, worker_call) = (clone(&kick), clone(&call));
    let (mut a, mut b) = running
        .worker
        .call(move |engine, _| {
            let features = RingFeatures { event_idx: true, ..RingFeatures::default() };
            let options = driver_options(256, features);
            let [first, second] = settings;
            let a = Guest::add(engine, first, options, options);
            let b = Guest::add(engine, second, options, options);
            engine.set_kick(a.id, 1, Some(worker_kick)).unwrap();
            // A port whose ring has no kick is polled.
            engine.stop_ring(b.id, 1).unwrap();
            engine.set_call(b.id, 0, Some(worker_call));
            (a, b)
        })
        .unwrap();
    let mut received = 0;
    for sent in 1..=200 {
        let _ = b.rx.arm();
        a.tx.reclaim().unwrap();
        a.tx.send(&PLAIN, &[&frame(mac(2), mac(1), 60)]).unwrap();
        if a.tx.publish() {
            rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
        }
        eventually("all frames arrive", || {
            received += b.frames().len();
            received == sent
        });
    }
    assert!(a.counters.snapshot().kicks > 0, "the driver was asked to kick");
    assert!(b.counters.snapshot().calls > 0, "and was called");
    assert!(rustix::io::read(&call, &mut [0; 8]).is_ok());
    until_asleep(&running);
    // A frontend may close its end, or stop its rings, while the worker sleeps.
    drop(kick);
    let (id, other) = (a.id, b.id);
    running
        .worker
        .call(move |engine, _| {
            engine.detach(id);
            engine.remove_port(other).map(drop).unwrap();
        })
        .unwrap();
    until_asleep(&running);
}

#[test]
fn a_call_that_would_block_delays_no_other_port() {
    let running = Running::new(Spin::Never);
    // As a hostile frontend leaves it: the counter is full, and `O_NONBLOCK` is clear.
    let full = rustix::event::eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let (call, settings) = (full.try_clone().unwrap(), port(running.network, trunk()));
    let (a, b) = (running.station(), running.station());
    let add = move |engine: &mut trama_switch::Engine, _| {
        let options = driver_options(256, RingFeatures::default());
        let guest = Guest::add(engine, settings, options, options);
        engine.set_call(guest.id, 0, Some(call));
        guest
    };
    let (worker, (tell, told)) = (running.worker.clone(), mpsc::channel());
    std::thread::spawn(move || tell.send(Box::new(worker.call(add).unwrap())));
    let answered = told.recv_timeout(PATIENCE).and_then(|mut hostile| {
        let _ = hostile.rx.arm();
        a.send(&frame(MacAddr::BROADCAST, mac(1), 60));
        eventually("the frame arrives", || !b.frames().is_empty());
        eventually("the frame arrives", || hostile.frames().len() == 1);
        let (worker, (tell, told)) = (running.worker.clone(), mpsc::channel());
        std::thread::spawn(move || tell.send(worker.call(|_, _| true).unwrap()));
        told.recv_timeout(PATIENCE)
    });
    // In any case this frees a worker that blocked, so that the test ends.
    rustix::io::read(&full, &mut [0; 8]).unwrap();
    assert_eq!(answered, Ok(true), "the worker waits for room in the counter");
}

#[test]
fn a_panicking_request_ends_the_worker() {
    let mut running = Running::new(Spin::Never);
    let failed = running.worker.call(|_, _| panic!("a request that panics"));
    assert_eq!(failed, Err::<(), _>(WorkerGone));
    assert!(running.thread.take().unwrap().join().is_err(), "its thread tells of the panic");
    assert_eq!(running.worker.call(|_, _| 42), Err(WorkerGone));
}

#[test]
fn requests_to_a_stopped_worker_fail() {
    let running = Running::new(Spin::Always);
    let worker = running.worker.clone();
    drop(running);
    assert_eq!(worker.call(|_, _| ()), Err(WorkerGone));
}

#[test]
fn requests_from_many_threads_all_have_their_answer() {
    let running = Running::new(Spin::Never);
    for _ in 0..20 {
        // While one request blocks the worker, many more than it takes at once queue up.
        let (release, released) = mpsc::channel();
        let handed_in = &AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let worker = &running.worker;
            scope.spawn(move || worker.call(move |_, _| released.recv().unwrap()).unwrap());
            for i in 0..40 {
                scope.spawn(move || {
                    handed_in.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(worker.call(move |_, _| i), Ok(i));
                });
            }
            eventually("the jobs are handed in", || handed_in.load(Ordering::SeqCst) == 40);
            release.send(()).unwrap();
        });
    }
}
