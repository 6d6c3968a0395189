//! The view that follows from an answer of the daemon and those before it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use trama_api::state::{self, State};
use trama_api::top;

use crate::attention::attention;
use crate::change::in_order;
use crate::history::{History, Sample};
use crate::minute::Minute;
use crate::rates::{Meter, Rates};
use crate::slots::Slots;
use crate::view::{Drops, Network, Port, Rate, View, Worker};

/// The reasons for drops at a port without a machine: of what is flooded, each frame is one.
const EXPECTED: [&str; 2] = ["egress_not_ready", "egress_down"];

/// What is remembered of earlier answers.
#[derive(Debug, Default)]
pub(crate) struct Composer {
    meter: Meter,
    minute: Minute,
    slots: Slots,
    /// For charts.
    pub(crate) history: History,
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    /// A clock that does not step: all differences are those of this one.
    pub(crate) monotonic: Duration,
    /// Seconds since 1970, which people read.
    pub(crate) unix: u64,
}

impl Composer {
    /// Returns the view behind `before`. The events are those of `before`.
    pub(crate) fn next(&mut self, before: &View, state: State, now: Now) -> View {
        let rates = self.meter.read(&state);
        let times = self.history.advance(rates.seconds, now.unix);
        self.history.workers(rates.busy.iter().copied(), times);
        let State { version, host, uptime_s, numbers, reasons, networks, ports } = state;
        self.forget(&ports);
        let networks = with_edges(networks, &ports, &rates);
        let ports = self.ports(ports, &numbers.ports, &rates, (now.monotonic, times));
        let worker = |(id, busy): (usize, &f64)| Worker { id, busy: *busy };
        let mut view = View {
            sequence: before.sequence,
            version,
            host,
            uptime_s,
            write: before.write,
            workers: rates.busy.iter().enumerate().map(worker).collect(),
            reasons,
            attention: Vec::new(),
            events: before.events.clone(),
            networks: in_order(&before.networks, networks),
            ports: in_order(&before.ports, ports),
        };
        view.attention = attention(&view);
        view
    }

    fn forget(&mut self, ports: &[state::Port]) {
        let names: HashSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        self.minute.keep(|name| names.contains(name));
        self.history.keep(|name| names.contains(name));
    }

    fn ports(
        &mut self,
        ports: Vec<state::Port>,
        numbers: &[top::Port],
        rates: &Rates,
        (now, times): (Duration, usize),
    ) -> Vec<Port> {
        let counted = numbers.iter().zip(rates.ports.iter().copied());
        let numbers: HashMap<&str, (&top::Port, Rate)> =
            counted.map(|(port, rate)| (port.name.as_str(), (port, rate))).collect();
        let names = ports.iter().map(|port| (port.network.as_deref(), port.name.as_str()));
        let slots = self.slots.give(names);
        let port = |(mut port, slot): (state::Port, usize)| {
            let mut last = std::mem::take(&mut port.last_drops);
            let Some((counted, rate)) = numbers.get(port.name.as_str()).copied() else {
                return Port { port, slot, ..Port::default() };
            };
            let mut drops = Vec::new();
            let dropped = self.minute.read(now, counted, |reason, minute, total| {
                let found = last.iter().position(|it| it.reason == reason);
                let last = found.map(|at| last.swap_remove(at));
                let expected = EXPECTED.contains(&reason);
                drops.push(Drops { reason: reason.to_owned(), minute, total, expected, last });
            });
            let share = if times > 1 { dropped as f32 / times as f32 } else { dropped as f32 };
            let sample = Sample { rx: rate.rx_bps as f32, tx: rate.tx_bps as f32, drops: share };
            self.history.port(&port.name, sample, times);
            Port { port, slot, rate, drops }
        };
        ports.into_iter().zip(slots).map(port).collect()
    }
}

/// Completes networks by the rates at their edges and the VLANs of their ports.
fn with_edges(networks: Vec<state::Network>, ports: &[state::Port], rates: &Rates) -> Vec<Network> {
    let mut vlans: HashMap<&str, BTreeSet<u16>> = HashMap::new();
    for port in ports {
        if let Some(network) = &port.network {
            vlans.entry(network).or_default().extend(port.tag.iter().chain(&port.trunks));
        }
    }
    let network = |(mut network, edge): (state::Network, &[u64; 2])| {
        network.edge = *edge;
        let vlans = vlans.remove(network.name.as_str()).unwrap_or_default();
        Network { network, vlans: vlans.into_iter().collect() }
    };
    networks.into_iter().zip(&rates.edges).map(network).collect()
}
