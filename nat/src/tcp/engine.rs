//! The interface between flows and TCP: segments in, segments out, data in between, time as an
//! argument. An implementation knows no socket, no frame and no clock.

use std::time::Duration;

use super::segment::{Outgoing, Segment, Seq};

/// One connection with a guest.
pub(crate) trait Engine {
    /// Handles a segment. Much data is passed to `host` at once, which returns how much the host's
    /// socket took. The rest, and small amounts, wait for [`Engine::drain`].
    fn handle(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        host: &mut dyn FnMut(&[u8]) -> usize,
    );

    /// Passes buffered data to the host. Returns whether it took all.
    fn drain(&mut self, host: &mut dyn FnMut(&[u8]) -> usize) -> bool;

    /// Free space for [`Engine::push`], in bytes.
    fn room(&self) -> usize;

    /// Maximum segment size in bytes.
    fn segment_size(&self) -> usize;

    /// Whether this sequence number was sent and is not acknowledged.
    fn is_in_flight(&self, sequence: Seq) -> bool;

    /// Reduces the maximum segment size to `size` bytes. Returns whether it was larger.
    fn reduce_mss(&mut self, size: u16) -> bool;

    /// Queues data for the guest.
    fn push(&mut self, bytes: Vec<u8>);

    /// Closes the sending side: no more data follows.
    fn close(&mut self);

    /// Ends the connection with a reset.
    fn abort(&mut self);

    /// Passes at most `count` segments to `wire`, each with up to `large` bytes of data. `wire`
    /// returns false if it has no room. Returns whether nothing is left to send.
    fn output(
        &mut self,
        now: Duration,
        limits: (usize, usize),
        wire: &mut dyn FnMut(&Outgoing<'_>) -> bool,
    ) -> bool;

    /// Handles expired timers.
    fn expire(&mut self, now: Duration);

    /// When [`Engine::expire`] has to be called next.
    fn deadline(&self) -> Option<Duration>;

    /// Grows the buffers of a connection that has filled them.
    fn autotune(&mut self);

    /// Bytes of buffered data.
    fn buffered(&self) -> usize;

    /// The connection's state.
    fn state(&self) -> State;
}

/// The state of a connection, as flows see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The handshake is not complete.
    Opening,
    /// Data flows either way. `peer_closed`: the guest's FIN was received, and the host took all
    /// data.
    Open {
        /// See above.
        peer_closed: bool,
    },
    /// Both sides have sent their FIN. `time_wait`: both FINs are acknowledged, and a late segment
    /// of the guest is answered.
    Closing {
        /// See above.
        time_wait: bool,
    },
    /// Closed in order.
    Closed,
    /// Reset by the guest, timed out, or aborted.
    Broken,
}
