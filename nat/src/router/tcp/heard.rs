//! What a flow does about an ICMP error of its machine, or of a router in front of it.
//!
//! Anybody on the machine's switch port could have made it up. So it has to quote what is on its way
//! (RFC 5927, 4.1), and once both ends have agreed to the connection, none ends it (RFC 5927, 5.2):
//! a machine that is gone is found out by its silence.

use super::Flows;
use super::engine::{Engine, State};
use super::segment::Seq;
use crate::drop_reason::DropReason;
use crate::packet::icmp_error::{Fault, Heard};

impl Flows {
    /// Takes an error about a segment for a machine.
    pub(in crate::router) fn hear(&mut self, said: &Heard) -> Result<(), DropReason> {
        let number = self.table.get(&(said.guest, said.remote)).copied();
        let flow = number.and_then(|number| self.flows[number as usize].as_mut());
        let flow = flow.filter(|flow| flow.port == said.port);
        let (Some(number), Some(flow)) = (number, flow) else {
            return Err(DropReason::IcmpUnmatched);
        };
        let overhead = flow.route.overhead() as u16;
        let engine = flow.engine.as_mut();
        let engine = engine.filter(|engine| engine.is_on_its_way(Seq(said.sequence)));
        let engine = engine.ok_or(DropReason::IcmpUnmatched)?;
        let has_changed = match said.fault {
            Fault::TooBig { mtu } => engine.narrow(mtu.saturating_sub(overhead)),
            Fault::Closed if engine.state() == State::Opening => {
                engine.abort();
                true
            }
            _ => false,
        };
        if !has_changed {
            return Err(DropReason::IcmpSoft);
        }
        self.queue(number);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
