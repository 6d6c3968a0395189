//! Datagrams of one flow to one destination, sent with one system call (udp(7), `UDP_SEGMENT`).
//!
//! All are of the length of the first; a shorter one is the last. So a machine's burst costs the
//! host one walk through its stack in place of one for each datagram.

use std::net::SocketAddr;

use nix::errno::Errno;

use crate::router::host_socket::Manner;
use crate::router::local_address::LocalAddress;

/// What the kernel takes at once: datagrams (`UDP_MAX_SEGMENTS`, 64 on older ones) and bytes, with
/// the headers in front of them.
const MAX_DATAGRAMS: usize = 64;
const MAX_BYTES: usize = 65_535 - 48;

/// What datagrams must have in common to travel together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wagon {
    /// The flow.
    pub number: u32,
    /// Where it goes.
    pub target: SocketAddr,
    /// The address of the host that it leaves from; `None`: the host chooses.
    pub local: Option<LocalAddress>,
    /// Where the machine sent it.
    pub shown: SocketAddr,
    pub manner: Manner,
}

/// Datagrams that wait to be sent.
#[derive(Default)]
pub(super) struct Train {
    wagon: Option<Wagon>,
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
    /// The host sends no trains.
    is_refused: bool,
}

impl Train {
    /// Whether a datagram of `length` bytes may be added.
    pub fn takes(&self, wagon: &Wagon, length: usize) -> bool {
        let Some(first) = &self.wagon else { return true };
        // A datagram that is shorter than the first is the last.
        let is_open = self.bytes.len() == self.segment * self.count;
        first == wagon
            && is_open
            && !self.is_refused
            && (1..=self.segment).contains(&length)
            && self.count < MAX_DATAGRAMS
            && self.bytes.len() + length <= MAX_BYTES
    }

    /// Adds a datagram that [`Train::takes`].
    pub fn add(&mut self, wagon: Wagon, payload: &[u8]) {
        if self.wagon.replace(wagon).is_none() {
            self.segment = payload.len();
        }
        self.bytes.extend_from_slice(payload);
        self.count += 1;
    }

    /// Where it goes and, if there is more than one, the length of the datagrams; `None`: it is
    /// empty.
    pub fn destination(&self) -> Option<(Wagon, Option<u16>)> {
        let segment = (self.count > 1).then_some(self.segment as u16);
        Some((self.wagon?, segment))
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Each of them.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.segment.max(1))
    }

    /// The host refused a train. Because of what it is, and not of where it goes: no more of them.
    pub fn note_refusal(&mut self, error: Errno) {
        self.is_refused |= matches!(error, Errno::EIO | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT);
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.wagon = None;
        self.bytes.clear();
        (self.segment, self.count) = (0, 0);
    }
}
