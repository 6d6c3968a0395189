//! One protocol's export of one network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use trama_export::{Interface, Sample};
use trama_frame::vnet::{self, PRIVATE_HEAD};
use trama_frame::{VlanId, ethernet};
use trama_switch::watch::{
    Egress, Reader, ReasonSet, Record, Sampling, Watch, WatchId, Ways, queue,
};
use trama_switch::{NetworkId, PortId, VlanMode};

use super::Protocol;
use super::collectors::Collectors;
use super::encoder::{Datagrams, Encoder};
use crate::config::model::export::{Ipfix, Sflow};
use crate::state::Daemon;
use crate::state::exports::{Exported, ExportedPort};
use crate::state::watches::Clock;

/// Bytes of the queue of a network.
const QUEUE: usize = 1 << 20;
/// Samples that one session may take before the next one has its turn.
const TURN: usize = 1024;
/// Bytes of a frame by which IPFIX tells flows apart: a header of IPv6 with extensions, and TCP's.
const FLOW_HEADER: usize = 128;

/// What is set for a network.
#[derive(Clone, PartialEq, Debug)]
enum Setting {
    Sflow(Sflow),
    Ipfix(Ipfix),
}

impl Setting {
    fn of(network: &Exported, protocol: Protocol) -> Option<Setting> {
        match protocol {
            Protocol::Sflow => network.sflow.clone().map(Setting::Sflow),
            Protocol::Ipfix => network.ipfix.clone().map(Setting::Ipfix),
        }
    }

    fn protocol(&self) -> Protocol {
        match self {
            Setting::Sflow(_) => Protocol::Sflow,
            Setting::Ipfix(_) => Protocol::Ipfix,
        }
    }

    fn sampling(&self) -> u32 {
        match self {
            Setting::Sflow(sflow) => sflow.sampling,
            Setting::Ipfix(ipfix) => ipfix.sampling,
        }
    }

    fn header(&self) -> usize {
        match self {
            Setting::Sflow(sflow) => sflow.header.into(),
            Setting::Ipfix(_) => FLOW_HEADER,
        }
    }
}

/// An export at work.
pub(super) struct Session {
    daemon: Arc<Daemon>,
    network: NetworkId,
    name: String,
    setting: Setting,
    ports: HashMap<PortId, ExportedPort>,
    collectors: Collectors,
    /// Once a socket is open: its address may be the agent's.
    encoder: Option<Encoder>,
    sampling: Option<Sampled>,
    /// What is wrong besides the collectors.
    fault: Option<String>,
    next_poll: Instant,
}

/// The watch of the network.
struct Sampled {
    watch: WatchId,
    queue: Reader,
    clock: Clock,
    ports: Vec<PortId>,
    /// Frames that found no room, as far as records have told of them.
    missed: u64,
}

impl Session {
    /// Begins an export, if it is set.
    pub(super) fn begin(
        daemon: &Arc<Daemon>,
        network: &Exported,
        protocol: Protocol,
    ) -> Option<Session> {
        let setting = Setting::of(network, protocol)?;
        let targets = match &setting {
            Setting::Sflow(sflow) => &sflow.targets,
            Setting::Ipfix(ipfix) => &ipfix.targets,
        };
        let name = format!("network {}: {}", network.name, protocol.name());
        let mut session = Session {
            daemon: daemon.clone(),
            network: network.id,
            name: network.name.clone(),
            collectors: Collectors::new(name, targets),
            setting,
            ports: HashMap::new(),
            encoder: None,
            sampling: None,
            fault: None,
            next_poll: Instant::now(),
        };
        session.follow(network);
        Some(session)
    }

    /// Whether it is what is set for this network.
    pub(super) fn is_of(&self, network: &Exported) -> bool {
        let protocol = self.setting.protocol();
        network.id == self.network && Setting::of(network, protocol).as_ref() == Some(&self.setting)
    }

    pub(super) fn serves(&self, network: NetworkId, protocol: Protocol) -> bool {
        self.network == network && self.setting.protocol() == protocol
    }

