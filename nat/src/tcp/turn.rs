//! A turn of a flow: what its far end may do, and what it did.

/// What a far end may do in one turn.
pub(super) struct Limits {
    /// Bytes of the largest segment to the guest.
    pub large: usize,
    /// The port is below its limit of buffered bytes.
    pub may_buffer_more: bool,
}

/// What a far end did in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    /// Bytes from the guest, and bytes for it.
    pub sent: u64,
    pub received: u64,
    /// There may be more for the guest.
    pub has_more: bool,
}
