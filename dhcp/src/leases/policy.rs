//! Which address a client gets (RFC 2131, 4.3.1; RFC 8415, 13.1), whether it may have a certain
//! one, and which port is charged for it: the same for both versions of IP.

use std::hash::BuildHasher;

use trama_frame::MacAddr;

use super::{Address, Binding, ClientKey, LeaseTable, State};
use crate::name::HostName;
use crate::store::LeaseRecord;
use crate::{DropReason, PortId, Time};

/// A client and what it claims.
#[derive(Clone, Debug)]
pub(crate) struct Claim<A> {
    /// The port that it asks from.
    pub port: PortId,
    /// The subnet's place in the configuration.
    pub subnet: usize,
    /// Identifies the client.
    pub key: ClientKey,
    /// Its hardware address.
    pub mac: MacAddr,
    /// The address that is reserved for it.
    pub reserved: Option<A>,
    /// The address that it asks for.
    pub wanted: Option<A>,
}

/// An address for an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Choice<A> {
    pub address: A,
    pub probe: Probe,
}

/// Whether the address needs a probe for another user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probe {
    /// Not probed yet.
    Needed,
    /// A probe is under way until then.
    Running(Time),
    /// None needed: the address is the client's own or reserved, or was just probed.
    Done,
}

impl<A: Address> LeaseTable<A> {
    /// In this order: the reserved address, the one that the client has or had, the one that it
    /// asks for, the one that its hash picks, the one that has been idle for longest.
    // spec: rfc2131 address-order
    pub(crate) fn choose(&self, claim: &Claim<A>) -> Result<Choice<A>, DropReason> {
        if let Some(address) = self.free_reserved(claim) {
            // Configured by the administrator. A probe would only let a neighbour claim it.
            return Ok(Choice { address, probe: Probe::Done });
        }
        if let Some(own) = self.own(claim)
            && self.is_allowed(claim, own.address)
            && self.may_keep(claim, own)
        {
            let probing = own.state == State::Probing;
            let probe = if probing { Probe::Running(own.until) } else { Probe::Done };
            return Ok(Choice { address: own.address, probe });
        }
        if self.is_port_full(claim.port) {
            return self.reuse(claim.port, claim.subnet);
        }
        let pool = self.pool(claim.subnet);
        let wanted = claim.wanted.filter(|address| pool.is_fresh(*address));
        wanted
            .or_else(|| pool.pick(self.hasher.hash_one(&claim.key)))
            .or_else(|| self.oldest_idle(claim.subnet))
            .map(|address| Choice { address, probe: Probe::Needed })
            .ok_or(DropReason::PoolFull)
    }

    /// What the client has or had.
    pub(crate) fn own(&self, claim: &Claim<A>) -> Option<&Binding<A>> {
        self.of_client(claim.subnet, &claim.key)
    }

    /// A lease stays in force until the client requests the address offered now. That is its own
    /// address or the one reserved for it, and neither has to be held for the offer.
    pub(crate) fn has_lease(&self, claim: &Claim<A>) -> bool {
        self.own(claim).is_some_and(|binding| binding.state == State::Bound)
    }

    /// The client's reserved address, unless another client still has it.
    pub(crate) fn free_reserved(&self, claim: &Claim<A>) -> Option<A> {
        claim.reserved.filter(|address| self.is_free_for(claim, *address))
    }

    /// Whether the client may continue with its own binding. A lease always may; a remembered
    /// address that was charged to another port needs room at this one.
    pub(crate) fn may_keep(&self, claim: &Claim<A>, own: &Binding<A>) -> bool {
        own.state == State::Bound
            || own.port == claim.port
            || claim.reserved.is_some()
            || !self.is_port_full(claim.port)
    }

    /// Whether clients of this port must reuse addresses that the port occupies.
    fn is_port_full(&self, port: PortId) -> bool {
        let footprint = self.footprint(port);
        footprint.addresses >= self.limits.addresses || footprint.offers >= self.limits.offers
    }

