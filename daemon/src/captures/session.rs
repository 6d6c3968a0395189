//! One capture, on a thread of its own: from the queues of its watches to a pcapng file.

mod past;

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use trama_capture::pcapng::{Frame, Interface, Way, Writer};
use trama_switch::watch::{self, Record};

use self::past::Past;
pub(super) use self::past::is_before;
use super::ports::{Ports, Seen, finish_checksum};
use super::wanted::WatchedPort;
use super::{Slot, Wanted};
use crate::ctl::Failure;
use crate::state::Daemon;
use crate::state::watches::Clock;

/// Time between two looks at queues that do not wake the thread.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Time between two looks for ports that come and go.
const FOLLOW: Duration = Duration::from_millis(500);
/// Bytes that are passed on at once.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for the client.
const CHUNKS: usize = 2;
/// Frames that one queue may give before the next one has its turn.
const TURN: usize = 256;

/// Why nothing more is passed on.
struct ClientGone;

struct Session {
    wanted: Wanted,
    slot: Slot,
    ports: Ports,
    file: Writer<Vec<u8>>,
    client: Sender<Bytes>,
    /// What the ring has of before, until it is written.
    past: Option<Past>,
    /// Frames still to be captured, if there is a limit.
    left: u64,
}

/// Starts a capture; returns its number and the file as it grows.
pub(super) fn start(
    daemon: Arc<Daemon>,
    wanted: Wanted,
    slot: Slot,
) -> Result<(u64, Receiver<Bytes>), Failure> {
    let application = concat!("trama ", env!("CARGO_PKG_VERSION"));
    let cannot = |error: std::io::Error| format!("the capture cannot start: {error}");
    let mut file = Writer::new(Vec::new(), application, wanted.snaplen).map_err(cannot)?;
    let mut ports = Ports::new(Arc::clone(&daemon));
    ports.begin(&wanted, &mut |port| describe(&mut file, port))?;
    let past = wanted.last.map(|last| Past::find(&daemon, &ports, last)).transpose()?;
    let (client, chunks) = channel(CHUNKS);
    let (id, left) = (slot.id, wanted.count.unwrap_or(u64::MAX));
    let session = Session { wanted, slot, ports, file, client, past, left };
    thread::Builder::new()
        .name(format!("capture{id}"))
        .spawn(move || session.run())
        .map_err(cannot)?;
    Ok((id, chunks))
}

impl Session {
    fn run(mut self) {
        let captured = self.capture();
        let missed_late = self.ports.unwatch();
        self.slot.count(0, missed_late);
        // Without a client, what is left goes with the queues.
        let _ = captured.and_then(|()| self.finish());
    }

    fn capture(&mut self) -> Result<(), ClientGone> {
        let mut followed = Instant::now();
        self.flush()?;
        self.recall()?;
        while self.left > 0 && !self.slot.is_ending() {
            if self.client.is_closed() {
                return Err(ClientGone);
            }
            if followed.elapsed() >= FOLLOW {
                followed = Instant::now();
                let file = &mut self.file;
                if !self.ports.follow(&self.wanted, &mut |port| describe(file, port)) {
                    return Ok(());
                }
            }
            // What does not fill a chunk waits for no more than is there.
            if !self.drain()? {
                self.flush()?;
                self.wait();
            }
        }
        Ok(())
    }

    /// Waits until much is there, or some time.
    fn wait(&self) {
        let mut wakes: Vec<_> = self
            .ports
            .watches
            .iter()
            .map(|watched| PollFd::from_borrowed_fd(watched.queue.wake(), PollFlags::IN))
            .collect();
        // An error is a signal, after which the next look is early.
        if poll(&mut wakes, Some(&TICK)).is_ok_and(|ready| ready > 0) {
            for watched in &self.ports.watches {
                // Takes back what woke the thread; nothing there is no fault.
                let _ = rustix::io::read(watched.queue.wake(), &mut [0; 8]);
            }
        }
    }

