//! The server's state, its input and its output.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use trama_frame::MacAddr;

use super::config::{Config6, ConfigError6};
use super::message::{KINDS, Message, code, kind};
use super::solicit::Solicit;
use crate::config::{ClientMatch, Identity};
use crate::leases::policy::Claim;
use crate::leases::pool::Pool;
use crate::leases::{Binding, LeaseTable, State};
use crate::name::{DomainName, HostName};
use crate::server::End;
use crate::store::Record;
use crate::{ClientKey, DropCounters, DropReason, PortId, Time};

/// Longest DUID (RFC 8415, 11.1).
const MAX_DUID: usize = 130;

/// A datagram to the server's port and where it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received6<'a> {
    /// The ingress port.
    pub port: PortId,
    /// The station that sent the frame.
    pub station: MacAddr,
    /// Source address and UDP port.
    pub source: (Ipv6Addr, u16),
    /// Payload of the datagram.
    pub payload: &'a [u8],
}

/// An answer, to be sent from the server's UDP port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply6 {
    /// Destination address and UDP port.
    pub to: (Ipv6Addr, u16),
    /// The station behind the address.
    pub station: MacAddr,
    /// The port that the message came from.
    pub port: PortId,
    /// Payload of the datagram.
    pub payload: Vec<u8>,
}

/// A host without a lease uses an address of the ranges; the address goes into quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict6 {
    /// The address.
    pub address: Ipv6Addr,
    /// The hardware address of that host.
    pub user: MacAddr,
}

/// What happened to a lease, or to the wish for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event6 {
    /// It began; it is in force once its record is durable.
    Leased {
        /// The address.
        address: Ipv6Addr,
        /// The client's station.
        station: MacAddr,
        /// The client's port.
        port: PortId,
        /// The client's name.
        name: Option<HostName>,
    },
    /// It ended.
    Ended {
        /// The address.
        address: Ipv6Addr,
        /// The client's station.
        station: MacAddr,
        /// The client's port.
        port: PortId,
        /// How.
        how: End,
    },
    /// There is no address for a client.
    Refused {
        /// The client's station.
        station: MacAddr,
        /// The client's port.
        port: PortId,
        /// Why.
        reason: DropReason,
    },
}

/// Work for the caller after one or more calls.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome6 {
    /// Answers to send at once.
    pub replies: Vec<Reply6>,
    /// Records for the lease store ([`crate::store`]), encoded.
    pub records: Vec<u8>,
    /// Answers to send once `records` are durable.
    pub confirmed: Vec<Reply6>,
    /// Addresses to probe (RFC 4861, 7.2). Report an answer with [`Server6::in_use`]; without one
    /// until the server's deadline the address is free.
    pub probes: Vec<Ipv6Addr>,
    /// Address conflicts found.
    pub conflicts: Vec<Conflict6>,
    /// What happened to leases.
    pub events: Vec<Event6>,
}

/// A DHCPv6 server.
#[derive(Debug)]
pub struct Server6 {
    pub(super) config: Config6,
    /// The server's unique identifier.
    pub(super) duid: Vec<u8>,
    reserved_for: HashMap<ClientMatch, usize>,
    reserved_at: HashSet<Ipv6Addr>,
    pub(super) leases: LeaseTable<Ipv6Addr>,
    pub(super) now: Time,
    pub(super) received: [u64; KINDS],
    pub(super) sent: [u64; KINDS],
    pub(super) drops: DropCounters,
}

/// A message, its sender, and the claim of its first association.
pub(super) struct Asked<'a> {
    pub message: Message<'a>,
    pub from: Received6<'a>,
    pub claim: Claim<Ipv6Addr>,
    pub reservation: Option<usize>,
    /// The addresses that the association names; `None` without an association.
    pub named: Option<Vec<Ipv6Addr>>,
}

