//! Rates, from counters at two times of the daemon's monotonic clock.

use std::collections::HashMap;

use trama_api::state::{Network, State};
use trama_api::top;

use crate::view::Rate;

/// What passes in a second.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Of the ports, in the order of the numbers.
    pub(crate) ports: Vec<Rate>,
    /// Bits to and from what is outside, of the networks in the order of the state.
    pub(crate) edges: Vec<[u64; 2]>,
    /// The share of the time that each worker was busy.
    pub(crate) busy: Vec<f64>,
    /// Seconds since the numbers before; 0 without any.
    pub(crate) seconds: f64,
}

/// The numbers of the last answer.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    nanos: Option<u64>,
    busy: Vec<u64>,
    ports: HashMap<String, [u64; 4]>,
    edges: HashMap<String, [u64; 2]>,
}

impl Meter {
    /// Returns the rates since the state before. What was not there then has none. A counter that
    /// has fallen is that of another port of the same name, which has none either.
    pub(crate) fn read(&mut self, state: &State) -> Rates {
        let numbers = &state.numbers;
        let nanos = self.nanos.map_or(0, |before| numbers.nanos.saturating_sub(before));
        let rates = Rates {
            ports: numbers.ports.iter().map(|port| self.port(port, nanos)).collect(),
            edges: state.networks.iter().map(|network| self.edge(network, nanos)).collect(),
            busy: numbers.busy_nanos.iter().enumerate().map(|it| self.busy(it, nanos)).collect(),
            seconds: nanos as f64 / 1e9,
        };
        self.nanos = Some(numbers.nanos);
        self.busy.clone_from(&numbers.busy_nanos);
        replace(&mut self.ports, numbers.ports.iter().map(|port| (&port.name, counters(port))));
        replace(&mut self.edges, state.networks.iter().map(|it| (&it.name, it.edge)));
        rates
    }

    fn port(&self, port: &top::Port, nanos: u64) -> Rate {
        let before = self.ports.get(&port.name);
        let Some([rx_bytes, tx_bytes, rx_frames, tx_frames]) = grown(before, counters(port)) else {
            return Rate::default();
        };
        Rate {
            rx_bps: per_second(rx_bytes, 8, nanos),
            tx_bps: per_second(tx_bytes, 8, nanos),
            rx_pps: per_second(rx_frames, 1, nanos),
            tx_pps: per_second(tx_frames, 1, nanos),
        }
    }

    fn edge(&self, network: &Network, nanos: u64) -> [u64; 2] {
        let grown = grown(self.edges.get(&network.name), network.edge);
        grown.unwrap_or_default().map(|bytes| per_second(bytes, 8, nanos))
    }

    fn busy(&self, (worker, busy): (usize, &u64), nanos: u64) -> f64 {
        let grown = self.busy.get(worker).and_then(|before| busy.checked_sub(*before));
        match grown {
            Some(grown) if nanos > 0 => (grown as f64 / nanos as f64).min(1.0),
            _ => 0.0,
        }
    }
}

fn counters(port: &top::Port) -> [u64; 4] {
    [port.rx_bytes, port.tx_bytes, port.rx_frames, port.tx_frames]
}

/// By how much counters have grown; `None` if one has fallen, or if there was none.
fn grown<const N: usize>(before: Option<&[u64; N]>, now: [u64; N]) -> Option<[u64; N]> {
    let mut grown = now;
    for (grown, before) in grown.iter_mut().zip(before?) {
        *grown = grown.checked_sub(*before)?;
    }
    Some(grown)
}

fn per_second(count: u64, factor: u64, nanos: u64) -> u64 {
    let scaled = u128::from(count) * u128::from(factor) * 1_000_000_000;
    scaled.checked_div(nanos.into()).map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

/// Makes `map` have these entries alone. Names that stay are not allocated again.
fn replace<'a, V>(map: &mut HashMap<String, V>, entries: impl Iterator<Item = (&'a String, V)>) {
    let mut before = std::mem::take(map);
    map.reserve(before.len());
    for (name, value) in entries {
        let name = before.remove_entry(name).map_or_else(|| name.clone(), |(name, _)| name);
        map.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use trama_api::top::Numbers;

    use super::*;

    fn port(name: &str, rx_bytes: u64, rx_frames: u64) -> top::Port {
        top::Port { name: name.into(), rx_bytes, rx_frames, ..top::Port::default() }
    }

    fn state(nanos: u64, ports: Vec<top::Port>) -> State {
        let numbers = Numbers { nanos, ports, busy_nanos: vec![nanos / 4], ..Numbers::default() };
        State { numbers, ..State::default() }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rates_are_differences_over_the_time_of_the_answers() {
        let mut meter = Meter::default();
        let first = meter.read(&state(SECOND, vec![port("vm1", 1000, 10)]));
        assert_eq!((first.ports[0], first.seconds), (Rate::default(), 0.0));
        let rates = meter.read(&state(3 * SECOND, vec![port("vm1", 3000, 30)]));
        let Rate { rx_bps, rx_pps, tx_bps, .. } = rates.ports[0];
        assert_eq!((rx_bps, rx_pps, tx_bps), (8000, 10, 0));
        assert_eq!((rates.seconds, rates.busy[0]), (2.0, 0.25));
    }

    #[test]
    fn a_counter_that_falls_is_that_of_a_new_port() {
        let mut meter = Meter::default();
        meter.read(&state(SECOND, vec![port("vm1", 1000, 10)]));
        let rates = meter.read(&state(2 * SECOND, vec![port("vm1", 2000, 1)]));
        assert_eq!(rates.ports[0], Rate::default());
        let rates = meter.read(&state(3 * SECOND, vec![port("vm1", 2010, 2)]));
        assert_eq!(rates.ports[0].rx_bps, 80);
    }

    #[test]
    fn a_port_that_comes_back_and_a_clock_that_stands_have_no_rate() {
        let mut meter = Meter::default();
        meter.read(&state(SECOND, vec![port("vm1", 1000, 10)]));
        meter.read(&state(2 * SECOND, vec![]));
        let rates = meter.read(&state(3 * SECOND, vec![port("vm1", 9000, 90)]));
        assert_eq!(rates.ports[0], Rate::default());
        for nanos in [3 * SECOND, SECOND] {
            let rates = meter.read(&state(nanos, vec![port("vm1", 9900, 99)]));
            assert_eq!((rates.ports[0], rates.seconds), (Rate::default(), 0.0));
        }
    }

    #[test]
    fn no_number_is_too_large() {
        let mut meter = Meter::default();
        meter.read(&state(SECOND, vec![port("vm1", 0, 0)]));
        let rates = meter.read(&state(SECOND + 1, vec![port("vm1", u64::MAX, u64::MAX)]));
        assert_eq!(rates.ports[0].rx_bps, u64::MAX);
    }
}
