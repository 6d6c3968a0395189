//! A further connection of a stream port, which needs a port of its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use trama_vhost_net_backend::log_limit;

/// A place among the connections of a port, which is free again when this is dropped.
pub(super) struct Ticket(Arc<AtomicU16>);

impl Ticket {
    /// Takes a place, unless `most` are taken.
    pub(super) fn take(taken: &Arc<AtomicU16>, most: u16) -> Option<Ticket> {
        // Only the thread of stream ports takes places.
        if taken.load(Ordering::Acquire) >= most {
            return None;
        }
        taken.fetch_add(1, Ordering::AcqRel);
        Some(Ticket(taken.clone()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A further connection.
pub(crate) struct Arrival {
    /// The port at whose socket it came.
    pub(crate) port: String,
    pub(super) socket: OwnedFd,
    pub(super) peer: String,
    pub(super) ticket: Ticket,
}

impl Arrival {
    /// Closes it, as each name that its port could have is taken.
    pub(crate) fn refuse(self) {
        let Arrival { port, peer, .. } = self;
        let reason = "another port has the name that its connection would have";
        if let Some(left_out) = log_limit::admit(&port, reason) {
            tracing::warn!(
                "port {port}: {peer} was turned away: {reason}, {port}.2 and so on; rename that \
                 one{left_out}"
            );
        }
    }
}