    /// Takes a turn's frames from each queue; returns whether there were any.
    fn drain(&mut self) -> Result<bool, ClientGone> {
        let mut has_any = false;
        for index in 0..self.ports.watches.len() {
            let (mut frames, mut missed) = (0, 0);
            for _ in 0..TURN {
                let watched = &mut self.ports.watches[index];
                let Some(record) = watched.queue.read().filter(|_| self.left > 0) else { break };
                let Some(seen) = self.ports.seen.get_mut(&record.port) else { continue };
                seen.missed += record.missed;
                (frames, missed) = (frames + 1, missed + record.missed);
                self.left -= 1;
                write(&mut self.file, seen, &record, watched.clock.of(record.time));
                has_any = true;
            }
            self.slot.count(frames, missed);
            if self.file.get_mut().len() >= CHUNK {
                self.flush()?;
            }
        }
        Ok(has_any)
    }

    /// Writes what the ring has of the time before the watches.
    fn recall(&mut self) -> Result<(), ClientGone> {
        let Some(Past { segments, last, clock }) = self.past.take() else { return Ok(()) };
        let filter = self.wanted.filter();
        // Each segment is let go once it is written.
        for segment in segments {
            for (port, record) in segment.records() {
                if self.left == 0 {
                    return Ok(());
                }
                let clock = self.ports.clock(port.network).unwrap_or(clock);
                if self.wanted.targets.include(&port.name, &port.network_name)
                    && is_before(clock.asked, last, record.time)
                {
                    let is_taken = self.wanted.takes(&record, filter.as_ref());
                    self.recall_one(port, record, is_taken, clock);
                }
                if self.file.get_mut().len() >= CHUNK {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Writes a frame of the ring if it is taken. What was missed before it is told in any case.
    fn recall_one(
        &mut self,
        port: &Arc<WatchedPort>,
        mut record: Record<'_>,
        is_taken: bool,
        clock: Clock,
    ) {
        if !is_taken && record.missed == 0 {
            return;
        }
        let file = &mut self.file;
        let seen = self.ports.past(port, &mut |port| describe(file, port));
        seen.missed_before += record.missed;
        if is_taken {
            let kept = record.bytes.len().min(self.wanted.snaplen as usize);
            record.bytes = &record.bytes[..kept];
            write(&mut self.file, seen, &record, clock.of(record.time));
            self.left -= 1;
            self.slot.count(1, 0);
        }
    }

    /// Passes on what is written.
    fn flush(&mut self) -> Result<(), ClientGone> {
        let written = mem::take(self.file.get_mut());
        if written.is_empty() {
            return Ok(());
        }
        self.client.blocking_send(written.into()).map_err(|_| ClientGone)
    }

    /// Passes on what the watches have seen until their end.
    fn finish(&mut self) -> Result<(), ClientGone> {
        while self.left > 0 && self.drain()? {}
        self.ports.end(&mut self.file);
        self.flush()
    }
}

/// Writes a port as an interface. Memory takes what is written.
fn describe(file: &mut Writer<Vec<u8>>, port: &WatchedPort) {
    let (name, description) = (port.name.as_str().into(), port.description.as_str().into());
    let _ = file.interface(&Interface { name, description });
}

/// Writes a frame of a port. Memory takes what is written.
fn write(file: &mut Writer<Vec<u8>>, seen: &mut Seen, record: &Record<'_>, time: Duration) {
    seen.captured += 1;
    let mut bytes = record.bytes.to_vec();
    finish_checksum(record, &mut bytes);
    let frame = Frame {
        interface: seen.place,
        time,
        way: match record.way {
            watch::Way::Received => Way::In,
            watch::Way::Sent => Way::Out,
        },
        id: record.id,
        queue: record.queue.unwrap_or(0).into(),
        missed: record.missed,
        comment: comment(record, &seen.port.name).map(Into::into),
        len: record.len as u32,
        bytes: bytes.into(),
    };
    let _ = file.frame(&frame);
}

/// What is said of a dropped frame.
fn comment(record: &Record<'_>, port: &str) -> Option<String> {
    let reason = record.drop?;
    Some(format!("dropped at {port}: {}: {}", reason.name(), reason.describe()))
}