impl Server6 {
    /// A server without leases.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(config: Config6) -> Result<Server6, ConfigError6> {
        config.check()?;
        let reserved = config.clients.reservations.iter().filter_map(|it| it.address6);
        let taken = config.clients.taken6();
        let own = config.own.iter().copied();
        let except: Vec<Ipv6Addr> = own.chain(reserved.clone()).chain(taken).collect();
        let pool = Pool::new(&config.ranges, &except);
        let clients = config.clients.reservations.iter().enumerate();
        let clients = clients.filter(|(_, it)| it.address6.is_some());
        Ok(Server6 {
            duid: [&[0, 3, 0, 1], &config.mac.0[..]].concat(),
            reserved_for: clients.map(|(index, it)| (it.client.clone(), index)).collect(),
            reserved_at: reserved.collect(),
            leases: LeaseTable::new(vec![pool], config.clients.limits, config.seed),
            now: Time(0),
            received: [0; KINDS],
            sent: [0; KINDS],
            drops: DropCounters::default(),
            config,
        })
    }

    /// Loads a record of the lease store, as [`crate::server::Server::restore`] does.
    pub fn restore(&mut self, now: Time, record: Record) {
        self.now = self.now.max(now);
        match record {
            Record::Freed6(address) => drop(self.leases.take(address)),
            Record::Lease6(lease) if self.config.contains(lease.address) => {
                let bound = lease.until > self.now;
                let leasable = self.leases.pool(0).contains(lease.address)
                    || self.reserved_at.contains(&lease.address);
                if bound || leasable {
                    let state = if bound { State::Bound } else { State::Idle };
                    self.leases.restore(0, lease, state);
                }
            }
            Record::Lease6(_) | Record::Lease(_) | Record::Freed(_) => {}
        }
    }

    /// Changes the configuration and keeps every lease that lies in the new prefix.
    ///
    /// # Errors
    /// The configuration contradicts itself; the server keeps its current one.
    pub fn reconfigure(&mut self, now: Time, config: Config6) -> Result<(), ConfigError6> {
        let mut next = Server6::new(config)?;
        (next.received, next.sent) = (self.received, self.sent);
        next.drops = self.drops.clone();
        for record in self.leases.records(self.now) {
            next.restore(self.now.max(now), Record::Lease6(record));
        }
        *self = next;
        Ok(())
    }

    /// Changes which addresses are leased to no client, as
    /// [`crate::server::Server::set_taken`] does.
    pub fn set_taken(&mut self, taken: Vec<IpAddr>) {
        let before = self.config.clients.taken6();
        self.config.clients.taken = taken;
        let own = self.config.own.iter().chain(&self.reserved_at).copied().collect();
        self.leases.withhold(0, &before, &self.config.clients.taken6(), &own);
    }

    /// Sets the search domains that clients get from now on.
    pub fn set_search(&mut self, search: Vec<DomainName>) {
        self.config.settings.search = search;
    }

    /// Every lease in force or remembered, encoded for [`crate::store::Journal::compact`].
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in self.leases.records(self.now) {
            Record::Lease6(record).emit(&mut bytes);
        }
        bytes
    }

    /// All addresses that are not fresh, in no order.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding<Ipv6Addr>> {
        self.leases.iter()
    }

    /// Returns the binding of an address; `None` if it is fresh or not leasable.
    pub fn binding(&self, address: Ipv6Addr) -> Option<&Binding<Ipv6Addr>> {
        self.leases.get(address)
    }

    /// How many leases are in force.
    pub fn bound(&self) -> usize {
        self.leases.bound()
    }

    /// Number of addresses in the ranges, without reserved ones.
    pub fn pool_size(&self) -> usize {
        self.leases.pool(0).size()
    }

    /// The configuration.
    pub fn config(&self) -> &Config6 {
        &self.config
    }

    /// Returns how many messages of a type were received and sent; see [`super::kind_name`].
    pub fn counted(&self, kind: u8) -> (u64, u64) {
        let of = |counts: &[u64; KINDS]| counts.get(usize::from(kind)).copied().unwrap_or(0);
        (of(&self.received), of(&self.sent))
    }

    /// How many messages were not answered, or without an address, for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason)
    }

    /// When [`Server6::poll`] has something to do next.
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
        received: &Received6<'_>,
        out: &mut Outcome6,
    ) -> Result<(), DropReason> {
        self.poll(now, out);
        let result = self.ask(*received).and_then(|asked| {
            self.received[usize::from(asked.message.kind)] += 1;
            self.dispatch(&asked, out)
        });
        result.inspect_err(|reason| self.drops.count(*reason))
    }

    /// Advances the time: answers clients whose probe found no other host, ends offers and leases.
    pub fn poll(&mut self, now: Time, out: &mut Outcome6) {
        self.now = self.now.max(now);
        while let Some(binding) =
            self.leases.due(self.now).and_then(|address| self.leases.take(address))
        {
            match binding.state {
                State::Probing => self.probe_ended(&binding, out),
                State::Bound => {
                    out.events.push(ended(&binding, End::Expired));
                    // Remembered since its end, not since this call.
                    let ended = binding.until;
                    self.leases.retire(binding, ended);
                }
                State::Offered if binding.known => self.leases.retire(binding, self.now),
                State::Offered | State::Quarantined | State::Idle => {}
            }
        }
    }

    /// `user` on `port` has answered the probe of an address; see
    /// [`crate::server::Server::in_use`].
    pub fn in_use(
        &mut self,
        now: Time,
        address: Ipv6Addr,
        user: MacAddr,
        port: PortId,
        out: &mut Outcome6,
    ) {
        self.poll(now, out);
        let Some(binding) = self.leases.contested(address, user, port) else { return };
        out.conflicts.push(Conflict6 { address, user });
        let until = self.now + self.config.quarantine;
        let (station, client_port) = (binding.mac, binding.port);
        let pending = binding.pending.clone();
        self.leases.quarantine(Binding { mac: user, port, ..binding }, until);
        let Some(Solicit { source, payload }) = pending.as_deref() else { return };
        let again = Received6 { port: client_port, station, source: *source, payload };
        let result = self.ask(again).and_then(|asked| self.dispatch(&asked, out));
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    /// The probe of an address ended without an answer.
    fn probe_ended(&mut self, binding: &Binding<Ipv6Addr>, out: &mut Outcome6) {
        let Some(Solicit { source, payload }) = binding.pending.as_deref() else { return };
        let Binding { port, mac: station, address, .. } = *binding;
        if let Ok(asked) = self.ask(Received6 { port, station, source: *source, payload }) {
            self.offer(&asked, address, out);
        }
    }

    /// Parses a message and checks that it may be answered (RFC 8415, 16).
    fn ask<'a>(&self, from: Received6<'a>) -> Result<Asked<'a>, DropReason> {
        let message = Message::parse(from.payload)?;
        self.check(&message)?;
        let (identifier, named) = message.association().unzip();
        let duid = message.get(code::CLIENT_ID).unwrap_or_default();
        let identifier = [&identifier.unwrap_or_default()[..], duid].concat();
        let reservation = self.reservation(from.station, duid, &identifier);
        let reserved =
            reservation.and_then(|index| self.config.clients.reservations[index].address6);
        let key = match self.config.clients.identity {
            Identity::Alone => ClientKey::from_id(&[]),
            Identity::Hardware => ClientKey::from_mac(from.station),
            // Copies of one disk image have the same DUID.
            Identity::ClientId => ClientKey::from_id_and_mac(&identifier, from.station),
        };
        let wanted = named.as_ref().and_then(|named| named.first().copied());
        let claim = Claim { port: from.port, subnet: 0, key, mac: from.station, reserved, wanted };
        Ok(Asked { message, from, claim, reservation, named })
    }

    fn reservation(&self, station: MacAddr, duid: &[u8], identifier: &[u8]) -> Option<usize> {
        // A client of both versions sends this by DHCPv4 (RFC 4361, 6.1).
        let both = [&[0xff], identifier].concat();
        let names =
            [ClientMatch::Mac(station), ClientMatch::Id(duid.to_vec()), ClientMatch::Id(both)];
        names.iter().find_map(|name| self.reserved_for.get(name).copied())
    }

    fn check(&self, message: &Message<'_>) -> Result<(), DropReason> {
        let server = message.get(code::SERVER_ID);
        let client = message.get(code::CLIENT_ID);
        if !client.is_none_or(|id| (3..=MAX_DUID).contains(&id.len())) {
            return Err(DropReason::OptionLength);
        }
        if server.is_some_and(|id| id != self.duid) {
            return Err(DropReason::OtherServer);
        }
        let names_server = match message.kind {
            kind::INFORMATION_REQUEST => {
                let stateful = message.associations().next().is_some();
                return if stateful { Err(DropReason::MessageType) } else { Ok(()) };
            }
            kind::SOLICIT | kind::REBIND | kind::CONFIRM => false,
            kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE => true,
            _ => return Err(DropReason::NotARequest),
        };
        if client.is_none() || server.is_some() != names_server {
            return Err(DropReason::MessageType);
        }
        Ok(())
    }

    /// Keeps a SOLICIT until its probe has ended.
    pub(super) fn solicit_of(asked: &Asked<'_>) -> Box<Solicit> {
        let Received6 { source, payload, .. } = asked.from;
        Box::new(Solicit { source, payload: payload.to_vec() })
    }
}

/// The end of a lease.
pub(super) fn ended(binding: &Binding<Ipv6Addr>, how: End) -> Event6 {
    Event6::Ended { address: binding.address, station: binding.mac, port: binding.port, how }
}