    /// Whether a port occupies as many addresses as it may.
    pub(crate) fn has_its_share(&self, port: PortId) -> bool {
        self.footprint(port).addresses >= self.limits.addresses
    }

    /// An idle or offered address of the port. The probe of an offer serves the next client too, so
    /// a flood of requests makes no flood of probes.
    fn reuse(&self, port: PortId, subnet: usize) -> Result<Choice<A>, DropReason> {
        let offers_full = self.footprint(port).offers >= self.limits.offers;
        let idle = self.oldest_idle_of(port, subnet).filter(|_| !offers_full);
        if let Some(address) = idle {
            return Ok(Choice { address, probe: Probe::Needed });
        }
        let address = self.oldest_offer_of(port, subnet).ok_or(DropReason::PortFull)?;
        let probe = match self.get(address) {
            Some(binding) if binding.state == State::Probing => Probe::Running(binding.until),
            _ => Probe::Done,
        };
        Ok(Choice { address, probe })
    }

    /// Whether the configuration lets the client have the address: its reserved one alone where
    /// that is free; else any of the pool.
    pub(crate) fn is_allowed(&self, claim: &Claim<A>, address: A) -> bool {
        match claim.reserved {
            Some(reserved) if reserved == address => true,
            Some(_) if self.free_reserved(claim).is_some() => false,
            _ => self.pool(claim.subnet).contains(address),
        }
    }

    /// Whether no other client has the address.
    pub(crate) fn is_free_for(&self, claim: &Claim<A>, address: A) -> bool {
        let Some(binding) = self.get(address) else { return true };
        let own = binding.key.as_ref() == Some(&claim.key);
        match binding.state {
            State::Idle => true,
            State::Quarantined => false,
            // spec: rfc2131 offer-kept
            State::Probing | State::Offered | State::Bound => {
                own || is_same_machine(claim, binding)
            }
        }
    }

    /// Whether the client may have a fresh address, charged to its port.
    pub(crate) fn may_adopt(&mut self, claim: &Claim<A>, address: A) -> bool {
        if !self.is_allowed(claim, address) || !self.is_free_for(claim, address) {
            return false;
        }
        let (port, subnet) = (claim.port, claim.subnet);
        if !self.has_its_share(port) || claim.reserved.is_some() {
            return true;
        }
        let spare = self.oldest_idle_of(port, subnet);
        match spare.or_else(|| self.oldest_offer_of(port, subnet)) {
            Some(spare) => self.take(spare).is_some(),
            None => false,
        }
    }

    /// Keeps an address for a client that has no lease on it.
    pub(crate) fn hold(
        &mut self,
        claim: &Claim<A>,
        address: A,
        (state, until): (State, Time),
        pending: Option<Box<A::Pending>>,
    ) {
        let key = Some(claim.key.clone());
        let before = self.get(address).filter(|binding| binding.key == key);
        let known = before.is_some_and(|binding| binding.known);
        let name = before.filter(|_| known).and_then(|binding| binding.name.clone());
        let Claim { subnet, mac, port, .. } = *claim;
        self.put(Binding { address, subnet, state, until, key, mac, port, name, known, pending });
    }

    /// Leases an address; returns the lease for the store, and whether the client had it before.
    pub(crate) fn lease(
        &mut self,
        claim: &Claim<A>,
        address: A,
        until: Time,
        name: Option<HostName>,
    ) -> (LeaseRecord<A>, bool) {
        let own = self.own(claim).filter(|own| own.address == address);
        let renewed = own.is_some_and(|own| own.state == State::Bound);
        let port = self.charged_port(claim, own);
        let (key, mac) = (claim.key.clone(), claim.mac);
        let record = LeaseRecord { address, until, port, mac, key, name };
        self.restore(claim.subnet, record.clone(), State::Bound);
        (record, renewed)
    }

