//! What a flow does about an ICMP error of its machine, or of a router in front of it.
//!
//! A machine that has nobody at its port ends what it has with the one who sent there. The flow's
//! socket serves others as well, so it stays for them; with the last of them it is closed, and from
//! then on the host's kernel gives whoever sends there the answer that the machine gave. (A program
//! of the machine that has connected its socket refuses all but its peer: that must not cost it the
//! flow.) The port of a forward stays open, whatever its machine says.

use super::forward::Listener;
use super::{Flow, Flows, Key};
use crate::drop_reason::DropReason;
use crate::packet::icmp_error::{Fault, Heard};
use crate::router::context::Context;

impl Flows {
    /// Takes an error about a datagram for a machine.
    pub(in crate::router) fn hear(
        &mut self,
        said: &Heard,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        // What waits for departure bears the number of its flow.
        self.depart(context);
        for mapped in [None, Some(said.remote)] {
            let key = Key { port: said.port, source: said.guest, mapped };
            let Some(number) = self.table.find(&key) else { continue };
            let Some(flow) = self.table.get_mut(number) else { continue };
            if !flow.peers.contains(&said.remote.ip()) && mapped.is_none() {
                continue;
            }
            let only = mapped.is_some();
            if flow.hear(said, only)? {
                self.table.remove(number);
            }
            return Ok(());
        }
        let listener = self.forwards.listener_of(said.guest, said.remote);
        listener.ok_or(DropReason::IcmpUnmatched)?.hear(said)
    }
}

impl Flow {
    /// Draws the consequence; `only`: the flow is with one program behind a loopback map. True:
    /// nobody is left to speak to.
    fn hear(&mut self, said: &Heard, only: bool) -> Result<bool, DropReason> {
        match said.fault {
            Fault::TooBig { mtu } if mtu < self.mtu => {
                self.mtu = mtu;
                Ok(false)
            }
            Fault::Closed | Fault::Unreachable => {
                self.peers.remove(&said.remote.ip());
                Ok(only || self.peers.is_empty())
            }
            _ => Err(DropReason::IcmpSoft),
        }
    }
}

impl Listener {
    fn hear(&mut self, said: &Heard) -> Result<(), DropReason> {
        if self.station.is_none_or(|(_, port)| port != said.port) {
            return Err(DropReason::IcmpUnmatched);
        }
        match said.fault {
            Fault::TooBig { mtu } if mtu < self.mtu => {
                self.mtu = mtu;
                Ok(())
            }
            _ => Err(DropReason::IcmpSoft),
        }
    }
}

#[cfg(test)]
mod tests;
