//! The gateway's engine: frames in, frames and requests out.
//!
//! 1. A frame for another station, or a malformed one, is dropped.
//! 2. ARP and neighbour discovery are answered for the gateway's addresses ([`arp_ndp`]).
//! 3. IP packets for the gateway are checked and passed to ICMP and the UDP services ([`ip`]).
//! 4. DHCP configures guests (`dhcp`).
//!
//! The engine keeps no neighbour cache: an answer goes to the station that asked. A frame is
//! answered with at most one frame, except for a TFTP window and a fragmented answer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::IpProtocol;
use trama_dhcp::Time;
use trama_dhcp::dhcp6;
use trama_dhcp::name::DomainName;
use trama_dhcp::store::Record;
use trama_dhcp::wire::SERVER_PORT;
use trama_frame::{MacAddr, VnetHeader};
use trama_nat::packet::inbound::Inbound;
use trama_nat::packet::outbound::fragments;
use trama_nat::packet::received::{self, Frame, Local};
use trama_nat::packet::{udp_frame, udp_overhead};
use trama_nat::{Client, FlowEvents, PortMark, Random, Service};

use crate::config::{Config, Dhcp};
use crate::dhcp::{Advertiser, Leases, Leases6, Request, Request6};
use crate::dns;
use crate::dns::answered::AnsweredNames;
use crate::dns::forwarder::{Forwarder, Refusal};
use crate::drop_reason::{Counters, DropReason, NatDrop, ServiceDrop};
use crate::event::Events;
use crate::io::{Output, Replies};
use crate::report::LeaseRow;
use crate::report::Status;
use crate::shared::Shared;
use crate::{arp_ndp, ip, tftp};

/// The engine of a gateway.
pub struct Gateway {
    pub(crate) shared: Shared,
    dns: Forwarder,
    /// By which names guests know addresses.
    answered: AnsweredNames,
    tftp: tftp::Server,
    leases: Option<Leases>,
    leases6: Option<Leases6>,
    /// The wall clock at time zero; `None` until the lease store is open.
    epoch: Option<Time>,
    /// The search domains of the host.
    host_search: Vec<DomainName>,
    advertiser: Option<Advertiser>,
    /// The settings changed since the advertiser was configured.
    advertiser_is_stale: bool,
    warnings: Vec<String>,
}

impl Gateway {
    /// A gateway with these settings.
    pub fn new(config: Config, random: Random) -> Gateway {
        let (dns, leases6) = (Forwarder::new(&config), Leases6::new(&config));
        let (counters, events) = (Counters::default(), Events::default());
        let flow_events = FlowEvents::default();
        let shared = Shared { config, counters, random, events, flow_events };
        let mut gateway = Gateway {
            shared,
            dns,
            answered: AnsweredNames::default(),
            tftp: tftp::Server::default(),
            leases: None,
            leases6,
            epoch: None,
            host_search: Vec::new(),
            advertiser: None,
            advertiser_is_stale: true,
            warnings: Vec::new(),
        };
        gateway.open_tftp_root();
        gateway.follow_events();
        gateway
    }

    fn open_tftp_root(&mut self) {
        let folder = self.shared.config.tftp.as_deref();
        if let (Err(error), Some(folder)) = (self.tftp.set_root(folder), folder) {
            let folder = folder.display();
            let remedy = "make the folder readable for the daemon's user, then reload";
            self.warnings.push(format!("no TFTP: {folder}: {error}; {remedy}"));
        }
    }

