//! Datagrams of tunnels that were lost on the way to their worker.

/// Datagrams that were received and did not come through.
#[derive(Clone, Copy, Default)]
pub(crate) struct Losses {
    /// Those without room in the mailbox.
    pub(crate) busy: u64,
    /// Those that the kernel dropped at the socket.
    pub(crate) overflow: u64,
}
