//! Which address a client gets (RFC 2131, 4.3.1), and whether it may have a certain one.

use std::net::Ipv4Addr;

use super::identity::Client;
use super::{PortId, Server};
use crate::leases::{Binding, State};
use crate::{DropReason, Time};

/// An address for an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    pub address: Ipv4Addr,
    pub probe: Probe,
}

/// Whether another user of the address is to be looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// Nobody has looked.
    Needed,
    /// A look is under way, until then.
    Running(Time),
    /// The address is the client's own or reserved, or somebody has just looked.
    Done,
}

impl Server {
    /// In this order: the reserved address, the one that the client has or had, the one that it
    /// asks for, the one that its hash picks, the one that has been idle for longest.
    pub(super) fn choose(&self, client: &Client<'_>) -> Result<Choice, DropReason> {
        if let Some((address, _)) = client.reserved
            && self.is_free_for(client, address)
        {
            // The administrator vouches for it. A probe would only let a neighbour claim it.
            return Ok(Choice { address, probe: Probe::Done });
        }
        if let Some(own) = self.own(client)
            && self.is_allowed(client, own.address)
            && self.may_keep(client, own)
        {
            let probing = own.state == State::Probing;
            let probe = if probing { Probe::Running(own.until) } else { Probe::Done };
            return Ok(Choice { address: own.address, probe });
        }
        if self.is_port_full(client.port) {
            return self.reuse(client.port, client.subnet);
        }
        let pool = self.leases.pool(client.subnet);
        let wanted = client.request.requested.filter(|address| pool.is_fresh(*address));
        wanted
            .or_else(|| pool.pick(self.hash(client)))
            .or_else(|| self.leases.oldest_idle(client.subnet))
            .map(|address| Choice { address, probe: Probe::Needed })
            .ok_or(DropReason::PoolFull)
    }

    /// What the client has or had.
    pub(super) fn own(&self, client: &Client<'_>) -> Option<&Binding> {
        self.leases.of_client(client.subnet, &client.key)
    }

    /// Whether the client's own binding is its to go on with. A lease always is; a remembered
    /// address that was charged to another port needs room at this one.
    pub(super) fn may_keep(&self, client: &Client<'_>, own: &Binding) -> bool {
        own.state == State::Bound
            || own.port == client.port
            || client.reserved.is_some()
            || !self.is_port_full(client.port)
    }

    /// The port that a lease is charged to: the client's; but a lease that comes from another port
    /// stays charged there if this one has its share. Two ports could else pass leases on and on.
    pub(super) fn charged_port(&self, client: &Client<'_>, address: Ipv4Addr) -> PortId {
        let own = self.own(client).filter(|own| own.address == address);
        let full = self.leases.footprint(client.port).addresses >= self.config.limits.addresses;
        match own {
            Some(own) if own.port != client.port && full => own.port,
            _ => client.port,
        }
    }

    /// Whether clients of this port must do with what the port occupies.
    pub(super) fn is_port_full(&self, port: PortId) -> bool {
        let footprint = self.leases.footprint(port);
        let limits = self.config.limits;
        footprint.addresses >= limits.addresses || footprint.offers >= limits.offers
    }

    /// An address that the port occupies without need. An offer's probe serves the next client
    /// too, so a flood of requests makes no flood of probes.
    fn reuse(&self, port: PortId, subnet: usize) -> Result<Choice, DropReason> {
        let offers_full = self.leases.footprint(port).offers >= self.config.limits.offers;
        let idle = self.leases.oldest_idle_of(port, subnet).filter(|_| !offers_full);
        if let Some(address) = idle {
            return Ok(Choice { address, probe: Probe::Needed });
        }
        let address = self.leases.oldest_offer_of(port, subnet).ok_or(DropReason::PortFull)?;
        let probe = match self.leases.get(address) {
            Some(binding) if binding.state == State::Probing => Probe::Running(binding.until),
            _ => Probe::Done,
        };
        Ok(Choice { address, probe })
    }

    /// Whether the configuration lets the client have the address: its reserved one alone where
    /// that is free; else any of the pool.
    pub(super) fn is_allowed(&self, client: &Client<'_>, address: Ipv4Addr) -> bool {
        match client.reserved {
            Some((reserved, _)) if reserved == address => true,
            Some((reserved, _)) if self.is_free_for(client, reserved) => false,
            _ => self.leases.pool(client.subnet).contains(address),
        }
    }

    /// Whether nobody else has the address.
    pub(super) fn is_free_for(&self, client: &Client<'_>, address: Ipv4Addr) -> bool {
        let Some(binding) = self.leases.get(address) else { return true };
        let own = binding.key.as_ref() == Some(&client.key);
        // The same machine, known by another key before the address was reserved for it.
        let same_machine = client.reserved.is_some_and(|(reserved, _)| reserved == address)
            && binding.mac == client.request.mac;
        match binding.state {
            State::Idle => true,
            State::Quarantined => false,
            State::Probing | State::Offered | State::Bound => own || same_machine,
        }
    }

    /// Whether the client may have an address that nothing is known of, at its port's expense.
    pub(super) fn may_adopt(&mut self, client: &Client<'_>, address: Ipv4Addr) -> bool {
        if !self.is_allowed(client, address) || !self.is_free_for(client, address) {
            return false;
        }
        let (port, subnet) = (client.port, client.subnet);
        let full = self.leases.footprint(port).addresses >= self.config.limits.addresses;
        if !full || client.reserved.is_some() {
            return true;
        }
        let spare = self.leases.oldest_idle_of(port, subnet);
        match spare.or_else(|| self.leases.oldest_offer_of(port, subnet)) {
            Some(spare) => self.leases.take(spare).is_some(),
            None => false,
        }
    }
}
