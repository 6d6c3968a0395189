//! One flow: a connection with a guest, and the host's socket that continues it.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};

use super::connection::Connection;
use super::read_pause::ReadPause;
use super::segment::{Endpoints, Outgoing, Segment};
use super::state::State;
use crate::context::Context;
use crate::io::PortMark;

/// Most segments in a large one: as many as fit 64 KiB at MTU 1500.
const GSO_SEGMENTS: usize = 44;
const MAX_PACKET: usize = 65_535;
/// Reads from the host's socket, and segments sent, in one turn.
const READS: usize = 4;
const SENDS: usize = 8;
/// Shorter reads are copied out of the read buffer.
const MIN_OWN_BUFFER: usize = 16 << 10;

/// A TCP flow.
pub(super) struct Flow {
    pub ends: Endpoints,
    pub port: PortMark,
    /// The host's socket; `None` until the flow's first turn.
    pub stream: Option<TcpStream>,
    /// The guest's SYN as it came, until the host has connected.
    pub syn: Option<Box<[u8]>>,
    pub connection: Option<Connection>,
    pub readable: bool,
    pub writable: bool,
    pause: ReadPause,
    /// Whether the poll reports that the socket is readable.
    pub read_interest: bool,
    /// The host was told that the guest has closed.
    host_shut_down: bool,
    /// Whether the flow is queued for a turn.
    pub is_queued: bool,
    /// When the flow entered TIME-WAIT.
    pub time_wait_since: Option<Duration>,
    /// Buffered bytes that are charged to the port.
    pub buffered: usize,
    /// The flow's entry among the timers.
    pub timer: Option<Duration>,
    /// Bytes from the guest that the host took, and bytes from the host for the guest.
    pub sent: u64,
    pub received: u64,
    /// When anything was last sent either way.
    pub used: Duration,
}

/// What is left after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// The flow waits for an event.
    Idle,
    /// There is more to do.
    More,
    /// The flow has ended.
    Over,
}

impl Flow {
    pub fn new(now: Duration, port: PortMark, ends: Endpoints) -> Flow {
        Flow {
            ends,
            port,
            stream: None,
            syn: None,
            connection: None,
            readable: false,
            writable: false,
            pause: ReadPause::default(),
            read_interest: true,
            host_shut_down: false,
            is_queued: false,
            time_wait_since: None,
            buffered: 0,
            timer: None,
            sent: 0,
            received: 0,
            used: now,
        }
    }

    /// Whether a SYN may open another flow in its place.
    pub fn is_closing(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        match connection.state() {
            State::Closing | State::LastAck => connection.is_eof_delivered(),
            state => state == State::TimeWait || state.is_over(),
        }
    }

