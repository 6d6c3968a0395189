//! One flow: a connection with a machine, and the host's socket that continues it.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};

use super::connection::Connection;
use super::engine::{Engine, State};
use super::pace::Pace;
use super::segment::{Outgoing, Route, Segment};
use crate::io::PortId;
use crate::router::context::Context;

/// Segments of one packet's size in a large one: as many as fit 64 KiB at MTU 1500.
const SEGMENTS: usize = 44;
const MAX_PACKET: usize = 65_535;
/// Reads of the host's socket, and segments sent, before other flows have their turn.
const READS: usize = 4;
const SENDS: usize = 8;
/// What is shorter is copied out of the buffer that it was read into.
const WORTH_A_BUFFER: usize = 16 << 10;

/// A flow.
pub(super) struct Flow {
    pub route: Route,
    pub port: PortId,
    /// The host's socket, from the flow's first turn on.
    pub stream: Option<TcpStream>,
    /// The machine's SYN as it came, until the host has connected.
    pub syn: Option<Box<[u8]>>,
    pub engine: Option<Connection>,
    pub readable: bool,
    pub writable: bool,
    pace: Pace,
    /// Whether events say that the socket is readable.
    pub hears: bool,
    /// The host sends no more, or has been told that we do not.
    read_ended: bool,
    write_ended: bool,
    /// Among those that wait for their turn.
    pub is_queued: bool,
    /// Since when it is over, and only answers what comes late.
    pub lingers: Option<Duration>,
    /// What is on the port's account.
    pub kept: usize,
    /// When it is looked at next, as the timers know it.
    pub timer: Option<Duration>,
    /// Bytes from the machine that the host has taken, and bytes that the host had for it.
    pub sent: u64,
    pub received: u64,
    /// When something was sent either way.
    pub used: Duration,
}

/// What a turn has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It waits for an event.
    Idle,
    /// There is more to do.
    More,
    /// It is over.
    Over,
}

impl Flow {
    pub fn new(now: Duration, port: PortId, route: Route) -> Flow {
        Flow {
            route,
            port,
            stream: None,
            syn: None,
            engine: None,
            readable: false,
            writable: false,
            pace: Pace::default(),
            hears: true,
            read_ended: false,
            write_ended: false,
            is_queued: false,
            lingers: None,
            kept: 0,
            timer: None,
            sent: 0,
            received: 0,
            used: now,
        }
    }

    /// Whether a SYN may begin another flow in its place.
    pub fn is_closing(&self) -> bool {
        let state = self.engine.as_ref().map(Engine::state);
        matches!(state, Some(State::Closing { .. } | State::Done | State::Broken))
    }

    /// How far it is, for a person.
    pub fn state(&self) -> &'static str {
        match self.engine.as_ref().map(Engine::state) {
            None => "connecting",
            Some(State::Opening) => "opening",
            Some(State::Open { ended: false }) => "established",
            Some(State::Open { ended: true }) => "half-closed",
            Some(State::Closing { .. } | State::Done | State::Broken) => "closing",
        }
    }

    /// Takes a segment of the machine.
    pub fn handle(&mut self, now: Duration, segment: &Segment<'_>) {
        self.used = now;
        if !segment.payload.is_empty() {
            self.pace.hurry();
        }
        let Flow { engine: Some(engine), stream, writable, sent, .. } = self else { return };
        let mut failed = false;
        engine.handle(now, segment, &mut |bytes| write(stream, writable, sent, &mut failed, bytes));
        if failed {
            engine.abort();
        }
    }

    /// Does what can be done now, as much of it as one turn may. `is_rich`: its port may keep more.
    pub fn serve(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        is_rich: bool,
    ) -> Turn {
        self.write_host();
        let Flow { engine: Some(engine), route, .. } = self else { return Turn::Idle };
        if is_rich {
            engine.grow();
        }
        let mss = engine.segment_size();
        let segments = if context.config.has_large_frames() { SEGMENTS } else { 1 };
        // A large packet's length has 16 bits.
        let large = (segments * mss).min((MAX_PACKET - route.overhead()) / mss * mss);
        let route = *route;
        let before = self.received;
        // Asked now: what is on the account may have left since the last turn, and then nothing
        // would bring another one.
        let keeps = self.engine.as_ref().is_some_and(|engine| engine.kept() > 0);
        // No event says so while reading rests.
        let has_rested = !self.hears && self.rests().is_none_or(|until| until <= context.now);
        self.readable = has_rested || (self.hears && self.readable);
        let mut has_more = (is_rich || !keeps) && self.read_host(scratch, large);
        let count = (self.received - before) as usize;
        if count > 0 {
            self.used = context.now;
        }
        if count > 0 || has_rested {
            self.pace.took(context.now, count);
        }
        let Some(engine) = &mut self.engine else { return Turn::Idle };
        let now = context.now;
        let send = &mut |segment: &Outgoing<'_>| route.send(context, segment).is_ok();
        has_more |= !engine.output(now, (large, SENDS), send);
        match engine.state() {
            State::Done => Turn::Over,
            State::Broken => {
                self.reset_host();
                Turn::Over
            }
            State::Closing { lingers: true } => {
                self.stream = None;
                Turn::Idle
            }
            _ if has_more => Turn::More,
            _ => Turn::Idle,
        }
    }

    /// Until when reading from the host rests.
    pub fn rests(&self) -> Option<Duration> {
        self.pace.rests()
    }

    /// When it needs a turn, whatever happens.
    pub fn deadline(&self) -> Option<Duration> {
        let due = self.engine.as_ref().and_then(Engine::deadline);
        self.rests().into_iter().chain(due).min()
    }

    /// Gives the host what waits for it, and tells it of the machine's end.
    fn write_host(&mut self) {
        let Flow { engine: Some(engine), stream, writable, sent, .. } = self else { return };
        let mut failed = false;
        if *writable {
            engine.drain(&mut |bytes| write(stream, writable, sent, &mut failed, bytes));
        }
        let state = engine.state();
        let has_ended = matches!(state, State::Open { ended: true } | State::Closing { .. });
        if has_ended && !self.write_ended {
            self.write_ended = true;
            let result = stream.as_ref().map_or(Ok(()), |stream| stream.shutdown(Shutdown::Write));
            failed |= result.is_err();
        }
        if failed {
            engine.abort();
        }
    }

    /// Takes what the host has for the machine. True: there may be more.
    fn read_host(&mut self, scratch: &mut Vec<u8>, large: usize) -> bool {
        let Flow { engine: Some(engine), stream: Some(stream), received, .. } = self else {
            return false;
        };
        if self.read_ended {
            return false;
        }
        for _ in 0..READS {
            if !self.readable || engine.room() < large {
                return false;
            }
            scratch.clear();
            scratch.reserve_exact(large);
            match recv(&*stream, spare_capacity(scratch), RecvFlags::empty()) {
                Ok((0, _)) => {
                    self.read_ended = true;
                    engine.finish();
                    return false;
                }
                Ok((count, _)) => {
                    *received += count as u64;
                    let is_large = count >= WORTH_A_BUFFER;
                    engine.push(if is_large { std::mem::take(scratch) } else { scratch.clone() });
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    engine.abort();
                    return false;
                }
            }
        }
        self.readable
    }

    /// Closes the host's socket by a reset.
    pub fn reset_host(&mut self) {
        if let Some(stream) = self.stream.take() {
            // One that cannot be reset is closed in order.
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}

/// Gives the host data; how much of it was taken.
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
