//! DHCPv4, DHCPv6 and router advertisements at the gateway: the state machines of `trama_dhcp`,
//! with frames around their messages.
//!
//! Nothing here touches a disk. The record of a lease goes out as [`Output::records`], the frame
//! with its ACK as [`Output::confirmed`]. The caller sends the frame once the record is durable.

mod advertiser;
mod leases6;
mod probes;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetProtocol};
use trama_dhcp::name::DomainName;
use trama_dhcp::server::{Destination, Event, Outcome, Received, Reply, Server};
use trama_dhcp::store::Record;
use trama_dhcp::wire::{CLIENT_PORT, MessageType, SERVER_PORT};
use trama_dhcp::{Address, Binding, DropReason as Refusal, PortId, State, Time};
use trama_frame::MacAddr;

use crate::config::Config;
use crate::drop_reason::{DropReason, ServiceDrop};
use crate::io::Output;
use crate::report::DhcpStatus;
use crate::report::{LeaseRow, LeaseState};
use crate::shared::Shared;
pub(crate) use advertiser::Advertiser;
pub(crate) use leases6::{Leases6, Request6};
use probes::Probes;
use trama_nat::packet::{ethernet_address, frame, udp_frame, udp_overhead};

/// Relay agents whose MAC address is remembered.
const MAX_RELAYS: usize = 64;

/// A client's datagram to the server's port.
pub(crate) struct Request<'a> {
    pub port: u64,
    pub from: MacAddr,
    pub source: Ipv4Addr,
    /// Whether it was sent to the server's own address.
    pub unicast: bool,
    pub payload: &'a [u8],
}

/// The DHCPv4 server.
pub(crate) struct Leases {
    server: Server,
    /// The wall clock at the engine's time zero.
    epoch: Time,
    outcome: Outcome,
    probes: Probes<Ipv4Addr>,
    /// The MAC addresses of relay agents, and of clients on other links.
    relays: HashMap<Ipv4Addr, MacAddr>,
    warnings: Vec<String>,
}

impl Leases {
    /// A server with the leases of `records`; `None` if the settings have none, or are not
    /// consistent, which the daemon has checked.
    pub(crate) fn open(
        now: Duration,
        epoch: Time,
        config: &Config,
        records: &[Record],
    ) -> Option<Leases> {
        let mut server = Server::new(config.dhcp_server()?).ok()?;
        records.iter().for_each(|record| server.restore(epoch + now, record.clone()));
        Some(Leases {
            server,
            epoch,
            outcome: Outcome::default(),
            probes: Probes::default(),
            relays: HashMap::new(),
            warnings: Vec::new(),
        })
    }

    /// Changes the settings and keeps the leases. Returns false if there is nothing left to serve.
    pub(crate) fn reconfigure(&mut self, config: &Config) -> bool {
        let wanted = config.dhcp_server();
        // The server's own time is later than this one, and it uses the later one.
        wanted.is_some_and(|wanted| self.server.reconfigure(Time(0), wanted).is_ok())
    }

    /// Changes which addresses are leased to no client; exchanges that are under way go on.
    pub(crate) fn set_taken(&mut self, taken: &[IpAddr]) {
        self.server.set_taken(taken.to_vec());
    }

    /// Sets the search domains of clients.
    pub(crate) fn set_search(&mut self, search: &[DomainName]) {
        self.server.set_search(search);
    }

