//! DISCOVER: choose an address, look for another user of it, offer it (RFC 2131, 4.3.1).

use std::net::Ipv4Addr;

use super::address::Probe;
use super::identity::Client;
use super::{Event, Outcome, Server};
use crate::leases::{Binding, State};
use crate::wire::MessageType;
use crate::{DropReason, Time};

impl Server {
    pub(super) fn discover(
        &mut self,
        client: &Client<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let choice = self.choose(client)?;
        if self.has_lease(client) {
            self.offer(client, choice.address, out);
            return Ok(());
        }
        // Only the server's own link can be probed; a relay's client checks for itself.
        let probe = self.config.probe.filter(|_| client.subnet == 0);
        match (probe, choice.probe) {
            (Some(time), Probe::Needed) => {
                let until = self.now + time;
                out.events.push(Event::Probe { address: choice.address, until });
                self.hold(client, choice.address, State::Probing, until);
                Ok(())
            }
            (Some(_), Probe::Running(until)) => {
                self.hold(client, choice.address, State::Probing, until);
                Err(DropReason::Probing)
            }
            (None, _) | (_, Probe::Done) => {
                self.offer(client, choice.address, out);
                Ok(())
            }
        }
    }

    /// The host had time to find another user of the address, and did not.
    pub(super) fn probe_ended(&mut self, binding: Binding, out: &mut Outcome) {
        let Some(request) = &binding.pending else { return };
        // The client, not its binding, is what counts: the binding is out of the table.
        if let (Ok(client), Some(key)) =
            (self.identify_from(request, binding.port, false), binding.key.clone())
        {
            self.offer(&Client { key, ..client }, binding.address, out);
        }
    }

    fn offer(&mut self, client: &Client<'_>, address: Ipv4Addr, out: &mut Outcome) {
        if client.request.rapid_commit && self.config.rapid_commit {
            return self.commit(client, address, out);
        }
        if !self.has_lease(client) {
            let until = self.now + self.config.offer_hold;
            self.hold(client, address, State::Offered, until);
        }
        let reply = self.give(client, MessageType::Offer, address);
        self.counters.count_sent(MessageType::Offer);
        out.replies.push(reply);
    }

    /// A lease stays in force until the client requests what it is offered now. That is its own
    /// address, or the one reserved for it; neither need be held.
    fn has_lease(&self, client: &Client<'_>) -> bool {
        self.own(client).is_some_and(|binding| binding.state == State::Bound)
    }

    /// Keeps an address for a client that has no lease on it.
    fn hold(&mut self, client: &Client<'_>, address: Ipv4Addr, state: State, until: Time) {
        let key = Some(client.key.clone());
        let before = self.leases.get(address).filter(|binding| binding.key == key);
        let known = before.is_some_and(|binding| binding.known);
        let name = before.filter(|_| known).and_then(|binding| binding.name.clone());
        let pending = (state == State::Probing).then(|| Box::new(client.request.clone()));
        self.leases.put(Binding {
            address,
            subnet: client.subnet,
            state,
            until,
            key,
            mac: client.request.mac,
            port: client.port,
            name,
            known,
            pending,
        });
    }
}
