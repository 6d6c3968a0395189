//! What a TCP is to the flows: segments in, segments out, data between, and time as an argument.
//! It knows no socket, no frame and no clock.

use std::time::Duration;

use super::segment::{Outgoing, Segment, Seq};

/// One connection with a machine of the network.
pub(crate) trait Engine {
    /// Takes a segment. Much data goes to `host`, which says how much of it the host has taken; the
    /// rest, and a little, waits for [`Engine::drain`].
    fn handle(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        host: &mut dyn FnMut(&[u8]) -> usize,
    );

    /// Has the host take what waits for it; true: all of it.
    fn drain(&mut self, host: &mut dyn FnMut(&[u8]) -> usize) -> bool;

    /// Bytes that [`Engine::push`] should be given now.
    fn room(&self) -> usize;

    /// Most bytes of data in a segment of one packet.
    fn segment_size(&self) -> usize;

    /// Whether what has this sequence number was sent and is not acknowledged.
    fn is_on_its_way(&self, sequence: Seq) -> bool;

    /// The way to the machine takes segments of `size` bytes of data at most. True: they were larger.
    fn narrow(&mut self, size: u16) -> bool;

    /// Queues data for the machine.
    fn push(&mut self, bytes: Vec<u8>);

    /// There is no more data for the machine.
    fn finish(&mut self);

    /// Ends the connection by a reset.
    fn abort(&mut self);

    /// Hands segments to `wire`, of up to `large` bytes of data, until there are none or `wire`
    /// says that it has no room: false. At most `count` of them.
    fn output(
        &mut self,
        now: Duration,
        limits: (usize, usize),
        wire: &mut dyn FnMut(&Outgoing<'_>) -> bool,
    ) -> bool;

    /// Does what is due.
    fn expire(&mut self, now: Duration);

    /// When [`Engine::expire`] is to be called next.
    fn deadline(&self) -> Option<Duration>;

    /// Lets more data wait, where the connection has shown that it moves much.
    fn grow(&mut self);

    /// Bytes of data that are kept.
    fn kept(&self) -> usize;

    /// How far it is.
    fn state(&self) -> State;
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The machine has not agreed yet.
    Opening,
    /// Data goes either way. `ended`: the machine sends no more, and what it sent was taken.
    Open {
        /// See above.
        ended: bool,
    },
    /// Both have said all. `lingers`: both know, too; the machine's last segment may come again.
    Closing {
        /// See above.
        lingers: bool,
    },
    /// Over, as both agree.
    Done,
    /// Over: the machine has reset it, does not answer, or it was aborted.
    Broken,
}
