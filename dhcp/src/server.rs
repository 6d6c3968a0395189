//! The DHCPv4 server as a state machine (RFC 2131).
//!
//! **In**: a client's datagram with its ingress port ([`Server::handle`]), the passing of time
//! ([`Server::poll`], due at [`Server::next_deadline`]), and the host's report that an address is
//! in use ([`Server::in_use`]). **Out**: an [`Outcome`], which may collect over several calls:
//!
//! 1. `replies` may be sent at once.
//! 2. `records` are appended to the lease store and made durable, one write and one sync for all
//!    of them; then `confirmed` may be sent. These are the ACKs: a lease that a client knows of
//!    survives a crash. If the write fails, drop `confirmed`; the clients ask again.
//! 3. `events` report what happened. [`Event::Probe`] asks the host to probe an address by ARP;
//!    without an answer until the deadline it is free.
//!
//! An address goes through `Probing` (fresh ones only), `Offered` and `Bound` to `Idle`, in which
//! it is remembered for its client and given to another only when no other address is left.
//!
//! **Fairness.** Every address that is not fresh is charged to a port: the port of the client that
//! leased, was offered or declined it, or of the station that claimed it in answer to a probe. A
//! port at its limit gets its own oldest idle or offered address again instead of a fresh one, and
//! so cannot exhaust the pool for the others.

mod discover;
mod identity;
mod output;
mod release;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use trama_frame::MacAddr;

use crate::config::{ClientMatch, Config, ConfigError};
use crate::leases::pool::Pool;
use crate::leases::{Binding, LeaseTable, State};
use crate::name::{DomainName, HostName};
use crate::store::{LeaseRecord, Record};
use crate::wire::{MessageType, Request};
use crate::{DropReason, PortId, Time};
pub use output::{Counters, Destination, End, Event, Outcome, Received, Reply};

/// A DHCPv4 server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    reserved_for: HashMap<(usize, ClientMatch), usize>,
    reserved_at: HashSet<Ipv4Addr>,
    reserved_names: HashMap<HostName, Ipv4Addr>,
    leases: LeaseTable,
    now: Time,
    counters: Counters,
}

