//! The state of a connection, as flows see it.

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
