//! The port that a packet entered by.

/// Where a packet entered, for limits and to tell clients apart. The number is the caller's; it
/// must stay the same as long as the lease store is kept (the hash of the port's name will do).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortId(pub u64);
