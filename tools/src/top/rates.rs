//! Rates: what two answers of the daemon say of the time between them.

use std::collections::HashMap;

use trama_api::top::{Numbers, Port};

/// The last answer, and the one before it.
pub(super) struct Rates {
    before: Option<Numbers>,
    now: Numbers,
}

/// What passes a port.
pub(super) struct PortRates<'a> {
    pub port: &'a Port,
    /// `None` if it was not there before, or its counters have begun again.
    pub rates: Option<Rate<'a>>,
}

/// Amounts a second.
#[derive(Default, PartialEq, Debug)]
pub(super) struct Rate<'a> {
    pub rx_bits: f64,
    pub tx_bits: f64,
    pub rx_frames: f64,
    pub tx_frames: f64,
    pub drops: f64,
    /// The reason of most of the drops.
    pub reason: Option<&'a str>,
    pub kicks: f64,
    pub calls: f64,
}

impl From<Numbers> for Rates {
    fn from(now: Numbers) -> Rates {
        Rates { before: None, now }
    }
}

impl Rates {
    /// Returns the rates up to another answer.
    pub(super) fn then(self, now: Numbers) -> Rates {
        Rates { before: Some(self.now), now }
    }

    /// Returns what has happened to the daemon itself.
    pub(super) fn news(&self) -> Option<String> {
        let before = self.before.as_ref().filter(|before| before.process != self.now.process)?;
        let (was, is) = (before.process, self.now.process);
        Some(format!("tramad was restarted: process {is} follows {was}"))
    }

    /// Returns the ports with their rates, in the configuration's order.
    pub(super) fn ports(&self) -> Vec<PortRates<'_>> {
        let before = self.before.iter().flat_map(|before| &before.ports);
        let before: HashMap<&str, &Port> = before.map(|port| (&*port.name, port)).collect();
        let ports = self.now.ports.iter().map(|port| {
            let before = before.get(&*port.name);
            PortRates { port, rates: before.and_then(|it| rate(it, port, self.seconds()?)) }
        });
        ports.collect()
    }

    /// Returns the part of its time that each worker was busy, in percent.
    pub(super) fn busy(&self) -> Vec<Option<f64>> {
        let before = self.before.as_ref().filter(|before| before.process == self.now.process);
        let busy = |(worker, nanos): (usize, &u64)| {
            let before = before?.busy_nanos.get(worker)?;
            Some(nanos.checked_sub(*before)? as f64 / 1e9 / self.seconds()? * 100.0)
        };
        self.now.busy_nanos.iter().enumerate().map(busy).collect()
    }

    /// Returns the flows of each network with a NAT.
    pub(super) fn flows(&self) -> &[(String, u64)] {
        &self.now.flows
    }

    fn seconds(&self) -> Option<f64> {
        let nanos = self.now.nanos.checked_sub(self.before.as_ref()?.nanos)?;
        (nanos > 0).then_some(nanos as f64 / 1e9)
    }
}

fn rate<'a>(before: &Port, now: &'a Port, seconds: f64) -> Option<Rate<'a>> {
    let per_second = |was: u64, is: u64| Some(is.checked_sub(was)? as f64 / seconds);
    let mut drops = 0;
    let mut most = (0, None);
    for (reason, count) in &now.drops {
        let was = before.drops.iter().find(|(it, _)| it == reason).map_or(0, |(_, count)| *count);
        let new = count.checked_sub(was)?;
        drops += new;
        if new > most.0 {
            most = (new, Some(reason.as_ref()));
        }
    }
    Some(Rate {
        rx_bits: per_second(before.rx_bytes, now.rx_bytes)? * 8.0,
        tx_bits: per_second(before.tx_bytes, now.tx_bytes)? * 8.0,
        rx_frames: per_second(before.rx_frames, now.rx_frames)?,
        tx_frames: per_second(before.tx_frames, now.tx_frames)?,
        drops: drops as f64 / seconds,
        reason: most.1,
        kicks: per_second(before.kicks, now.kicks)?,
        calls: per_second(before.calls, now.calls)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(frames: u64, drops: &[(&'static str, u64)]) -> Port {
        let drops = drops.iter().map(|(reason, count)| ((*reason).into(), *count)).collect();
        let (name, rx_bytes) = ("vm1".to_owned(), frames * 1000);
        Port { name, rx_frames: frames, rx_bytes, drops, ..Port::default() }
    }

    fn numbers(seconds: u64, ports: Vec<Port>) -> Numbers {
        let nanos = seconds * 1_000_000_000;
        Numbers { process: 1, nanos, busy_nanos: vec![nanos / 4], ports, ..Numbers::default() }
    }

    #[test]
    fn a_rate_is_what_was_added_over_the_time() {
        let before = numbers(10, vec![port(100, &[("runt", 5)])]);
        let rates = Rates::from(before);
        assert!(rates.ports()[0].rates.is_none() && rates.busy() == [None]);
        let now = numbers(12, vec![port(300, &[("runt", 6), ("giant", 3)])]);
        let rates = rates.then(now);
        let ports = rates.ports();
        let rate = ports[0].rates.as_ref().unwrap();
        assert_eq!((rate.rx_frames, rate.rx_bits, rate.tx_bits), (100.0, 800_000.0, 0.0));
        assert_eq!((rate.drops, rate.reason), (2.0, Some("giant")));
        assert_eq!(rates.busy(), [Some(25.0)]);
        assert_eq!(rates.news(), None);
    }

    #[test]
    fn what_begins_again_has_no_rate() {
        let rates =
            Rates::from(numbers(1, vec![port(100, &[])])).then(numbers(2, vec![port(7, &[])]));
        assert!(rates.ports()[0].rates.is_none());
        let other = Numbers { process: 2, ..numbers(3, vec![port(8, &[])]) };
        let rates = rates.then(other);
        assert!(rates.ports()[0].rates.is_some() && rates.busy() == [None]);
        assert!(rates.news().unwrap().contains("process 2 follows 1"));
    }
}
