//! The ingress port of a packet.

/// The ingress port of a packet, used for limits and to tell clients apart. The caller chooses the
/// number and keeps it the same as long as the lease store is kept; a hash of the port's name will
/// do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortId(pub u64);
