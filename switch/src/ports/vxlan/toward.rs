//! Where the frames of a tunnel go.

use crate::drop_reason::DropReason;
use crate::types::PortId;

/// Where the port of a tunnel is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// Its port.
    pub port: PortId,
    /// The number of the worker that has the port.
    pub worker: usize,
}

/// Where datagrams go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Toward {
    pub(crate) tunnel: Tunnel,
    /// Why they are dropped there, if they are.
    pub(crate) refused: Option<DropReason>,
}