    pub(super) fn name(&self) -> (String, Protocol) {
        (self.name.clone(), self.setting.protocol())
    }

    pub(super) fn queue(&self) -> Option<&Reader> {
        self.sampling.as_ref().map(|sampled| &sampled.queue)
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.fault.iter().cloned().chain(self.collectors.faults()).collect()
    }

    /// Follows ports that come and go, and tries again what has failed.
    pub(super) fn follow(&mut self, network: &Exported) {
        self.ports = network.ports.iter().map(|port| (port.id, port.clone())).collect();
        self.collectors.open(&self.daemon.rights());
        let begun = self.prepare(network.number).and_then(|()| self.watch());
        let fault = begun.err();
        if let Some(fault) = fault.as_ref().filter(|_| fault != self.fault) {
            tracing::warn!("network {}: {}: {fault}", self.name, self.setting.protocol().name());
        }
        self.fault = fault;
    }

    /// Makes the encoder, once an agent's address is known.
    fn prepare(&mut self, number: u32) -> Result<(), String> {
        if self.encoder.is_some() {
            return Ok(());
        }
        self.encoder = match &self.setting {
            Setting::Ipfix(ipfix) => Some(Encoder::ipfix(ipfix)),
            Setting::Sflow(sflow) => {
                let address = match &sflow.agent {
                    None => self.collectors.local_address(),
                    Some(agent) => Some(match agent.parse::<IpAddr>() {
                        Ok(address) => address,
                        Err(_) => self.daemon.rights().address_of(agent)?,
                    }),
                };
                // Without a socket, nothing can be sent; the collectors say why.
                address.map(|address| Encoder::sflow(sflow, address, number))
            }
        };
        Ok(())
    }

    /// Has frames of all ports sampled.
    fn watch(&mut self) -> Result<(), String> {
        if self.encoder.is_none() || self.ports.is_empty() {
            return Ok(());
        }
        let Some(sampled) = &mut self.sampling else {
            return self.begin_to_watch().map(|sampled| self.sampling = Some(sampled));
        };
        for id in self.ports.keys() {
            if !sampled.ports.contains(id) {
                self.daemon.extend_watch(self.network, sampled.watch, *id)?;
                sampled.ports.push(*id);
            }
        }
        sampled.ports.retain(|id| self.ports.contains_key(id));
        Ok(())
    }

    fn begin_to_watch(&self) -> Result<Sampled, String> {
        let (writer, reader) =
            queue(QUEUE).map_err(|error| format!("no queue can be made: {error}"))?;
        let rate = NonZeroU32::new(self.setting.sampling()).unwrap_or(NonZeroU32::MIN);
        let seed = since_epoch().as_nanos() as u64;
        let ports: Vec<PortId> = self.ports.keys().copied().collect();
        let watch = Watch {
            ports: ports.clone(),
            frames: Ways { received: true, sent: false },
            dropped: Ways { received: true, sent: false },
            drops: ReasonSet::ALL,
            // As much as it takes to tell the packets of a large segment.
            snaplen: self.setting.header().max(PRIVATE_HEAD),
            filter: None,
            sampling: Some(Sampling { rate, seed }),
            queue: writer,
        };
        let (watch, clock) = self.daemon.watch(self.network, watch)?;
        Ok(Sampled { watch, queue: reader, clock, ports, missed: 0 })
    }

    /// Takes samples and sends what is due; returns whether samples are left.
    pub(super) fn work(&mut self) -> bool {
        let is_drained = !self.drain();
        self.poll_counters();
        if let Some(encoder) = &mut self.encoder {
            let due = encoder.due();
            self.send(due);
        }
        !is_drained
    }