    /// Handles a client's datagram.
    pub(crate) fn handle(
        &mut self,
        now: Duration,
        shared: &mut Shared,
        request: &Request<'_>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if !request.source.is_unspecified() {
            if self.relays.len() >= MAX_RELAYS {
                self.relays.clear();
            }
            self.relays.insert(request.source, request.from);
        }
        let Request { source, unicast, payload, .. } = *request;
        let (port, station) = (PortId(request.port), Some(request.from));
        let received = Received { port, station, source, unicast, payload };
        let handled = self.server.handle(self.epoch + now, &received, &mut self.outcome);
        self.apply_outcome(now, shared, out);
        handled.map_err(|reason| {
            told::refused(shared, (request.port, request.from), reason);
            ServiceDrop::DhcpRefused.into()
        })
    }

    /// A station announced that it has an address.
    pub(crate) fn address_seen(
        &mut self,
        now: Duration,
        shared: &mut Shared,
        (address, user): (Ipv4Addr, MacAddr),
        port: u64,
        out: &mut Output,
    ) {
        let time = self.epoch + now;
        self.server.in_use(time, address, user, PortId(port), &mut self.outcome);
        self.apply_outcome(now, shared, out);
    }

    /// Handles expired timers.
    pub(crate) fn poll(&mut self, now: Duration, shared: &mut Shared, out: &mut Output) {
        self.server.poll(self.epoch + now, &mut self.outcome);
        let server = &self.server;
        let waits = |address| {
            server.binding(address).is_some_and(|binding| binding.state == State::Probing)
        };
        let due = self.probes.take_due(now, waits);
        out.frames.extend(due.into_iter().map(|address| arp_probe(&shared.config, address)));
        self.apply_outcome(now, shared, out);
    }

    /// When [`Leases::poll`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let server = self.server.next_deadline().map(|due| due.saturating_sub(self.epoch));
        server.into_iter().chain(self.probes.deadline()).min()
    }

    fn apply_outcome(&mut self, now: Duration, shared: &mut Shared, out: &mut Output) {
        let mut outcome = std::mem::take(&mut self.outcome);
        for event in outcome.events.drain(..) {
            told::of(shared, &event);
            match event {
                Event::Probe { address, .. } => {
                    out.frames.push(arp_probe(&shared.config, address));
                    self.probes.start(now, address);
                }
                Event::Conflict { address, user, .. } => {
                    self.warnings.push(conflict_warning(address.into(), user));
                }
                Event::Leased { .. } | Event::Ended { .. } | Event::Refused { .. } => {}
            }
        }
        out.frames
            .extend(outcome.replies.drain(..).filter_map(|it| self.reply(&shared.config, it)));
        out.records.append(&mut outcome.records);
        out.confirmed
            .extend(outcome.confirmed.drain(..).filter_map(|it| self.reply(&shared.config, it)));
        self.outcome = outcome;
    }

    /// The frame of a reply; `None` if it exceeds the MTU, or its station is not known.
    fn reply(&self, config: &Config, reply: Reply) -> Option<Vec<u8>> {
        let station = |address| self.relays.get(&address).copied();
        let (mac, address, port) = match reply.to {
            Destination::Relay(relay) => (station(relay)?, relay, SERVER_PORT),
            Destination::Broadcast => (MacAddr([0xff; 6]), Ipv4Addr::BROADCAST, CLIENT_PORT),
            Destination::Client(address, mac) => (mac, address, CLIENT_PORT),
            Destination::Routed(address) => (station(address)?, address, CLIENT_PORT),
        };
        let from = reply.from.into();
        if udp_overhead(from) + reply.payload.len() > usize::from(config.station.mtu) {
            return None;
        }
        let ends = ((from, SERVER_PORT), (address.into(), port));
        udp_frame((config.station.mac(), mac), ends.0, ends.1, &reply.payload)
    }

    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// All leases, in the format of the store.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        self.server.snapshot()
    }

    pub(crate) fn count_bound(&self) -> usize {
        self.server.bound()
    }

    pub(crate) fn status(&self) -> DhcpStatus {
        let counters = self.server.counters();
        let kinds = || (1..=8).filter_map(MessageType::from_number);
        let name = |kind| format!("{kind:?}").to_lowercase();
        let dropped = |it: &Refusal| (it.name().to_owned(), counters.drops.get(*it));
        DhcpStatus {
            leases: self.count_bound(),
            pool: self.server.pool_size(0),
            received: nonzero(kinds().map(|kind| (name(kind), counters.received(kind)))),
            sent: nonzero(kinds().map(|kind| (name(kind), counters.sent(kind)))),
            refused: nonzero(Refusal::ALL.iter().map(dropped)),
        }
    }

    /// The leased address of a name in the network, with its domain or without.
    pub(crate) fn address_of(&self, config: &Config, name: &str) -> Option<Ipv4Addr> {
        let (host, domain) = name.split_once('.').unwrap_or((name, ""));
        let network = config.dhcp.as_ref()?.domain().map_or("", |domain| domain.as_str());
        let is_local = domain.is_empty() || domain == network;
        self.server.address_of(&host.parse().ok().filter(|_| is_local)?)
    }

    /// The name of the client that has leased an address, with the network's domain.
    pub(crate) fn name_of(&self, config: &Config, address: Ipv4Addr) -> Option<String> {
        let binding = self.server.binding(address).filter(|it| it.state == State::Bound)?;
        let host = binding.name.as_ref()?.as_str();
        match config.dhcp.as_ref()?.domain() {
            Some(domain) => Some(format!("{host}.{}", domain.as_str())),
            None => Some(host.to_owned()),
        }
    }

    /// The table, in no order.
    pub(crate) fn rows(&self, now: Duration) -> impl Iterator<Item = LeaseRow> {
        let now = self.epoch + now;
        self.server.bindings().map(move |binding| lease_row(binding, binding.address.into(), now))
    }
}

/// The counters that are not zero.
fn nonzero(all: impl Iterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    all.filter(|(_, count)| *count > 0).collect()
}

/// The report of a binding.
fn lease_row<A: Address>(binding: &Binding<A>, address: IpAddr, now: Time) -> LeaseRow {
    LeaseRow {
        address,
        state: match binding.state {
            State::Probing | State::Offered => LeaseState::Offered,
            State::Bound => LeaseState::Bound,
            State::Idle => LeaseState::Idle,
            State::Quarantined => LeaseState::Conflict,
        },
        mac: binding.mac.0,
        name: binding.name.as_ref().map(|name| name.as_str().to_owned()),
        port: binding.port.0,
        left: (binding.state != State::Idle).then(|| binding.until.saturating_sub(now).as_secs()),
    }
}

/// The warning about an address in use without a lease.
fn conflict_warning(address: IpAddr, user: MacAddr) -> String {
    format!(
        "{address} is used by {user}, which has no lease: the address is not leased for a while; \
         add a reservation for that machine, or move the range"
    )
}

/// Probes an address without claiming it (RFC 5227, 2.1.1).
fn arp_probe(config: &Config, address: Ipv4Addr) -> Vec<u8> {
    let probe = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: ethernet_address(config.station.mac()),
        source_protocol_addr: Ipv4Addr::UNSPECIFIED,
        target_hardware_addr: ethernet_address(MacAddr([0; 6])),
        target_protocol_addr: address,
    };
    let everyone = MacAddr([0xff; 6]);
    frame(config.station.mac(), everyone, EthernetProtocol::Arp, probe.buffer_len(), |bytes| {
        probe.emit(&mut ArpPacket::new_unchecked(bytes));
    })
}
