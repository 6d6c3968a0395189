//! One flow: a connection with a guest, and the far end that continues it.

use std::time::Duration;

use super::connection::Connection;
use super::far::Far;
use super::segment::{Endpoints, Outgoing, Segment};
use super::state::State;
use super::turn::{Limits, Moved};
use crate::context::Context;
use crate::events::{FlowChange, FlowEvent, Protocol, flow_event};
use crate::io::PortMark;

/// Most segments in a large one: as many as fit 64 KiB at MTU 1500.
const GSO_SEGMENTS: usize = 44;
const MAX_PACKET: usize = 65_535;
/// Segments sent in one turn.
const SENDS: usize = 8;

/// A TCP flow.
pub(super) struct Flow {
    pub ends: Endpoints,
    pub port: PortMark,
    pub far: Far,
    /// The guest's SYN as it came, until the host has connected.
    pub syn: Option<Box<[u8]>>,
    pub connection: Option<Connection>,
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
    /// When the host's connection stood; `None` before that, and for flows to the gateway's DNS.
    pub opened: Option<Duration>,
    /// Whether a client outside has opened it.
    pub is_inbound: bool,
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
    pub(super) fn new(now: Duration, port: PortMark, ends: Endpoints, far: Far) -> Flow {
        Flow {
            ends,
            port,
            far,
            syn: None,
            connection: None,
            is_queued: false,
            time_wait_since: None,
            buffered: 0,
            timer: None,
            sent: 0,
            received: 0,
            used: now,
            opened: None,
            is_inbound: false,
        }
    }

    /// An event of the flow.
    pub(super) fn event(&self, change: FlowChange) -> FlowEvent {
        let Endpoints { mac, guest, remote } = self.ends;
        let ends = if self.is_inbound { (remote, guest) } else { (guest, remote) };
        flow_event((self.port, mac), Protocol::Tcp, ends, change)
    }

    /// Whether a SYN may open another flow in its place.
    pub(super) fn is_closing(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        match connection.state() {
            State::Closing | State::LastAck => connection.is_eof_delivered(),
            state => state == State::TimeWait || state.is_over(),
        }
    }

    /// The state as `tramactl` shows it.
    pub(super) fn state(&self) -> &'static str {
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
    pub(super) fn handle(&mut self, now: Duration, segment: &Segment<'_>) {
        self.used = now;
        if !segment.payload.is_empty() {
            self.far.guest_sent();
        }
        let Flow { connection: Some(connection), far, sent, .. } = self else { return };
        let mut failed = false;
        connection.handle(now, segment, &mut |bytes| {
            let count = far.write(bytes).unwrap_or_else(|_| {
                failed = true;
                0
            });
            *sent += count as u64;
            count
        });
        if failed {
            connection.abort();
        }
    }

    /// Does as much as one turn may. `may_buffer_more`: the port is below its limit of buffered
    /// bytes.
    pub(super) fn serve(
        &mut self,
        context: &mut Context<'_>,
        read_buffer: &mut Vec<u8>,
        may_buffer_more: bool,
    ) -> Turn {
        let Flow { connection: Some(connection), far, .. } = self else { return Turn::Idle };
        let (now, ends) = (context.now, self.ends);
        let mss = connection.segment_size();
        let segments = if context.config.rules.is_some() { GSO_SEGMENTS } else { 1 };
        // The length field of an IP packet has 16 bits.
        let large = (segments * mss).min((MAX_PACKET - ends.overhead()) / mss * mss);
        let limits = Limits { large, may_buffer_more };
        let Moved { sent, received, mut has_more } =
            far.exchange(now, connection, &limits, read_buffer);
        (self.sent, self.received) = (self.sent + sent, self.received + received);
        if received > 0 {
            self.used = now;
        }
        let send = &mut |segment: &Outgoing<'_>| ends.send(context, segment).is_ok();
        has_more |= !connection.output(now, (large, SENDS), send);
        match connection.state() {
            State::Closed => Turn::Over,
            State::Aborted | State::Reset => {
                far.reset();
                Turn::Over
            }
            State::TimeWait => {
                far.close();
                Turn::Idle
            }
            _ if has_more => Turn::More,
            _ => Turn::Idle,
        }
    }

    /// When the flow needs a turn without an event.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let due = self.connection.as_ref().and_then(Connection::deadline);
        self.far.deadline().into_iter().chain(due).min()
    }
}
