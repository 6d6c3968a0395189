//! DISCOVER: choose an address, probe it, offer it (RFC 2131, 4.3.1).

use std::net::Ipv4Addr;

use super::identity::Client;
use super::{Event, Outcome, Server};
use crate::leases::policy::{Claim, Probe};
use crate::leases::{Binding, State};
use crate::wire::MessageType;
use crate::{DropReason, Time};

impl Server {
    pub(super) fn discover(
        &mut self,
        client: &Client<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let choice = self.leases.choose(&client.claim)?;
        if self.leases.has_lease(&client.claim) {
            self.offer(client, choice.address, out);
            return Ok(());
        }
        // Only the server's own link can be probed; clients behind a relay probe for themselves.
        // spec: rfc2131 probe-reused probe-new probe-off
        let probe = self.config.probe.filter(|_| client.claim.subnet == 0);
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

    /// The probe of an address ended without an answer.
    pub(super) fn probe_ended(&mut self, binding: Binding, out: &mut Outcome) {
        let Some(request) = &binding.pending else { return };
        // The client, not its binding, is what counts: the binding is out of the table.
        if let (Ok(client), Some(key)) =
            (self.identify_from(request, binding.port, false), binding.key.clone())
        {
            let claim = Claim { key, ..client.claim };
            self.offer(&Client { claim, ..client }, binding.address, out);
        }
    }

    fn offer(&mut self, client: &Client<'_>, address: Ipv4Addr, out: &mut Outcome) {
        if client.request.rapid_commit && self.config.rapid_commit {
            return self.commit(client, address, out);
        }
        if !self.leases.has_lease(&client.claim) {
            let until = self.now + self.config.offer_hold;
            self.hold(client, address, State::Offered, until);
        }
        let reply = self.give(client, MessageType::Offer, address);
        self.counters.count_sent(MessageType::Offer);
        out.replies.push(reply);
    }

    /// Keeps an address for a client that has no lease on it.
    fn hold(&mut self, client: &Client<'_>, address: Ipv4Addr, state: State, until: Time) {
        let pending = (state == State::Probing).then(|| Box::new(client.request.clone()));
        self.leases.hold(&client.claim, address, (state, until), pending);
    }
}
