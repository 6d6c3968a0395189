//! The states of a connection, with the names of RFC 9293, 3.3.2. These are all transitions:
//!
//! ```text
//!        connect                          accept
//!           │                                │
//!           ▼            rcv SYN             ▼
//!     ┌──────────┐                    ┌──────────────┐
//!     │ SYN-SENT │───────────────────▶│ SYN-RECEIVED │
//!     └──────────┘                    └──────────────┘
//!           │ rcv SYN, ACK                   │ rcv ACK of SYN
//!           └────────────┐      ┌────────────┘
//!                        ▼      ▼
//!      snd FIN      ┌─────────────┐      rcv FIN
//!           ┌───────│ ESTABLISHED │───────────┐
//!           ▼       └─────────────┘           ▼
//!    ┌────────────┐                    ┌────────────┐
//!    │ FIN-WAIT-1 │──────────┐         │ CLOSE-WAIT │
//!    └────────────┘  rcv FIN │         └────────────┘
//!           │ rcv ACK of FIN ▼                │ snd FIN
//!           ▼           ┌─────────┐           ▼
//!    ┌────────────┐     │ CLOSING │     ┌──────────┐
//!    │ FIN-WAIT-2 │────▶└─────────┘     │ LAST-ACK │
//!    └────────────┘ rcv FIN  │ done     └──────────┘
//!                            ▼                │ done
//!                      ┌───────────┐          ▼
//!                      │ TIME-WAIT │────▶┌────────┐
//!                      └───────────┘     │ CLOSED │
//!                         timeout or     └────────┘
//!                         rcv RST
//!
//!    any state from SYN-SENT to LAST-ACK:
//!           │ abort      ┌─────────┐  snd RST   ┌───────┐
//!           ├───────────▶│ ABORTED │───────────▶│ RESET │
//!           │ rcv RST    └─────────┘            └───────┘
//!           └───────────────────────────────────────▲
//! ```
//!
//! *rcv FIN*: the FIN and all data before it were received. *done*: our FIN is acknowledged, the
//! guest's was received, and the host took all data.
//!
//! Departures from figure 5:
//! - There is no LISTEN: a connection begins with a SYN, the guest's or ours. CLOSED is where it
//!   ends in order. ABORTED and RESET are where it ends otherwise, because the host's socket is
//!   then reset as well.
//! - CLOSING and LAST-ACK wait for the host, too: from TIME-WAIT and CLOSED on, the host's socket
//!   is closed, and data that it has not taken would be lost. So FIN-WAIT-2 leads to CLOSING,
//!   usually left at once. A reset after our FIN was acknowledged does not end this wait.
//! - A close before ESTABLISHED sends its FIN once the connection is established.

/// The state of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Our SYN is sent or about to be.
    SynSent,
    /// The guest's SYN is received, and answered with ours.
    SynReceived,
    /// Data flows either way.
    Established,
    /// We have sent our FIN.
    FinWait1,
    /// We have sent our FIN, and it is acknowledged.
    FinWait2,
    /// The guest's FIN was received.
    CloseWait,
    /// Both FINs are sent, and the guest's was received after ours was sent.
    Closing,
    /// Both FINs are sent, and the guest's was received first.
    LastAck,
    /// Ended in order; a late segment of the guest is answered.
    TimeWait,
    /// Ended in order.
    Closed,
    /// Ended by us; a reset has to be sent.
    Aborted,
    /// Ended by a reset, which was sent or received.
    Reset,
}

/// What makes a connection change its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// The guest's SYN was received, without an acknowledgement of ours.
    SynReceived,
    /// Both SYNs were received.
    SynAcked,
    /// Our FIN was sent.
    FinSent,
    /// Our FIN is acknowledged.
    FinAcked,
    /// The guest's FIN and all data before it were received.
    FinReceived,
    /// Both FINs are acknowledged, and the host took all data.
    Done,
    /// TIME-WAIT has lasted long enough.
    TimeWaitExpired,
    /// A valid reset was received.
    RstReceived,
    /// The connection cannot go on: a timeout, or the host's socket failed.
    Abort,
    /// A reset was sent.
    RstSent,
}

impl State {
    /// The state after an event. Most events change few states, and may occur again in others.
    #[must_use]
    pub(super) fn after(self, event: Event) -> State {
        match (event, self) {
            (Event::SynReceived, State::SynSent) => State::SynReceived,
            (Event::SynAcked, State::SynSent | State::SynReceived) => State::Established,
            (Event::FinSent, State::Established) => State::FinWait1,
            (Event::FinSent, State::CloseWait) => State::LastAck,
            (Event::FinAcked, State::FinWait1) => State::FinWait2,
            (Event::FinReceived, State::Established) => State::CloseWait,
            (Event::FinReceived, State::FinWait1 | State::FinWait2) => State::Closing,
            (Event::Done, State::Closing) => State::TimeWait,
            (Event::Done, State::LastAck) => State::Closed,
            (Event::TimeWaitExpired | Event::RstReceived, State::TimeWait) => State::Closed,
            (Event::RstReceived, state) if state.is_live() => State::Reset,
            (Event::Abort, state) if state.is_live() => State::Aborted,
            (Event::RstSent, State::Aborted) => State::Reset,
            (_, state) => state,
        }
    }

    /// SYN-SENT or SYN-RECEIVED: the handshake is not complete.
    pub(super) fn is_opening(self) -> bool {
        matches!(self, State::SynSent | State::SynReceived)
    }

    /// From ESTABLISHED to LAST-ACK: the handshake is complete, and the connection has not ended.
    pub(super) fn is_open(self) -> bool {
        !self.is_opening() && self.is_live()
    }

    /// CLOSED, ABORTED or RESET: segments of the guest change nothing.
    pub(super) fn is_over(self) -> bool {
        matches!(self, State::Closed | State::Aborted | State::Reset)
    }

    /// From SYN-SENT to LAST-ACK: a reset ends it.
    fn is_live(self) -> bool {
        !self.is_over() && self != State::TimeWait
    }
}