    /// Takes a turn's samples; returns whether there may be more.
    fn drain(&mut self) -> bool {
        let (Some(sampled), Some(encoder)) = (&mut self.sampling, &mut self.encoder) else {
            return false;
        };
        let (mut datagrams, mut lost) = (Vec::new(), 0);
        let (header, mut taken) = (self.setting.header(), 0);
        while taken < TURN
            && let Some(record) = sampled.queue.read()
        {
            taken += 1;
            lost += record.missed;
            sampled.missed += record.missed;
            let Some(port) = self.ports.get(&record.port) else { continue };
            let Some(mut sample) = sample(&record, port, &self.ports) else { continue };
            sample.header = &sample.header[..sample.header.len().min(header)];
            datagrams.extend(encoder.frame(&sample, record.missed, sampled.clock.of(record.time)));
        }
        self.daemon.exports.count(self.setting.protocol(), 0, lost);
        self.send(datagrams);
        taken == TURN
    }

    /// Sends the counters of all ports when they are due.
    fn poll_counters(&mut self) {
        let Setting::Sflow(Sflow { polling, .. }) = &self.setting else { return };
        if polling.is_zero() || Instant::now() < self.next_poll {
            return;
        }
        self.next_poll = Instant::now() + *polling;
        let Some(encoder) = &mut self.encoder else { return };
        let counters = self.daemon.exported_counters(self.network);
        let datagrams = counters.iter().flat_map(|counters| encoder.counters(counters)).collect();
        self.send(datagrams);
    }

    fn send(&mut self, datagrams: Datagrams) {
        let (mut sent, mut lost) = (0, 0);
        for (datagram, records) in datagrams {
            let failed = self.collectors.send(&datagram);
            // A record counts as sent if some collector may have it.
            match failed < self.collectors.len() as u64 {
                true => sent += records,
                false => lost += records,
            }
        }
        self.daemon.exports.count(self.setting.protocol(), sent, lost);
    }

    /// Ends the export, and sends what it has.
    pub(super) fn end(mut self) {
        let watch = self.sampling.as_ref().map(|sampled| sampled.watch);
        let counts = watch.map(|watch| self.daemon.unwatch(self.network, watch));
        while self.drain() {}
        // Of what was missed since the last record, none has told.
        let missed = counts.iter().flatten().map(|count| count.missed).sum::<u64>();
        let told = self.sampling.as_ref().map_or(0, |sampled| sampled.missed);
        let late = missed.saturating_sub(told);
        self.daemon.exports.count(self.setting.protocol(), 0, late);
        if let Some(encoder) = &mut self.encoder {
            let rest = encoder.end();
            self.send(rest);
        }
    }
}

/// What is known of a sampled frame; `None` if nothing could be read of it.
fn sample<'a>(
    record: &Record<'a>,
    port: &ExportedPort,
    ports: &HashMap<PortId, ExportedPort>,
) -> Option<Sample<'a>> {
    let header = ethernet::parse(record.bytes)?;
    let output = match record.egress {
        _ if record.drop.is_some() => Interface::Dropped,
        Egress::Port(id) => match ports.get(&id).map(|port| port.number) {
            Some(Some(number)) => Interface::Port(number),
            Some(None) => Interface::Internal,
            None => Interface::Unknown,
        },
        Egress::Several => Interface::Several,
        Egress::Unknown => Interface::Unknown,
    };
    let tag = header.tag.filter(|tag| tag.vid() != VlanId::NONE);
    let vlan = match &port.vlan {
        VlanMode::Access { tag } => tag.get(),
        VlanMode::Trunk { .. } => tag.map_or(0, |tag| tag.vid().get()),
        VlanMode::NativeTagged { tag: native, .. }
        | VlanMode::NativeUntagged { tag: native, .. } => {
            tag.map_or(*native, |tag| tag.vid()).get()
        }
    };
    let (parts, part_header) = parts(record);
    Some(Sample {
        header: record.bytes,
        len: record.len,
        parts,
        part_header,
        input: port.number,
        output,
        vlan,
        priority: header.tag.map_or(0, |tag| tag.pcp()),
    })
}

/// Returns the number of packets in a frame, and the bytes of headers of each.
fn parts(record: &Record<'_>) -> (u32, usize) {
    let mut header = record.header;
    // As it was when it entered: a fault of it would have been the reason of a drop.
    match vnet::validate(&mut header, record.bytes, record.len) {
        Ok(_) => (header.segments(record.len) as u32, header.hdr_len.into()),
        Err(_) => (1, 0),
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
