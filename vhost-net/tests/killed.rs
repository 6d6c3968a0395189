//! The process of a switch is killed at random moments, and another one takes over: two guests that
//! exchange frames all the time lose none, receive few twice, and are never left asleep. In a
//! second test the worker is stopped first and makes some single steps, so that the kill comes
//! between any two instructions, also those that a timer rarely hits.
//!
//! `TRAMA_KILLS` is the number of times; if it is not set, 300 or as many as there are in nine
//! seconds. `TRAMA_SEED` repeats the moments of an earlier run.
#![cfg(test)]

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use trama_switch::{Device, Spin, VhostDevice, WorkerHandle, WorkerOptions};
use trama_test_kit::requests::*;
use trama_test_kit::{Exchange, Plug, RawFrontend, eventually, network, port, trunk};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{
    ConnectionKeeper, Peer, ResumedConnection, Role, Session, SessionOptions, features,
};

/// Names the directory of the sockets to the process to be killed.
const SOCKETS: &str = "TRAMA_TEST_SOCKETS";
/// Most time between the first frames and the kill, in microseconds.
const MOST_ALIVE: u64 = 3000;
/// Most time between a start and the kill, in microseconds, where it may come before all is set up.
const MOST_SETTING_UP: u64 = 20_000;
/// Most time for the kills of each kind of rings.
const LIMIT: Duration = Duration::from_secs(3);
/// The same with single steps.
const STEPPED_LIMIT: Duration = Duration::from_secs(6);
/// Most single steps before a kill: some bursts.
const MOST_STEPS: u64 = 6000;
/// How long one step may take: it may be a system call that waits for a guest.
const STEP: Duration = Duration::from_secs(30);

/// The keeper, for a switch: the test's process listens and sends the remembered requests.
#[derive(Debug)]
struct Remote {
    /// Receives a word for each request served.
    served: Sender<()>,
}

fn kept(path: &Path) -> PathBuf {
    path.with_extension("kept")
}

impl ConnectionKeeper for Remote {
    fn keep(&self, _: &Path, _: Option<Peer>, stream: UnixStream) -> std::io::Result<UnixStream> {
        Ok(stream)
    }

    fn resume(&self, path: &Path) -> Option<ResumedConnection> {
        let stream = UnixStream::connect(kept(path)).ok()?;
        Some(ResumedConnection { stream, peer: None, messages: MESSAGES })
    }

