//! ICMP errors about datagrams that a flow sent, from its guest or a router in front of it.
//!
//! A closed port ends what the flow has with that remote address. The socket stays for the others
//! and is closed with the last; from then on the host's kernel answers senders as the guest did. (A
//! connected socket of the guest refuses all but its peer, which must not end the flow.) The port
//! of a forward stays open in any case.

use super::forward::Listener;
use super::{Flow, Flows, Key};
use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::packet::icmp_error::{IcmpFault, ReceivedIcmpError};

impl Flows {
    /// Handles an error about a datagram to a guest.
    pub(crate) fn handle_icmp_error(
        &mut self,
        error: &ReceivedIcmpError,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        // The batch refers to a flow by number.
        self.flush(context);
        for mapped in [None, Some(error.remote)] {
            let key = Key { port: error.port, source: error.guest, mapped };
            let Some(number) = self.table.find(&key) else { continue };
            let Some(flow) = self.table.get_mut(number) else { continue };
            if !flow.peers.contains(&error.remote.ip()) && mapped.is_none() {
                continue;
            }
            let only = mapped.is_some();
            if flow.handle_icmp_error(error, only)? {
                self.close(number, context);
            }
            return Ok(());
        }
        let listener = self.forwards.listener_of(error.guest, error.remote);
        listener.ok_or(DropReason::IcmpUnmatched)?.handle_icmp_error(error)
    }
}

impl Flow {
    /// Handles an error. `only`: the flow has one remote end, a loopback map. Returns whether no
    /// remote address is left.
    fn handle_icmp_error(
        &mut self,
        error: &ReceivedIcmpError,
        only: bool,
    ) -> Result<bool, DropReason> {
        match error.fault {
            IcmpFault::TooBig { mtu } if mtu < self.mtu => {
                self.mtu = mtu;
                Ok(false)
            }
            IcmpFault::PortUnreachable | IcmpFault::Unreachable => {
                self.peers.remove(&error.remote.ip());
                Ok(only || self.peers.is_empty())
            }
            _ => Err(DropReason::IcmpSoft),
        }
    }
}

impl Listener {
    fn handle_icmp_error(&mut self, error: &ReceivedIcmpError) -> Result<(), DropReason> {
        if self.station.is_none_or(|(_, port)| port != error.port) {
            return Err(DropReason::IcmpUnmatched);
        }
        match error.fault {
            IcmpFault::TooBig { mtu } if mtu < self.mtu => {
                self.mtu = mtu;
                Ok(())
            }
            _ => Err(DropReason::IcmpSoft),
        }
    }
}

#[cfg(test)]
mod tests;