    /// The port that a lease is charged to: the client's. A lease that comes from another port
    /// stays charged there if this one is at its limit; otherwise two ports could pass leases on
    /// without end.
    fn charged_port(&self, claim: &Claim<A>, own: Option<&Binding<A>>) -> PortId {
        match own {
            Some(own) if own.port != claim.port && self.has_its_share(claim.port) => own.port,
            _ => claim.port,
        }
    }

    /// Adds a stored lease, in force or remembered.
    pub(crate) fn restore(&mut self, subnet: usize, lease: LeaseRecord<A>, state: State) {
        let LeaseRecord { address, until, port, mac, key, name } = lease;
        let (key, known, pending) = (Some(key), true, None);
        self.put(Binding { address, subnet, state, until, key, mac, port, name, known, pending });
    }

    /// Withholds an address from all clients until then.
    pub(crate) fn quarantine(&mut self, binding: Binding<A>, until: Time) {
        let (state, key, name, pending) = (State::Quarantined, None, None, None);
        self.put(Binding { state, until, key, name, known: false, pending, ..binding });
    }

    /// Remembers an address for the client that had it until now.
    pub(crate) fn retire(&mut self, binding: Binding<A>, now: Time) {
        self.put(Binding { state: State::Idle, until: now, pending: None, ..binding });
    }

    /// Takes out the binding of an address that a client gives up. Only the holder can, from the
    /// port that the address is charged to.
    pub(crate) fn give_up(
        &mut self,
        claim: &Claim<A>,
        address: A,
    ) -> Result<Binding<A>, DropReason> {
        let held = self.own(claim).is_some_and(|own| {
            let in_use = matches!(own.state, State::Offered | State::Bound);
            own.address == address && own.port == claim.port && in_use
        });
        let binding = if held { self.take(address) } else { None };
        binding.ok_or(DropReason::NotHolder)
    }

    /// Takes out the binding that another station's answer to a probe ends. Answers from a port
    /// count up to its limit of addresses; an answer of the client itself is no conflict.
    pub(crate) fn contested(
        &mut self,
        address: A,
        user: MacAddr,
        port: PortId,
    ) -> Option<Binding<A>> {
        let binding = self.get(address)?;
        let is_news = binding.state == State::Probing && binding.mac != user;
        if !is_news || self.has_its_share(port) {
            return None;
        }
        self.take(address)
    }

    /// Every lease in force or remembered, as the lease store keeps it.
    pub(crate) fn records(&self, now: Time) -> impl Iterator<Item = LeaseRecord<A>> + '_ {
        let kept = |binding: &&Binding<A>| match binding.state {
            State::Bound | State::Idle => true,
            State::Offered => binding.known,
            State::Probing | State::Quarantined => false,
        };
        self.iter().filter(kept).filter_map(move |binding| {
            let until = if binding.state == State::Offered { now } else { binding.until };
            binding.record(until)
        })
    }
}

impl<A: Address> Binding<A> {
    /// The record of a lease that ends or ended at this time; `None` for an address without a
    /// client.
    pub(crate) fn record(&self, until: Time) -> Option<LeaseRecord<A>> {
        let Binding { address, port, mac, .. } = *self;
        let (key, name) = (self.key.clone()?, self.name.clone());
        Some(LeaseRecord { address, until, port, mac, key, name })
    }
}

/// Whether the machine that has the address is the client under another key: its reservation is
/// new, or the way clients are identified has changed.
fn is_same_machine<A: Address>(claim: &Claim<A>, binding: &Binding<A>) -> bool {
    let is_reserved = claim.reserved == Some(binding.address);
    let plain = ClientKey::from_mac(binding.mac);
    let by_mac = claim.key == plain || binding.key.as_ref() == Some(&plain);
    binding.mac == claim.mac && (is_reserved || (by_mac && binding.port == claim.port))
}
