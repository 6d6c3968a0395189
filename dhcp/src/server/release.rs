//! DECLINE, RELEASE and INFORM (RFC 2131, 4.3.3 to 4.3.5).
//!
//! Only the holder, from the port that the address is charged to, can give an address up: a guest
//! that forges another's message gets nowhere.

use std::net::Ipv4Addr;

use super::identity::Client;
use super::{End, Event, Outcome, Server};
use crate::DropReason;
use crate::leases::{Binding, State};
use crate::store::{LeaseRecord, Record};
use crate::wire::MessageType;

impl Server {
    /// Another host uses the address: leave it alone for a while. It stays charged to the port,
    /// so that a client cannot decline its way through the pool.
    pub(super) fn decline(
        &mut self,
        client: &Client<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let address = client.request.requested.ok_or(DropReason::MessageType)?;
        let binding = self.give_up(client, address)?;
        Record::Freed(address).emit(&mut out.records);
        out.events.push(ended(&binding, End::Declined));
        self.quarantine(binding);
        Ok(())
    }

    /// The client is done with the address, which is remembered for it.
    pub(super) fn release(
        &mut self,
        client: &Client<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let mut binding = self.give_up(client, client.request.ciaddr)?;
        if binding.state == State::Bound {
            out.events.push(ended(&binding, End::Released));
        }
        if !binding.known {
            return Ok(());
        }
        (binding.state, binding.until, binding.pending) = (State::Idle, self.now, None);
        let lease = LeaseRecord {
            address: binding.address,
            until: self.now,
            port: binding.port,
            mac: binding.mac,
            key: client.key.clone(),
            name: binding.name.clone(),
        };
        Record::Lease(lease).emit(&mut out.records);
        self.leases.put(binding);
        Ok(())
    }

    /// Takes out the binding that the client holds at this server.
    fn give_up(&mut self, client: &Client<'_>, address: Ipv4Addr) -> Result<Binding, DropReason> {
        if client.request.server_id.is_some_and(|id| !self.is_me(id)) {
            return Err(DropReason::OtherServer);
        }
        let held = self.own(client).is_some_and(|own| {
            let in_use = matches!(own.state, State::Offered | State::Bound);
            own.address == address && own.port == client.port && in_use
        });
        let binding = if held { self.leases.take(address) } else { None };
        binding.ok_or(DropReason::NotHolder)
    }

    /// The client has an address of its own and asks for the rest.
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
        // An answer to anywhere else would be a packet that a guest has the server send.
        if !self.config.subnets[client.subnet].prefix.is_host(address) {
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
