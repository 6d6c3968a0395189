//! DHCPv6 at the gateway.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use trama_dhcp::dhcp6::{KINDS, Outcome6, Received6, Reply6, SERVER_PORT, Server6, kind_name};
use trama_dhcp::name::DomainName;
use trama_dhcp::store::Record;
use trama_dhcp::{DropReason as Refusal, PortId, State, Time};
use trama_frame::MacAddr;

use super::probes::Probes;
use super::{conflict, row, seen};
use crate::config::Config;
use crate::drop_reason::DropReason;
use crate::io::Output;
use crate::packet::{neighbour, udp_frame, udp_overhead};
use crate::report::DhcpStatus;
use crate::report::LeaseRow;

/// The message type that asks for parameters alone (RFC 8415, 7.3).
const INFORMATION_REQUEST: u8 = 11;

/// A datagram to the server's port, and who sent it.
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
    /// The wall clock's reading when the engine's time was zero; `None` until the lease store is
    /// open. Without it parameters are told, and no address is leased.
    epoch: Option<Time>,
    outcome: Outcome6,
    probes: Probes<Ipv6Addr>,
    warnings: Vec<String>,
}

impl Leases6 {
    /// A server whose lease store is not open; `None` if the settings have none.
    pub fn new(config: &Config) -> Option<Leases6> {
        Some(Leases6 {
            server: Server6::new(config.dhcp6_server()?).ok()?,
            epoch: None,
            outcome: Outcome6::default(),
            probes: Probes::default(),
            warnings: Vec::new(),
        })
    }

    /// Begins to lease addresses, with the leases of `records`.
    pub fn open(&mut self, now: Duration, epoch: Time, records: &[Record]) {
        self.epoch = Some(epoch);
        for record in records {
            self.server.restore(epoch + now, record.clone());
        }
    }

    /// Changes the settings and keeps the leases. False: there is nothing to serve any more.
    pub fn reconfigure(&mut self, config: &Config) -> bool {
        let wanted = config.dhcp6_server();
        wanted.is_some_and(|wanted| self.server.reconfigure(Time(0), wanted).is_ok())
    }

    /// The domains that clients search from now on.
    pub fn set_search(&mut self, search: Vec<DomainName>) {
        self.server.set_search(search);
    }

    fn time(&self, now: Duration) -> Time {
        self.epoch.unwrap_or(Time(0)) + now
    }

    /// Takes a client's datagram.
    pub fn handle(
        &mut self,
        now: Duration,
        config: &Config,
        request: &Request6<'_>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let Request6 { port, from, source, payload } = *request;
        let is_stateless = payload.first() == Some(&INFORMATION_REQUEST);
        if self.epoch.is_none() && self.server.pool_size() > 0 && !is_stateless {
            return Err(DropReason::ClosedPort);
        }
        let received = Received6 { port: PortId(port), station: from, source, payload };
        let handled = self.server.handle(self.time(now), &received, &mut self.outcome);
        self.carry_out(now, config, out);
        handled.map_err(|_| DropReason::DhcpRefused)
    }

    /// A station said that an address is its own.
    pub fn seen(
        &mut self,
        now: Duration,
        config: &Config,
        (address, user): (Ipv6Addr, MacAddr),
        port: u64,
        out: &mut Output,
    ) {
        self.server.in_use(self.time(now), address, user, PortId(port), &mut self.outcome);
        self.carry_out(now, config, out);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration, config: &Config, out: &mut Output) {
        self.server.poll(self.time(now), &mut self.outcome);
        let server = &self.server;
        let waits = |address| {
            server.binding(address).is_some_and(|binding| binding.state == State::Probing)
        };
        let due = self.probes.due(now, waits);
        out.frames.extend(due.into_iter().filter_map(|it| solicit(config, it)));
        self.carry_out(now, config, out);
    }

    /// When [`Leases6::poll`] has something to do next.
    pub fn deadline(&self) -> Option<Duration> {
        let epoch = self.time(Duration::ZERO);
        let server = self.server.next_deadline().map(|due| due.saturating_sub(epoch));
        server.into_iter().chain(self.probes.deadline()).min()
    }

    fn carry_out(&mut self, now: Duration, config: &Config, out: &mut Output) {
        let outcome = std::mem::take(&mut self.outcome);
        for address in outcome.probes {
            out.frames.extend(solicit(config, address));
            self.probes.begin(now, address);
        }
        for it in outcome.conflicts {
            self.warnings.push(conflict(it.address.into(), it.user));
        }
        out.frames.extend(outcome.replies.iter().filter_map(|it| reply(config, it)));
        out.records.extend_from_slice(&outcome.records);
        out.confirmed.extend(outcome.confirmed.iter().filter_map(|it| reply(config, it)));
    }

    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// All leases, as the store keeps them.
    pub fn snapshot(&self) -> Vec<u8> {
        self.server.snapshot()
    }

    pub fn in_force(&self) -> usize {
        self.server.bound()
    }

    pub fn status(&self) -> DhcpStatus {
        let kinds = || (0..KINDS as u8).filter_map(|kind| Some((kind, kind_name(kind)?)));
        let dropped = |it: &Refusal| (it.name().to_owned(), self.server.dropped(*it));
        DhcpStatus {
            leases: self.in_force(),
            pool: self.server.pool_size(),
            received: seen(kinds().map(|(it, name)| (name.into(), self.server.counted(it).0))),
            sent: seen(kinds().map(|(it, name)| (name.into(), self.server.counted(it).1))),
            refused: seen(Refusal::ALL.iter().map(dropped)),
        }
    }

    /// The table, in no order.
    pub fn rows(&self, now: Duration) -> impl Iterator<Item = LeaseRow> {
        let now = self.time(now);
        self.server.bindings().map(move |binding| row(binding, binding.address.into(), now))
    }
}

/// The question whether anybody has an address. It comes from our own: the owner answers us alone.
fn solicit(config: &Config, address: Ipv6Addr) -> Option<Vec<u8>> {
    neighbour::solicitation(config, IpAddr::V6(address))
}

/// The frame of an answer; none if it does not fit. Asked as one of a group, we answer as
/// ourselves.
fn reply(config: &Config, reply: &Reply6) -> Option<Vec<u8>> {
    let from = IpAddr::V6(config.link_local());
    if udp_overhead(from) + reply.payload.len() > usize::from(config.mtu) {
        return None;
    }
    let (address, port) = reply.to;
    let macs = (config.mac(), reply.station);
    udp_frame(macs, (from, SERVER_PORT), (address.into(), port), &reply.payload)
}
