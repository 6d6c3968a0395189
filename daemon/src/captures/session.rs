//! One capture, on a thread of its own: from the queues of its watches to a pcapng file.

mod ports;

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use trama_capture::pcapng::{Frame, Way, Writer};
use trama_frame::checksum;
use trama_switch::watch::{self, Record};

use self::ports::Ports;
use super::{Slot, Wanted};
use crate::ctl::Failure;
use crate::state::Daemon;

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
    let mut ports = Ports::new(daemon);
    ports.begin(&wanted, &mut file)?;
    let (client, chunks) = channel(CHUNKS);
    let (id, left) = (slot.id, wanted.count.unwrap_or(u64::MAX));
    let session = Session { wanted, slot, ports, file, client, left };
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
        while self.left > 0 && !self.slot.is_ending() {
            if self.client.is_closed() {
                return Err(ClientGone);
            }
            if followed.elapsed() >= FOLLOW {
                followed = Instant::now();
                if !self.ports.follow(&self.wanted, &mut self.file) {
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
                seen.captured += 1;
                seen.missed += record.missed;
                (frames, missed) = (frames + 1, missed + record.missed);
                self.left -= 1;
                let time = watched.clock.of(record.time);
                let mut bytes = record.bytes.to_vec();
                finish_checksum(&record, &mut bytes);
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
                    comment: comment(&record, &seen.name).map(Into::into),
                    len: record.len as u32,
                    bytes: bytes.into(),
                };
                // Memory takes what is written.
                let _ = self.file.frame(&frame);
                has_any = true;
            }
            self.slot.count(frames, missed);
            if self.file.get_mut().len() >= CHUNK {
                self.flush()?;
            }
        }
        Ok(has_any)
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

/// What is said of a dropped frame.
fn comment(record: &Record<'_>, port: &str) -> Option<String> {
    let reason = record.drop?;
    Some(format!("dropped at {port}: {}: {}", reason.name(), reason.describe()))
}

/// Fills in a checksum that is left to the receiver, if the frame is there as a whole.
fn finish_checksum(record: &Record<'_>, bytes: &mut [u8]) {
    let mut header = record.header;
    if bytes.len() == record.len {
        checksum::complete(bytes, &mut header);
    }
}