    fn keep_waiting(&self, _: &Path, _: &[BorrowedFd<'_>]) {}

    fn resume_waiting(&self, _: &Path) -> Vec<UnixStream> {
        Vec::new()
    }

    fn served(&self, _: &Path) {
        let _ = self.served.send(());
    }

    fn closed(&self, path: &Path) {
        // The test does not close a connection, so the session has found something wrong.
        eprintln!("the session at {} has closed its connection", path.display());
    }
}

/// The process to be killed: a switch with two ports.
#[test]
#[ignore = "the process that the other test starts and kills"]
fn switch() {
    let Some(dir) = std::env::var_os(SOCKETS).map(PathBuf::from) else { return };
    let options = WorkerOptions { spin: Spin::Never, name: "worker".into(), seed: 1 };
    let (worker, _thread) = WorkerHandle::spawn(options).unwrap();
    // A frame that is taken before its receiver has its rings back would be lost.
    let lab = worker
        .call(|engine, _| {
            engine.hold();
            network(engine, 1500)
        })
        .unwrap();
    let (served, is_served) = channel();
    let keeper = Arc::new(Remote { served });
    let _sessions = ["a", "b"].map(|name| {
        let device = Device::Vhost(VhostDevice::new(1));
        let settings = port(lab, trunk());
        let (id, _) = worker.call(|engine, _| engine.add_port(settings, device)).unwrap().unwrap();
        let rings = SwitchPort::new(worker.clone(), id).unwrap();
        let options = SessionOptions {
            keeper: Some(keeper.clone()),
            ..SessionOptions::new(dir.join(name), Role::Client)
        };
        Session::spawn(options, rings).unwrap()
    });
    is_served.iter().take(2 * MESSAGES).for_each(drop);
    worker.call(|engine, now| engine.release(now)).unwrap();
    // Until the test has ended, if it does not kill this process.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Number of requests that are replayed.
const MESSAGES: usize = 4 + 2 * 6;

/// Sends what a keeper has remembered of a frontend. The base of each ring is the one at which it
/// began.
fn replay(stream: UnixStream, plug: &Plug, acknowledged: u64) -> RawFrontend {
    let frontend = RawFrontend::new(stream);
    send(&frontend, SET_PROTOCOL_FEATURES, &0u64.to_ne_bytes(), &[]);
    send(&frontend, SET_OWNER, &[], &[]);
    send(&frontend, SET_FEATURES, &acknowledged.to_ne_bytes(), &[]);
    let spec = plug.memory.spec();
    let table = words(&[1, spec.guest_phys, spec.size, spec.user_addr, spec.file_offset]);
    send(&frontend, SET_MEM_TABLE, &table, &[spec.file.as_fd()]);
    for ring in 0..2 {
        let (index, at) = (ring as u32, plug.addresses[ring]);
        let fds = plug.fds(ring);
        let [kick, call] = [fds.kick.unwrap(), fds.call.unwrap()];
        send(&frontend, SET_VRING_NUM, &vring_state(index, plug.setups[ring].size.into()), &[]);
        send(&frontend, SET_VRING_BASE, &vring_state(index, 0), &[]);
        send(&frontend, SET_VRING_ADDR, &words(&[ring as u64, at.desc, at.used, at.avail, 0]), &[]);
        send(&frontend, SET_VRING_KICK, &(ring as u64).to_ne_bytes(), &[kick.as_fd()]);
        send(&frontend, SET_VRING_CALL, &(ring as u64).to_ne_bytes(), &[call.as_fd()]);
        send(&frontend, SET_VRING_ENABLE, &vring_state(index, 1), &[]);
    }
    frontend
}

fn send(frontend: &RawFrontend, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
    assert!(frontend.send(request, 1, body, fds));
}

/// Starts a switch and resumes its connections.
fn start(dir: &Path, listeners: &[UnixListener; 2], plugs: &[Plug; 2], acked: u64) -> Running {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "switch", "--ignored"])
        .env(SOCKETS, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let frontends = [0, 1].map(|at| {
        let (stream, _) = listeners[at].accept().unwrap();
        replay(stream, &plugs[at], acked)
    });
    Running { child, _frontends: frontends }
}

/// A switch; dropping it kills it.
struct Running {
    child: Child,
    _frontends: [RawFrontend; 2],
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Running {
    /// Stops the worker, lets it make this many single steps, and kills the process there.
    fn kill_after_steps(mut self, steps: u64) {
        let worker = self.worker();
        ptrace::seize(worker, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(worker).unwrap();
        wait_until_it_stops(worker);
        for _ in 0..steps {
            ptrace::step(worker, None).unwrap();
            wait_until_it_stops(worker);
        }
        self.child.kill().unwrap();
        // The process has not ended before its traced thread was waited for.
        let ended = waitpid(worker, Some(WaitPidFlag::__WALL));
        assert!(matches!(ended, Ok(WaitStatus::Signaled(..)) | Err(Errno::ECHILD)), "{ended:?}");
    }

    /// Returns the thread that moves frames.
    fn worker(&self) -> Pid {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let mut workers = threads.flatten().filter(|thread| {
            let name = std::fs::read_to_string(thread.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() == "worker")
        });
        let name = workers.next().unwrap().file_name();
        Pid::from_raw(name.to_str().unwrap().parse().unwrap())
    }
}

fn wait_until_it_stops(worker: Pid) {
    let until = Instant::now() + STEP;
    loop {
        match waitpid(worker, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => return,
            WaitStatus::StillAlive => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < until, "the worker waits, and no guest calls it");
    }
}

/// How the switch is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// After some time.
    Timed,
    /// After some single steps of its worker.
    Stepped,
}

#[test]
fn guests_lose_nothing_however_often_the_switch_is_killed() {
    exchange_with_all_kinds(Kill::Timed, 300, LIMIT);
}

#[test]
fn guests_lose_nothing_at_whichever_instruction_the_switch_is_killed() {
    exchange_with_all_kinds(Kill::Stepped, 200, STEPPED_LIMIT);
}

fn exchange_with_all_kinds(kill: Kill, kills: u64, limit: Duration) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let wanted = number("TRAMA_KILLS");
    let (kills, limit) = (wanted.unwrap_or(kills), wanted.is_none().then_some(limit));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("TRAMA_SEED").unwrap_or(since.subsec_nanos().into());
    println!("TRAMA_SEED={seed}");
    let kinds = [
        features::ALL & !features::IN_ORDER,
        features::ALL,
        features::ALL & !(features::IN_ORDER | features::RING_EVENT_IDX),
    ];
    let mut random = Random(seed | 1);
    for acknowledged in kinds {
        exchange(acknowledged, kill, (kills.div_ceil(3), limit), &mut random);
    }
}

fn exchange(
    acknowledged: u64,
    kill: Kill,
    (kills, limit): (u64, Option<Duration>),
    random: &mut Random,
) {
    let dir = tempfile::tempdir().unwrap();
    let listeners =
        ["a", "b"].map(|name| UnixListener::bind(kept(&dir.path().join(name))).unwrap());
    let mut exchange = Exchange::new(features::ring_features(acknowledged));
    let (plugs, deaths) = (exchange.plugs(), exchange.deaths.clone());
    let arrived_so_far = exchange.arrived.clone();
    let stop = AtomicBool::new(false);
    let (arrived, gap) = std::thread::scope(|scope| {
        let driver = scope.spawn(|| exchange.run(&stop));
        let begin = Instant::now();
        for _ in 0..kills {
            let switch = start(dir.path(), &listeners, &plugs, acknowledged);
            let longest = if kill == Kill::Timed && random.below(4) == 0 {
                MOST_SETTING_UP
            } else {
                let before = arrived_so_far.load(Ordering::SeqCst);
                let moves = || arrived_so_far.load(Ordering::SeqCst) > before;
                eventually("frames arrive", || moves() || driver.is_finished());
                MOST_ALIVE
            };
            std::thread::sleep(Duration::from_micros(random.below(longest)));
            if driver.is_finished() || limit.is_some_and(|limit| begin.elapsed() > limit) {
                break;
            }
            deaths.fetch_add(1, Ordering::SeqCst);
            match kill {
                Kill::Timed => drop(switch),
                Kill::Stepped => switch.kill_after_steps(random.below(MOST_STEPS)),
            }
        }
        let _switch = start(dir.path(), &listeners, &plugs, acknowledged);
        stop.store(true, Ordering::SeqCst);
        driver.join().unwrap()
    });
    let deaths = deaths.load(Ordering::SeqCst);
    println!("{acknowledged:#x}: {deaths} kills, longest gap {gap:?}, {exchange}");
    assert!(deaths > 5 && arrived.iter().all(|frames| *frames > 100 * deaths));
}

/// A generator of random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