    /// The state as `tramactl` shows it.
    pub fn state(&self) -> &'static str {
        let Some(connection) = &self.connection else { return "connecting" };
        match connection.state() {
            state if state.is_opening() => "opening",
            _ if self.is_closing() => "closing",
            State::CloseWait if connection.is_eof_delivered() => "half-closed",
            // Until the host took all data, it does not know that the guest has closed.
            _ => "established",
        }
    }

    /// Handles a segment of the guest.
    pub fn handle(&mut self, now: Duration, segment: &Segment<'_>) {
        self.used = now;
        if !segment.payload.is_empty() {
            self.pause.cancel();
        }
        let Flow { connection: Some(connection), stream, writable, sent, .. } = self else {
            return;
        };
        let mut failed = false;
        connection
            .handle(now, segment, &mut |bytes| write(stream, writable, sent, &mut failed, bytes));
        if failed {
            connection.abort();
        }
    }

    /// Does as much as one turn may. `may_buffer_more`: the port is below its limit of buffered
    /// bytes.
    pub fn serve(
        &mut self,
        context: &mut Context<'_>,
        read_buffer: &mut Vec<u8>,
        may_buffer_more: bool,
    ) -> Turn {
        self.write_host();
        let Flow { connection: Some(connection), ends, .. } = self else { return Turn::Idle };
        if may_buffer_more {
            connection.autotune();
        }
        let mss = connection.segment_size();
        let segments = if context.config.rules.is_some() { GSO_SEGMENTS } else { 1 };
        // The length field of an IP packet has 16 bits.
        let large = (segments * mss).min((MAX_PACKET - ends.overhead()) / mss * mss);
        let ends = *ends;
        let before = self.received;
        // Looked up now: data that is still charged to the port may have been acknowledged since
        // the last turn, and then no other event would bring the next one.
        let has_buffered =
            self.connection.as_ref().is_some_and(|connection| connection.buffered() > 0);
        // While reading is paused, no event reports that the socket is readable.
        let pause_is_over =
            !self.read_interest && self.paused_until().is_none_or(|until| until <= context.now);
        self.readable = pause_is_over || (self.read_interest && self.readable);
        let mut has_more = (may_buffer_more || !has_buffered) && self.read_host(read_buffer, large);
        let count = (self.received - before) as usize;
        if count > 0 {
            self.used = context.now;
        }
        if count > 0 || pause_is_over {
            self.pause.record_read(context.now, count);
        }
        let Some(connection) = &mut self.connection else { return Turn::Idle };
        let now = context.now;
        let send = &mut |segment: &Outgoing<'_>| ends.send(context, segment).is_ok();
        has_more |= !connection.output(now, (large, SENDS), send);
        match connection.state() {
            State::Closed => Turn::Over,
            State::Aborted | State::Reset => {
                self.reset_host();
                Turn::Over
            }
            State::TimeWait => {
                self.stream = None;
                Turn::Idle
            }
            _ if has_more => Turn::More,
            _ => Turn::Idle,
        }
    }

    /// Until when reading from the host is paused.
    pub fn paused_until(&self) -> Option<Duration> {
        self.pause.paused_until()
    }

    /// When the flow needs a turn without an event.
    pub fn deadline(&self) -> Option<Duration> {
        let due = self.connection.as_ref().and_then(Connection::deadline);
        self.paused_until().into_iter().chain(due).min()
    }

    /// Passes buffered data to the host, and the guest's FIN after it.
    fn write_host(&mut self) {
        let Flow { connection: Some(connection), stream, writable, sent, .. } = self else {
            return;
        };
        let mut failed = false;
        if *writable {
            connection.drain(&mut |bytes| write(stream, writable, sent, &mut failed, bytes));
        }
        let has_ended = connection.is_eof_delivered() && !connection.state().is_over();
        if has_ended && !self.host_shut_down {
            self.host_shut_down = true;
            let result = stream.as_ref().map_or(Ok(()), |stream| stream.shutdown(Shutdown::Write));
            failed |= result.is_err();
        }
        if failed {
            connection.abort();
        }
    }

    /// Reads from the host. Returns whether there may be more.
    fn read_host(&mut self, read_buffer: &mut Vec<u8>, large: usize) -> bool {
        let Flow { connection: Some(connection), stream: Some(stream), received, .. } = self else {
            return false;
        };
        for _ in 0..READS {
            // A connection that we have closed has no room.
            if !self.readable || connection.room() < large {
                return false;
            }
            read_buffer.clear();
            read_buffer.reserve_exact(large);
            match recv(&*stream, spare_capacity(read_buffer), RecvFlags::empty()) {
                Ok((0, _)) => {
                    connection.close();
                    return false;
                }
                Ok((count, _)) => {
                    *received += count as u64;
                    let is_large = count >= MIN_OWN_BUFFER;
                    connection.push(if is_large {
                        std::mem::take(read_buffer)
                    } else {
                        read_buffer.clone()
                    });
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    connection.abort();
                    return false;
                }
            }
        }
        self.readable
    }

    /// Closes the host's socket with a reset.
    pub fn reset_host(&mut self) {
        if let Some(stream) = self.stream.take() {
            // On failure, the socket is closed in order.
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}

/// Writes to the host's socket. Returns how many bytes it took.
fn write(
    stream: &mut Option<TcpStream>,
    writable: &mut bool,
    sent: &mut u64,
    failed: &mut bool,
    bytes: &[u8],
) -> usize {
    let Some(stream) = stream else { return bytes.len() };
    if !*writable {
        return 0;
    }
    match stream.write(bytes) {
        Ok(count) => {
            *sent += count as u64;
            count
        }
        Err(error) => {
            *writable = false;
            *failed |= ![ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind());
            0
        }
    }
}
