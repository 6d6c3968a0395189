//! From samples and counters to datagrams, by either protocol.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use trama_export::Sample;
use trama_export::ipfix::{Cache, EndReason, Exporter, Flow, Limits};
use trama_export::sflow::{Agent, InterfaceCounters};

use crate::config::model::export::{Ipfix, Sflow};

/// How often a collector of IPFIX gets the templates.
const TEMPLATES: Duration = Duration::from_secs(60);
/// How often flows are looked through.
const EXPIRE: Duration = Duration::from_secs(1);

/// What is sent: datagrams, each with the number of its records.
pub(super) type Datagrams = Vec<(Vec<u8>, u64)>;

/// The encoder of an export.
pub(super) enum Encoder {
    Sflow { agent: Agent, began: Instant, pending: u64 },
    Ipfix(Box<IpfixEncoder>),
}

/// What IPFIX needs.
pub(super) struct IpfixEncoder {
    cache: Cache,
    exporter: Exporter,
    pending: u64,
    /// When templates are due, and when flows are looked through.
    templates: Instant,
    expires: Instant,
}

impl Encoder {
    /// Returns the encoder of an agent that is known by an address and a number.
    pub(super) fn sflow(sflow: &Sflow, address: IpAddr, number: u32) -> Encoder {
        let agent = Agent::new(address, number, sflow.sampling);
        Encoder::Sflow { agent, began: Instant::now(), pending: 0 }
    }

    pub(super) fn ipfix(ipfix: &Ipfix) -> Encoder {
        let limits = Limits {
            flows: ipfix.max_flows as usize,
            active: ipfix.active_timeout,
            idle: ipfix.idle_timeout,
        };
        let (now, pending) = (Instant::now(), 0);
        let cache = Cache::new(limits, ipfix.sampling);
        let exporter = Exporter::new(ipfix.domain);
        let encoder = IpfixEncoder { cache, exporter, pending, templates: now, expires: now };
        Encoder::Ipfix(Box::new(encoder))
    }

    /// Adds a sample; `lost` were lost before it. `time`: since the Unix epoch.
    pub(super) fn frame(&mut self, sample: &Sample<'_>, lost: u64, time: Duration) -> Datagrams {
        match self {
            Encoder::Sflow { agent, began, pending } => {
                let full = agent.frame(sample, lost, began.elapsed());
                counted(full, pending)
            }
            Encoder::Ipfix(encoder) => {
                let ended = encoder.cache.frame(sample, time.as_millis() as u64);
                encoder.add(ended)
            }
        }
    }

    /// Adds the counters of a port.
    pub(super) fn counters(&mut self, counters: &InterfaceCounters) -> Datagrams {
        match self {
            Encoder::Sflow { agent, began, pending } => {
                let full = agent.counters(counters, began.elapsed());
                counted(full, pending)
            }
            Encoder::Ipfix(_) => Vec::new(),
        }
    }

    /// Returns what is due by now.
    pub(super) fn due(&mut self) -> Datagrams {
        match self {
            Encoder::Sflow { agent, began, pending } => {
                let rest = std::mem::take(pending);
                agent.flush(began.elapsed()).map(|datagram| (datagram, rest)).into_iter().collect()
            }
            Encoder::Ipfix(encoder) => encoder.due(),
        }
    }

    /// Returns what remains at the end.
    pub(super) fn end(&mut self) -> Datagrams {
        match self {
            Encoder::Sflow { .. } => self.due(),
            Encoder::Ipfix(encoder) => {
                let ended = encoder.cache.end();
                let mut datagrams = encoder.add(ended);
                datagrams.extend(encoder.flush());
                datagrams
            }
        }
    }
}

/// Counts a record that was added, after a datagram that may have become full before it.
fn counted(full: Option<Vec<u8>>, pending: &mut u64) -> Datagrams {
    let before = *pending;
    *pending = if full.is_some() { 1 } else { before + 1 };
    full.map(|datagram| (datagram, before)).into_iter().collect()
}

impl IpfixEncoder {
    fn add(&mut self, ended: impl IntoIterator<Item = (Flow, EndReason)>) -> Datagrams {
        let now = seconds();
        let mut datagrams = Vec::new();
        for (flow, reason) in ended {
            let full = self.exporter.flow(&flow, reason, now);
            datagrams.extend(counted(full, &mut self.pending));
        }
        datagrams
    }

    fn due(&mut self) -> Datagrams {
        let now = Instant::now();
        let mut datagrams = Vec::new();
        if now >= self.templates {
            self.templates = now + TEMPLATES;
            datagrams.push((self.exporter.templates(seconds()), 0));
        }
        if now >= self.expires {
            self.expires = now + EXPIRE;
            let ended = self.cache.expire(since_epoch().as_millis() as u64);
            datagrams.extend(self.add(ended));
            datagrams.extend(self.flush());
        }
        datagrams
    }

    fn flush(&mut self) -> Option<(Vec<u8>, u64)> {
        let records = std::mem::take(&mut self.pending);
        self.exporter.flush(seconds()).map(|message| (message, records))
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn seconds() -> u32 {
    since_epoch().as_secs() as u32
}
