//! Rules for `[network.sflow]` and `[network.ipfix]`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Place;
use super::check::Check;
use super::name::{IFNAME_REMEDY, ifname_fault};
use super::openvswitch::KEPT;
use crate::config::model::Network;
use crate::config::model::export::{Ipfix, Sflow};

/// Bytes of a frame in a sample: at least the addresses and the type; a datagram has room for two.
const HEADER: RangeInclusive<u16> = 14..=512;
const POLLING: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(4200);
const MAX_FLOWS: RangeInclusive<u32> = 1..=1_000_000;
const MAX_TARGETS: usize = 8;

impl Check {
    /// What of a network is exported, by the network's number.
    pub(super) fn exports(&mut self, network: &Network, index: usize) {
        for (column, table) in [("sflow", "sFlow"), ("ipfix", "IPFIX")] {
            if network.openvswitch.contains_key(column) {
                let message = format!("{column} is a table of its own");
                let remedy = format!("write [network.{column}], or set {table} with tramactl");
                self.problem(KEPT, message, remedy);
            }
        }
        if let Some(sflow) = &network.sflow {
            self.enter(Place::Sflow(index), &network.name);
            self.sflow(sflow);
        }
        if let Some(ipfix) = &network.ipfix {
            self.enter(Place::Ipfix(index), &network.name);
            self.ipfix(ipfix);
        }
        self.enter(Place::Network(index), &network.name);
    }

    fn sflow(&mut self, Sflow { agent, header, sampling, polling, targets }: &Sflow) {
        if let Some(agent) = agent
            && agent.parse::<IpAddr>().is_err()
            && let Some(fault) = ifname_fault(agent)
        {
            let message =
                format!("{agent:?} is no address, and as the name of an interface {fault}");
            self.problem("agent", message, IFNAME_REMEDY);
        }
        if !HEADER.contains(header) {
            let (least, most) = (HEADER.start(), HEADER.end());
            let message = format!("{header} is out of range");
            self.problem("header", message, format!("use {least} to {most} bytes"));
        }
        if !POLLING.contains(polling) || polling.subsec_nanos() != 0 {
            let remedy = "use whole seconds up to an hour, or 0 for no counters";
            self.problem("polling", "is out of range", remedy);
        }
        self.sampling(*sampling);
        self.targets(targets, "10.0.0.1:6343");
    }

    fn ipfix(&mut self, ipfix: &Ipfix) {
        let Ipfix { sampling, active_timeout, idle_timeout, max_flows, targets, domain: _ } = ipfix;
        for (key, timeout) in [("active-timeout", active_timeout), ("idle-timeout", idle_timeout)] {
            if !TIMEOUT.contains(timeout) || timeout.subsec_nanos() != 0 {
                self.problem(key, "is out of range", "use whole seconds from 1 to 4200");
            }
        }
        if !MAX_FLOWS.contains(max_flows) {
            let (least, most) = (MAX_FLOWS.start(), MAX_FLOWS.end());
            let message = format!("{max_flows} is out of range");
            self.problem("max-flows", message, format!("use {least} to {most}"));
        }
        self.sampling(*sampling);
        self.targets(targets, "10.0.0.1:4739");
    }

    fn sampling(&mut self, sampling: u32) {
        if sampling == 0 {
            self.problem("sampling", "is zero", "use 1 for every frame, 64 for one in 64");
        }
    }

    fn targets(&mut self, targets: &[SocketAddr], example: &str) {
        if targets.is_empty() {
            let remedy = format!("name a collector, as in targets = [\"{example}\"]");
            self.problem("targets", "is missing", remedy);
        }
        if targets.len() > MAX_TARGETS {
            let message = format!("has {} collectors", targets.len());
            self.problem("targets", message, format!("name {MAX_TARGETS} at most"));
        }
        let mut known = HashSet::new();
        if let Some(twin) = targets.iter().find(|target| !known.insert(**target)) {
            self.problem("targets", format!("{twin} is listed twice"), "remove one");
        }
        if let Some(none) = targets.iter().find(|it| it.ip().is_unspecified() || it.port() == 0) {
            let message = format!("{none} is no collector's address");
            self.problem("targets", message, "write the address and port on which it listens");
        }
    }
}
