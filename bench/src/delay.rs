//! A delay line between two TAPs: a separate process holds every frame for a fixed time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tun_tap::{Iface, Mode};

use crate::cores::LOAD_CORE;
use crate::process::{Process, Result, pinned, run, this_program};

/// The hidden command that runs [`relay`].
pub(crate) const COMMAND: &str = "delay";

/// Delay in each direction.
const DELAY: Duration = Duration::from_millis(5);
/// Limit of frames in transit, and of the queue of a TAP: the kernel sends a whole window at once.
const QUEUE: usize = 20_000;
/// Larger than any frame.
const LARGEST: usize = 65_600;
const START: Duration = Duration::from_secs(10);

/// A held frame and when to send it.
type Held = (Instant, Vec<u8>);

/// Creates TAPs of these names in the benchmark's namespace and joins them by a delay line. The
/// TAPs go with the process.
pub(crate) fn start(near: &str, far: &str) -> Result<Process> {
    let mut command = pinned(LOAD_CORE, this_program()?);
    command.args([COMMAND, near, far]);
    let mut process = Process::spawn(COMMAND, command)?;
    process.wait_for("ready", START)?;
    for device in [near, far] {
        run("ip", &["link", "set", device, "txqueuelen", &QUEUE.to_string(), "up"])?;
    }
    Ok(process)
}

/// Runs the delay line; called in its own process.
pub(crate) fn relay(near: &str, far: &str) -> Result<()> {
    let open = |name: &str| {
        Iface::without_packet_info(name, Mode::Tap).map_err(|e| format!("the TAP {name}: {e}"))
    };
    let (near, far) = (open(near)?, open(far)?);
    println!("ready");
    thread::scope(|scope| {
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (sender, receiver) = sync_channel(QUEUE);
            scope.spawn(move || hold(from, &sender));
            scope.spawn(move || release(to, &receiver));
        }
    });
    Ok(())
}

fn hold(from: &Iface, queue: &SyncSender<Held>) {
    let mut buffer = vec![0; LARGEST];
    while let Ok(length) = from.recv(&mut buffer) {
        if queue.send((Instant::now() + DELAY, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn release(to: &Iface, queue: &Receiver<Held>) {
    while let Ok((due, frame)) = queue.recv() {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left);
        }
        // An interface that is down loses frames, as a cable does.
        let _ = to.send(&frame);
    }
}
