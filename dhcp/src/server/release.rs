//! DECLINE, RELEASE and INFORM (RFC 2131, 4.3.3 to 4.3.5).
//!
//! Only the holder can give an address up, from the port that the address is charged to. A guest
//! cannot give up another guest's lease with a forged message.

use std::net::Ipv4Addr;

use super::identity::Client;
use super::{End, Event, Outcome, Server};
use crate::DropReason;
use crate::leases::{Binding, State};
use crate::prefix::is_host;
use crate::store::Record;
use crate::wire::MessageType;

impl Server {
    /// Another host uses the address: it goes into quarantine. It stays charged to the port,
    /// so that a client cannot decline its way through the pool.
    pub(super) fn decline(
        &mut self,
        client: &Client<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let address = client.request.requested.ok_or(DropReason::MessageType)?;
        let binding = self.give_up(client, address)?;
        Record::Freed(address).emit(&mut out.records);
        // spec: rfc2131 decline-mark decline-notify
        out.events.push(ended(&binding, End::Declined));
        self.leases.quarantine(binding, self.now + self.config.quarantine);
        Ok(())
    }

    /// The client is done with the address, which is remembered for it.
    pub(super) fn release(
        &mut self,
        client: &Client<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let binding = self.give_up(client, client.request.ciaddr)?;
        if binding.state == State::Bound {
            out.events.push(ended(&binding, End::Released));
        }
        if !binding.known {
            return Ok(());
        }
        // spec: rfc2131 release-free release-remember
        let record = binding.record(self.now);
        record.into_iter().for_each(|it| Record::Lease(it).emit(&mut out.records));
        self.leases.retire(binding, self.now);
        Ok(())
    }

    /// Takes out the binding that the client holds at this server.
    fn give_up(&mut self, client: &Client<'_>, address: Ipv4Addr) -> Result<Binding, DropReason> {
        if client.request.server_id.is_some_and(|id| !self.is_me(id)) {
            return Err(DropReason::OtherServer);
        }
        self.leases.give_up(&client.claim, address)
    }

    /// INFORM: the client has an address and asks for the other parameters.
    pub(super) fn inform(
        &mut self,
        client: &Client<'_>,
        source: Ipv4Addr,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let ciaddr = client.request.ciaddr;
        let address = if ciaddr.is_unspecified() { source } else { ciaddr };
        if address.is_unspecified() {
            return Err(DropReason::MessageType);
        }
        // spec: rfc2131 inform-consistent inform-no-lease
        // Elsewhere, a guest could make the server send packets to third parties.
        if !is_host(self.config.subnets[client.claim.subnet].prefix, address) {
            return Err(DropReason::UnknownSubnet);
        }
        let reply = self.inform_ack(client, address);
        self.counters.count_sent(MessageType::Ack);
        out.replies.push(reply);
        Ok(())
    }
}

fn ended(binding: &Binding, how: End) -> Event {
    Event::Ended { address: binding.address, mac: binding.mac, port: binding.port, how }
}