impl Server {
    /// A server without leases.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(config: Config) -> Result<Server, ConfigError> {
        config.check()?;
        let mut reserved_for = HashMap::new();
        let mut reserved_at = HashSet::new();
        let mut reserved_names = HashMap::new();
        for (index, reservation) in config.clients.reservations.iter().enumerate() {
            let Some(address) = reservation.address else { continue };
            if let Some(subnet) = config.subnet_of(address) {
                reserved_for.insert((subnet, identity::canonical(&reservation.client)), index);
            }
            reserved_at.insert(address);
            if let Some(name) = &reservation.name {
                reserved_names.insert(name.clone(), address);
            }
        }
        let pools = config.subnets.iter().map(|subnet| {
            let taken = config.clients.taken4();
            let reserved = reserved_at.iter().copied();
            let except: Vec<Ipv4Addr> =
                subnet.own_addresses().chain(reserved).chain(taken).collect();
            Pool::new(&subnet.settings.ranges, &except)
        });
        let leases = LeaseTable::new(pools.collect(), config.clients.limits, config.seed);
        Ok(Server {
            reserved_for,
            reserved_at,
            reserved_names,
            leases,
            now: Time(0),
            counters: Counters::default(),
            config,
        })
    }

    /// Loads a record of the lease store, oldest first, before the first packet. Forgets leases
    /// outside all subnets, and ended leases of addresses that are no longer leasable.
    pub fn restore(&mut self, now: Time, record: Record) {
        self.now = self.now.max(now);
        match record {
            Record::Freed(address) => drop(self.leases.take(address)),
            Record::Lease(lease) => {
                let Some(subnet) = self.config.subnet_of(lease.address) else { return };
                let bound = lease.until > self.now;
                let leasable = self.leases.pool(subnet).contains(lease.address)
                    || self.reserved_at.contains(&lease.address);
                if !bound && !leasable {
                    return;
                }
                let key = self.key_of_stored(subnet, &lease);
                let state = if bound { State::Bound } else { State::Idle };
                self.leases.restore(subnet, LeaseRecord { key, ..lease }, state);
            }
            // For DHCPv6 ([`crate::dhcp6::Server6`]).
            Record::Lease6(_) | Record::Freed6(_) => {}
        }
    }

    /// Changes the configuration and keeps every lease that lies in a subnet of the new one.
    /// Refuses clients with other leases when they renew. Forgets offers.
    ///
    /// # Errors
    /// The configuration contradicts itself; the server keeps its current one.
    pub fn reconfigure(&mut self, now: Time, config: Config) -> Result<(), ConfigError> {
        let mut next = Server::new(config)?;
        next.counters = self.counters.clone();
        for record in self.leases.records(self.now) {
            next.restore(self.now.max(now), Record::Lease(record));
        }
        *self = next;
        Ok(())
    }

    /// Changes which addresses are leased to no client ([`Clients::taken`]); offers and probes of
    /// others go on.
    ///
    /// [`Clients::taken`]: crate::config::Clients::taken
    pub fn set_taken(&mut self, taken: Vec<IpAddr>) {
        let before = self.config.clients.taken4();
        self.config.clients.taken = taken;
        let now = self.config.clients.taken4();
        for (index, subnet) in self.config.subnets.iter().enumerate() {
            let own = subnet.own_addresses().chain(self.reserved_at.iter().copied()).collect();
            self.leases.withhold(index, &before, &now, &own);
        }
    }

    /// Sets the search domains that clients of all subnets get from now on.
    pub fn set_search(&mut self, search: &[DomainName]) {
        for subnet in &mut self.config.subnets {
            subnet.settings.search = search.to_vec();
        }
    }

    /// Every lease in force or remembered, as the lease store keeps it, encoded: what
    /// [`crate::store::Journal::compact`] writes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in self.leases.records(self.now) {
            Record::Lease(record).emit(&mut bytes);
        }
        bytes
    }

    /// All addresses that are not fresh, in no order.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.leases.iter()
    }

    /// Returns the binding of an address; `None` if it is fresh or not leasable.
    pub fn binding(&self, address: Ipv4Addr) -> Option<&Binding> {
        self.leases.get(address)
    }

    /// How many leases are in force.
    pub fn bound(&self) -> usize {
        self.leases.bound()
    }

    /// Number of addresses in the ranges of a subnet, without reserved ones.
    pub fn pool_size(&self, subnet: usize) -> usize {
        self.leases.pool(subnet).size()
    }

    /// The leased address of the client with this name.
    pub fn address_of(&self, name: &HostName) -> Option<Ipv4Addr> {
        self.leases.address_of(name)
    }

    /// Counts of messages received, sent and dropped.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// When [`Server::poll`] has something to do next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.leases.next_deadline()
    }

    /// Answers the payload of a UDP datagram to the server's port.
    ///
    /// # Errors
    /// The reason why it is not answered; it is counted as well.
    pub fn handle(
        &mut self,
        now: Time,
        received: &Received<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        self.poll(now, out);
        let result = self.dispatch(received, out);
        if let Err(reason) = result {
            self.counters.drops.count(reason);
        }
        result
    }

    fn dispatch(&mut self, received: &Received<'_>, out: &mut Outcome) -> Result<(), DropReason> {
        let request = Request::parse(received.payload, received.station)?;
        self.counters.count_received(request.kind);
        let client = self.identify(&request, received)?;
        match request.kind {
            MessageType::Discover => self.discover(&client, out),
            MessageType::Request => self.request(&client, out),
            MessageType::Decline => self.decline(&client, out),
            MessageType::Release => self.release(&client, out),
            MessageType::Inform => self.inform(&client, received.source, out),
            MessageType::Offer | MessageType::Ack | MessageType::Nak => {
                Err(DropReason::NotARequest)
            }
        }
    }

    /// Advances the time: sends offers whose probe found no other host, ends offers and leases.
    pub fn poll(&mut self, now: Time, out: &mut Outcome) {
        self.now = self.now.max(now);
        while let Some(mut binding) =
            self.leases.due(self.now).and_then(|address| self.leases.take(address))
        {
            match binding.state {
                State::Probing => self.probe_ended(binding, out),
                // spec: rfc2131 offer-ends
                State::Offered if binding.known => self.leases.retire(binding, self.now),
                State::Bound => {
                    out.events.push(Event::Ended {
                        address: binding.address,
                        mac: binding.mac,
                        port: binding.port,
                        how: End::Expired,
                    });
                    binding.state = State::Idle;
                    self.leases.put(binding);
                }
                State::Offered | State::Quarantined | State::Idle => {}
            }
        }
    }

    /// `user` on `port` has answered the probe of an address. The client gets another address,
    /// unless the client itself answered or `port` claims more addresses than a port may have.
    pub fn in_use(
        &mut self,
        now: Time,
        address: Ipv4Addr,
        user: MacAddr,
        port: PortId,
        out: &mut Outcome,
    ) {
        self.poll(now, out);
        let Some(binding) = self.leases.contested(address, user, port) else { return };
        let client_port = binding.port;
        out.events.push(Event::Conflict { address, user, port });
        let pending = binding.pending.clone();
        let until = self.now + self.config.quarantine;
        self.leases.quarantine(Binding { mac: user, port, ..binding }, until);
        if let Some(request) = pending {
            let result = self
                .identify_from(&request, client_port, false)
                .and_then(|client| self.discover(&client, out));
            if let Err(reason) = result {
                self.counters.drops.count(reason);
            }
        }
    }
}