    /// Takes the warnings to log; each is returned once.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let leases = self.leases.as_mut().map(Leases::take_warnings).unwrap_or_default();
        let leases6 = self.leases6.as_mut().map(Leases6::take_warnings).unwrap_or_default();
        self.warnings.drain(..).chain(leases).chain(leases6).collect()
    }

    /// Starts to lease addresses, if the settings have any: `epoch` is the wall clock at time zero,
    /// `records` are those of the lease store. New records come out as [`Output::records`].
    pub fn open_leases(&mut self, now: Duration, epoch: Time, records: Vec<Record>) {
        self.epoch = Some(epoch);
        self.leases = Leases::open(now, epoch, &self.shared.config, &records);
        if let Some(leases6) = &mut self.leases6 {
            leases6.open(now, epoch, &records);
        }
    }

    /// Stops leasing addresses: there is no store.
    pub fn close_leases(&mut self) {
        self.epoch = None;
    }

    /// All leases, for the compaction of the lease store.
    pub fn lease_snapshot(&self) -> Vec<u8> {
        let mut bytes = self.leases.as_ref().map(Leases::snapshot).unwrap_or_default();
        bytes.extend(self.leases6.iter().flat_map(Leases6::snapshot));
        bytes
    }

    /// The number of active leases.
    pub(crate) fn bound_leases(&self) -> usize {
        let of_both = self.leases.iter().map(Leases::count_bound);
        of_both.chain(self.leases6.iter().map(Leases6::count_bound)).sum()
    }

    /// All addresses that clients have, had or are offered.
    pub fn lease_rows(&self, now: Duration) -> Vec<LeaseRow> {
        let rows = self.leases.iter().flat_map(|leases| leases.rows(now));
        let rows6 = self.leases6.iter().flat_map(|leases| leases.rows(now));
        let mut rows: Vec<LeaseRow> = rows.chain(rows6).collect();
        rows.sort_unstable_by_key(|row| row.address);
        rows
    }

    /// Adds a warning to log.
    pub(crate) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// Changes the settings and keeps transfers, queries and leases.
    pub fn reconfigure(&mut self, config: Config) {
        self.dns.reconfigure(&config);
        let before = std::mem::replace(&mut self.shared.config, config);
        self.apply_host_search();
        self.open_tftp_root();
        self.follow_events();
        let Shared { config, .. } = &self.shared;
        let is_same = before.station == config.station
            && before.dhcp.as_ref().map(Dhcp::without_taken)
                == config.dhcp.as_ref().map(Dhcp::without_taken);
        if is_same {
            return self.withhold_addresses();
        }
        self.advertiser_is_stale = true;
        self.reconfigure_leases();
    }

    /// Leases the addresses of guests that ask for none to no client. These guests come and go.
    fn withhold_addresses(&mut self) {
        let Gateway { leases, leases6, shared: Shared { config, .. }, .. } = self;
        let Some(dhcp) = &config.dhcp else { return };
        let taken = &dhcp.service.clients.taken;
        if let Some(leases) = leases {
            leases.set_taken(taken);
        }
        if let Some(leases) = leases6 {
            leases.set_taken(taken);
        }
    }

    fn reconfigure_leases(&mut self) {
        let Gateway { leases, leases6, shared: Shared { config, .. }, epoch, .. } = self;
        if !leases.as_mut().is_some_and(|leases| leases.reconfigure(config)) {
            // Records of another subnet's leases do not apply.
            *leases = epoch.and_then(|epoch| Leases::open(Duration::ZERO, epoch, config, &[]));
        }
        if !leases6.as_mut().is_some_and(|leases| leases.reconfigure(config)) {
            *leases6 = Leases6::new(config);
            if let (Some(leases), Some(epoch)) = (leases6, epoch) {
                leases.open(Duration::ZERO, *epoch, &[]);
            }
        }
    }

    /// Sets the host's search domains.
    pub fn set_search(&mut self, search: &[DomainName]) {
        if self.host_search == search {
            return;
        }
        self.host_search = search.to_vec();
        if !self.apply_host_search() {
            return;
        }
        self.advertiser_is_stale = true;
        if let Some(leases) = &mut self.leases {
            leases.set_search(search);
        }
        if let (Some(leases), Some(dhcp)) = (&mut self.leases6, &self.shared.config.dhcp) {
            leases.set_search(dhcp.short_search());
        }
    }

    /// Applies the host's search domains where the settings follow it. Returns whether they do.
    fn apply_host_search(&mut self) -> bool {
        let search = &self.host_search;
        self.shared.config.dhcp.as_mut().is_some_and(|dhcp| dhcp.follow_host(search))
    }

    /// Sets the DNS servers to forward queries to; the first three are used.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.dns.set_servers(servers);
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The counters and the state, for a report.
    pub fn status(&self) -> Status {
        let trama_nat::Counters { received, sent, .. } = self.shared.counters.frames;
        let dhcp = self.leases.as_ref().map(Leases::status);
        let dhcp6 = self.leases6.as_ref().map(Leases6::status);
        let (drops, lease_store, nat) = (self.shared.counters.drops(), None, None);
        let port_drops = self.shared.counters.frames.port_drops();
        Status { received, sent, drops, port_drops, dhcp, dhcp6, lease_store, nat }
    }

    /// Counts a drop of the caller.
    pub fn count_drop(&mut self, reason: impl Into<DropReason>) {
        self.shared.counters.drop(reason);
    }

    /// Handles a frame from `port`, starting with its destination address, with complete checksums.
    pub fn handle(&mut self, now: Duration, port: PortMark, frame: &[u8], out: &mut Output) {
        match received::parse(self.shared.config.station.mac(), port, VnetHeader::default(), frame)
        {
            Ok(frame) => self.handle_parsed(now, &frame.into(), out),
            Err(reason) => {
                self.shared.counters.frames.received += 1;
                self.shared.counters.drop_from(port, reason);
            }
        }
    }

    /// Handles a frame that is not for a flow.
    pub(crate) fn handle_parsed(&mut self, now: Duration, local: &Local<'_>, out: &mut Output) {
        let before = out.frames.len() + out.confirmed.len();
        self.shared.counters.frames.received += 1;
        if let Err(reason) = self.receive(now, local, out) {
            self.shared.counters.drop_from(local.frame.port(), reason);
        }
        self.shared.counters.frames.sent +=
            (out.frames.len() + out.confirmed.len() - before) as u64;
    }

    /// Handles a DNS query on a stream.
    pub(crate) fn handle_tcp_query(
        &mut self,
        now: Duration,
        client: Client,
        bytes: &[u8],
        out: &mut Output,
    ) {
        match self.dns_query(now, client, bytes, out) {
            Ok(reply) => self.reply(reply.map(|reply| (client, reply)).into_iter().collect(), out),
            Err(reason) => {
                self.shared.counters.drop_from(client.port, reason);
                out.streams.extend(client.stream.map(|stream| (stream, None)));
            }
        }
    }

    /// Handles a DNS query. Returns the answer if it is known at once.
    fn dns_query(
        &mut self,
        now: Duration,
        client: Client,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let Gateway { shared, dns, leases, .. } = self;
        let Shared { config, counters, random, .. } = shared;
        let known = (&*config, leases.as_ref());
        match dns.query(now, known, random, (client, bytes), &mut out.upstream) {
            Ok(reply) => {
                reply.iter().for_each(|reply| self.answered(&client, reply));
                Ok(reply)
            }
            Err(Refusal { reason, reply: None }) => Err(reason.into()),
            Err(Refusal { reason, reply }) => {
                counters.drop_from(client.port, reason);
                Ok(reply)
            }
        }
    }

    /// Handles a message from a DNS server to a slot's socket.
    pub fn server_answered(&mut self, now: Duration, slot: usize, bytes: &[u8], out: &mut Output) {
        let Gateway { dns, shared: Shared { random, counters, .. }, .. } = self;
        match dns.answer(now, slot, bytes, random, &mut out.upstream) {
            Ok(reply) => self.answer(reply.into_iter().collect(), out),
            Err(reason) => counters.drop(reason),
        }
    }

    /// The DNS server of a slot's socket cannot be reached.
    pub fn server_failed(&mut self, now: Duration, slot: usize, out: &mut Output) {
        let reply = self.dns.failed(now, slot, &mut self.shared.random, &mut out.upstream);
        self.answer(reply.into_iter().collect(), out);
    }

    /// Handles expired timers.
    pub fn poll(&mut self, now: Duration, out: &mut Output) {
        let replies = self.dns.poll(now, &mut self.shared.random, &mut out.upstream);
        self.answer(replies, out);
        let mut packets = Replies::new();
        self.tftp.poll(now, &mut packets);
        self.reply(packets, out);
        let before = out.frames.len() + out.confirmed.len();
        if let Some(leases) = &mut self.leases {
            leases.poll(now, &mut self.shared, out);
        }
        if let Some(leases) = &mut self.leases6 {
            leases.poll(now, &mut self.shared, out);
        }
        self.advertise(now, out);
        self.shared.counters.frames.sent +=
            (out.frames.len() + out.confirmed.len() - before) as u64;
    }

    fn advertise(&mut self, now: Duration, out: &mut Output) {
        let Gateway { advertiser, shared: Shared { config, random, .. }, .. } = self;
        if std::mem::take(&mut self.advertiser_is_stale) {
            let is_kept = advertiser.as_mut().is_some_and(|it| it.reconfigure(now, config));
            if !is_kept {
                *advertiser = Advertiser::new(now, config, random());
            }
        }
        let due = advertiser.as_mut().map(|advertiser| advertiser.poll(now, config));
        out.frames.extend(due.into_iter().flatten());
    }

    /// When [`Gateway::poll`] has to be called next.
    pub fn deadline(&self) -> Option<Duration> {
        let leases = self.leases.as_ref().and_then(Leases::deadline);
        let leases6 = self.leases6.as_ref().and_then(Leases6::deadline);
        let advertiser = self.advertiser.as_ref().map(Advertiser::deadline);
        let all = [self.dns.deadline(), self.tftp.deadline(), leases, leases6, advertiser];
        all.into_iter().flatten().min()
    }

    fn reply(&mut self, replies: Replies, out: &mut Output) {
        for (client, payload) in replies {
            if let Some(stream) = client.stream {
                out.streams.push((stream, Some(payload)));
                continue;
            }
            match self.send(&client, &payload, out) {
                Ok(()) => self.shared.counters.frames.sent += 1,
                Err(reason) => self.shared.counters.drop(reason),
            }
        }
    }

    fn send(&self, to: &Client, payload: &[u8], out: &mut Output) -> Result<(), DropReason> {
        if payload.len() > to.room {
            return Err(NatDrop::TooLong.into());
        }
        let macs = (self.shared.config.station.mac(), to.mac);
        let frame = udp_frame(macs, to.local, to.remote, payload);
        out.frames.push(frame.ok_or(NatDrop::BadUdp)?);
        Ok(())
    }

    fn receive(
        &mut self,
        now: Duration,
        local: &Local<'_>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        match &local.frame {
            Frame::Arp(arp) => {
                arp_ndp::check_sender(&self.shared.config.station, arp)?;
                if let Some(leases) = &mut self.leases {
                    leases.address_seen(
                        now,
                        &mut self.shared,
                        (arp.sender, arp.mac),
                        arp.port.0,
                        out,
                    );
                }
                out.frames.push(arp_ndp::arp_reply(&self.shared.config.station, arp)?);
                Ok(())
            }
            Frame::Packet(packet) => self.packet(now, packet, local.advertised, out),
            Frame::Fragment(_) => Err(ServiceDrop::Fragment.into()),
        }
    }

    /// Handles an IP packet.
    fn packet(
        &mut self,
        now: Duration,
        packet: &Inbound<'_>,
        advertised: Option<(IpAddr, MacAddr)>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        ip::check(&self.shared.config, packet)?;
        if packet.protocol == IpProtocol::Udp {
            return self.datagram(now, packet, out);
        }
        if ip::is_router_solicitation(packet) {
            let advertiser = self.advertiser.as_mut();
            return advertiser.ok_or(NatDrop::IcmpUnanswered)?.solicited(now, packet);
        }
        if let (Some(leases), Some((IpAddr::V6(address), user))) = (&mut self.leases6, advertised) {
            leases.address_seen(now, &mut self.shared, (address, user), packet.port.0, out);
        }
        let answer = ip::answer(&self.shared.config, packet)?;
        let id = (self.shared.random)() as u32;
        out.frames.extend(fragments(answer, self.shared.config.station.mtu, id)?);
        Ok(())
    }

    /// Passes a datagram to its service. Some are answered later.
    fn datagram(
        &mut self,
        now: Duration,
        packet: &Inbound<'_>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let (ports, payload) = ip::udp(packet)?;
        let is_service_address = self.shared.config.station.is_service_address(packet.destination);
        if let (SERVER_PORT, IpAddr::V4(source), false) =
            (ports.dst_port, packet.source, is_service_address)
        {
            let leases = self.leases.as_mut().ok_or(ServiceDrop::ClosedPort)?;
            let server = self.shared.config.station.ipv4.map(|subnet| IpAddr::V4(subnet.addr()));
            let unicast = Some(packet.destination) == server;
            let request =
                Request { port: packet.port.0, from: packet.mac, source, unicast, payload };
            return leases.handle(now, &mut self.shared, &request, out);
        }
        let client = Client {
            port: packet.port,
            mac: packet.mac,
            remote: (packet.source, ports.src_port),
            local: (packet.destination, ports.dst_port),
            room: usize::from(self.shared.config.station.mtu)
                .saturating_sub(udp_overhead(packet.source)),
            stream: None,
        };
        let offers = |service| self.shared.config.station.offers(service, packet.destination);
        let reply = match ports.dst_port {
            dns::PORT if offers(Service::Dns) => self.dns_query(now, client, payload, out)?,
            dhcp6::SERVER_PORT if !is_service_address && let IpAddr::V6(source) = packet.source => {
                let leases = self.leases6.as_mut().ok_or(ServiceDrop::ClosedPort)?;
                let (source, from) = ((source, ports.src_port), packet.mac);
                let request = Request6 { port: packet.port.0, from, source, payload };
                return leases.handle(now, &mut self.shared, &request, out);
            }
            port if self.tftp.listens(port) && offers(Service::Tftp) => {
                let mut packets = Replies::new();
                self.tftp.handle(now, &mut self.shared.random, (client, payload), &mut packets)?;
                return packets.iter().try_for_each(|(to, packet)| self.send(to, packet, out));
            }
            _ => return Err(ServiceDrop::ClosedPort.into()),
        };
        reply.map_or(Ok(()), |payload| self.send(&client, &payload, out))
    }
}

mod told;

#[cfg(test)]
mod tests;
