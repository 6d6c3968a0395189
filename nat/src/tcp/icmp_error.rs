//! ICMP errors about segments that a flow sent, from its guest or a router in front of it.
//!
//! Anything on the guest's switch port could have forged such an error. So it must quote a sequence
//! number in flight (RFC 5927, 4.1), and none ends a synchronized connection (RFC 5927, 5.2): a
//! guest that is gone is detected by timeouts.

use super::Flows;
use super::segment::Seq;
use crate::drop_reason::DropReason;
use crate::packet::icmp_error::{IcmpFault, ReceivedIcmpError};

impl Flows {
    /// Handles an error about a segment to a guest.
    pub(crate) fn handle_icmp_error(
        &mut self,
        error: &ReceivedIcmpError,
    ) -> Result<(), DropReason> {
        let number = self.table.get(&(error.guest, error.remote)).copied();
        let flow = number.and_then(|number| self.flows[number as usize].as_mut());
        let flow = flow.filter(|flow| flow.port == error.port);
        let (Some(number), Some(flow)) = (number, flow) else {
            return Err(DropReason::IcmpUnmatched);
        };
        let overhead = flow.ends.overhead() as u16;
        let connection = flow.connection.as_mut();
        let connection =
            // spec: rfc5927 sequence
            connection.filter(|connection| connection.is_in_flight(Seq(error.sequence)));
        let connection = connection.ok_or(DropReason::IcmpUnmatched)?;
        // spec: rfc9293 MUST-54 MUST-56 SHLD-26, rfc5927 hard-as-soft
        let has_changed = match error.fault {
            IcmpFault::TooBig { mtu } => connection.reduce_mss(mtu.saturating_sub(overhead)),
            IcmpFault::PortUnreachable if connection.state().is_opening() => {
                connection.abort();
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
