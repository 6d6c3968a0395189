//! The DHCPv6 server at the gateway.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use trama_dhcp::dhcp6::{KINDS, Outcome6, Received6, Reply6, SERVER_PORT, Server6, kind_name};
use trama_dhcp::name::DomainName;
use trama_dhcp::store::Record;
use trama_dhcp::{DropReason as Refusal, PortId, State, Time};
use trama_frame::MacAddr;
use trama_nat::packet::{neighbour, udp_frame, udp_overhead};

use super::probes::Probes;
use super::{conflict_warning, lease_row, nonzero, told};
use crate::config::Config;
use crate::drop_reason::{DropReason, ServiceDrop};
use crate::io::Output;
use crate::report::DhcpStatus;
use crate::report::LeaseRow;
use crate::shared::Shared;

/// The message type of a stateless client (RFC 8415, 7.3).
const INFORMATION_REQUEST: u8 = 11;

/// A client's datagram to the server's port.
pub(crate) struct Request6<'a> {
    pub port: u64,
    pub from: MacAddr,
    /// Address and UDP port.
    pub source: (Ipv6Addr, u16),
    pub payload: &'a [u8],
}

/// The DHCPv6 server.
pub(crate) struct Leases6 {
    server: Server6,
    /// The wall clock at the engine's time zero; `None` until the lease store is open. Until then
    /// only parameters are served, and no address is leased.
    epoch: Option<Time>,
    outcome: Outcome6,
    probes: Probes<Ipv6Addr>,
    warnings: Vec<String>,
}

impl Leases6 {
    /// A server whose lease store is not open; `None` if the settings have none.
    pub(crate) fn new(config: &Config) -> Option<Leases6> {
        Some(Leases6 {
            server: Server6::new(config.dhcp6_server()?).ok()?,
            epoch: None,
            outcome: Outcome6::default(),
            probes: Probes::default(),
            warnings: Vec::new(),
        })
    }

    /// Starts to lease addresses, with the leases of `records`.
    pub(crate) fn open(&mut self, now: Duration, epoch: Time, records: &[Record]) {
        self.epoch = Some(epoch);
        for record in records {
            self.server.restore(epoch + now, record.clone());
        }
    }

    /// Changes the settings and keeps the leases. Returns false if there is nothing left to serve.
    pub(crate) fn reconfigure(&mut self, config: &Config) -> bool {
        let wanted = config.dhcp6_server();
        wanted.is_some_and(|wanted| self.server.reconfigure(Time(0), wanted).is_ok())
    }

    /// Changes which addresses are leased to no client; exchanges that are under way go on.
    pub(crate) fn set_taken(&mut self, taken: &[IpAddr]) {
        self.server.set_taken(taken.to_vec());
    }

    /// Sets the search domains of clients.
    pub(crate) fn set_search(&mut self, search: Vec<DomainName>) {
        self.server.set_search(search);
    }

    fn time(&self, now: Duration) -> Time {
        self.epoch.unwrap_or(Time(0)) + now
    }

    /// Handles a client's datagram.
    pub(crate) fn handle(
        &mut self,
        now: Duration,
        shared: &mut Shared,
        request: &Request6<'_>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let Request6 { port, from, source, payload } = *request;
        let is_stateless = payload.first() == Some(&INFORMATION_REQUEST);
        if self.epoch.is_none() && self.server.pool_size() > 0 && !is_stateless {
            return Err(ServiceDrop::ClosedPort.into());
        }
        let received = Received6 { port: PortId(port), station: from, source, payload };
        let handled = self.server.handle(self.time(now), &received, &mut self.outcome);
        self.apply_outcome(now, shared, out);
        handled.map_err(|_| ServiceDrop::DhcpRefused.into())
    }

    /// A station announced that it has an address.
    pub(crate) fn address_seen(
        &mut self,
        now: Duration,
        shared: &mut Shared,
        (address, user): (Ipv6Addr, MacAddr),
        port: u64,
        out: &mut Output,
    ) {
        self.server.in_use(self.time(now), address, user, PortId(port), &mut self.outcome);
        self.apply_outcome(now, shared, out);
    }

    /// Handles expired timers.
    pub(crate) fn poll(&mut self, now: Duration, shared: &mut Shared, out: &mut Output) {
        self.server.poll(self.time(now), &mut self.outcome);
        let server = &self.server;
        let waits = |address| {
            server.binding(address).is_some_and(|binding| binding.state == State::Probing)
        };
        let due = self.probes.take_due(now, waits);
        out.frames.extend(due.into_iter().filter_map(|it| solicit(&shared.config, it)));
        self.apply_outcome(now, shared, out);
    }

    /// When [`Leases6::poll`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let epoch = self.time(Duration::ZERO);
        let server = self.server.next_deadline().map(|due| due.saturating_sub(epoch));
        server.into_iter().chain(self.probes.deadline()).min()
    }

    fn apply_outcome(&mut self, now: Duration, shared: &mut Shared, out: &mut Output) {
        let outcome = std::mem::take(&mut self.outcome);
        for address in outcome.probes {
            out.frames.extend(solicit(&shared.config, address));
            self.probes.start(now, address);
        }
        outcome.events.iter().for_each(|event| told::of6(shared, event));
        for it in outcome.conflicts {
            self.warnings.push(conflict_warning(it.address.into(), it.user));
        }
        out.frames.extend(outcome.replies.iter().filter_map(|it| reply(&shared.config, it)));
        out.records.extend_from_slice(&outcome.records);
        out.confirmed.extend(outcome.confirmed.iter().filter_map(|it| reply(&shared.config, it)));
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
        let kinds = || (0..KINDS as u8).filter_map(|kind| Some((kind, kind_name(kind)?)));
        let dropped = |it: &Refusal| (it.name().to_owned(), self.server.dropped(*it));
        DhcpStatus {
            leases: self.count_bound(),
            pool: self.server.pool_size(),
            received: nonzero(kinds().map(|(it, name)| (name.into(), self.server.counted(it).0))),
            sent: nonzero(kinds().map(|(it, name)| (name.into(), self.server.counted(it).1))),
            refused: nonzero(Refusal::ALL.iter().map(dropped)),
        }
    }

    /// The table, in no order.
    pub(crate) fn rows(&self, now: Duration) -> impl Iterator<Item = LeaseRow> {
        let now = self.time(now);
        self.server.bindings().map(move |binding| lease_row(binding, binding.address.into(), now))
    }
}

/// A neighbour solicitation for an address. Its source is the gateway's address, so that the owner
/// answers the gateway alone.
fn solicit(config: &Config, address: Ipv6Addr) -> Option<Vec<u8>> {
    neighbour::solicitation(&config.station, IpAddr::V6(address))
}

/// The frame of a reply; `None` if it exceeds the MTU. Requests go to a group, and replies come
/// from the gateway's own address.
fn reply(config: &Config, reply: &Reply6) -> Option<Vec<u8>> {
    let from = IpAddr::V6(config.station.link_local());
    if udp_overhead(from) + reply.payload.len() > usize::from(config.station.mtu) {
        return None;
    }
    let (address, port) = reply.to;
    let macs = (config.station.mac(), reply.station);
    udp_frame(macs, (from, SERVER_PORT), (address.into(), port), &reply.payload)
}
