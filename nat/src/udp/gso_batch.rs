//! Datagrams of one flow to one destination, sent with one system call (udp(7), `UDP_SEGMENT`).
//!
//! All have the length of the first; a shorter one is the last. A guest's burst traverses the
//! host's stack once instead of once for each datagram.

use std::net::SocketAddr;

use nix::errno::Errno;

use crate::host_socket::SendOptions;
use crate::local_address::LocalAddress;

/// The kernel's limits: datagrams (`UDP_MAX_SEGMENTS`, 64 in older kernels) and bytes, less the
/// headers.
const MAX_DATAGRAMS: usize = 64;
const MAX_BYTES: usize = 65_535 - 48;

/// What the datagrams of a batch have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchKey {
    /// The flow's number.
    pub number: u32,
    /// The destination.
    pub target: SocketAddr,
    /// The source address; `None`: the host chooses.
    pub local: Option<LocalAddress>,
    /// The destination as the guest sees it.
    pub visible: SocketAddr,
    pub options: SendOptions,
}

/// Datagrams to be sent together.
#[derive(Default)]
pub(super) struct GsoBatch {
    key: Option<BatchKey>,
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
    /// The host does not support GSO.
    is_refused: bool,
}

impl GsoBatch {
    /// Whether a datagram of `length` bytes can be added.
    pub(super) fn accepts(&self, key: &BatchKey, length: usize) -> bool {
        let Some(first) = &self.key else { return true };
        // A datagram shorter than the first is the last.
        let is_open = self.bytes.len() == self.segment * self.count;
        first == key
            && is_open
            && !self.is_refused
            && (1..=self.segment).contains(&length)
            && self.count < MAX_DATAGRAMS
            && self.bytes.len() + length <= MAX_BYTES
    }

    /// Adds a datagram that [`GsoBatch::accepts`].
    pub(super) fn push(&mut self, key: BatchKey, payload: &[u8]) {
        if self.key.replace(key).is_none() {
            self.segment = payload.len();
        }
        self.bytes.extend_from_slice(payload);
        self.count += 1;
    }

    /// The batch's key and, if there is more than one datagram, their length. `None` if it is
    /// empty.
    pub(super) fn destination(&self) -> Option<(BatchKey, Option<u16>)> {
        let segment = (self.count > 1).then_some(self.segment as u16);
        Some((self.key?, segment))
    }

    /// All datagrams, concatenated.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Each datagram.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.segment.max(1))
    }

    /// Records an error of the host. If the host does not support GSO, no more batches are made.
    pub(super) fn record_error(&mut self, error: Errno) {
        self.is_refused |= matches!(error, Errno::EIO | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT);
    }

    pub(super) fn clear(&mut self) {
        self.key = None;
        self.bytes.clear();
        (self.segment, self.count) = (0, 0);
    }
}
