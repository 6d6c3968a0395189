//! The table of scenarios.
//!
//! A scenario is a load, its ports, and its entrants: trama first, then the peers. To add one, add
//! an entry to a table of the modules below.

use serde::{Deserialize, Serialize};

use crate::load::Load;
use crate::peers::{DIRECT, Peer, Port, TRAMA, Variant};

mod footprint;
mod gateway;
mod hosts;
mod tunnel;
mod vhost;

/// A scenario.
pub(crate) struct Scenario {
    /// Its name on the command line; the part before the first `-` is its group.
    pub name: &'static str,
    /// A description.
    pub title: &'static str,
    /// The unit of its figures.
    pub unit: Unit,
    /// The ports of the switch.
    pub ports: &'static [Port],
    /// The network's MTU.
    pub mtu: u32,
    /// The load.
    pub load: Load,
    /// The entrants. All others are compared with the first.
    pub entrants: &'static [Entrant],
    /// Whether trama is compared with the best round of each peer, not round by round.
    pub against_best: bool,
    /// The peer that measures the generator's ceiling under the same load; `None` if the load
    /// determines it itself or there is no generator.
    pub ceiling: Option<&'static Peer>,
    /// Target for the first entrant's figure, in the unit.
    pub target: Option<f64>,
}

/// A participant in a scenario.
pub(crate) struct Entrant {
    /// Its name on the command line and in reports.
    pub label: &'static str,
    /// The switch.
    pub peer: &'static Peer,
    /// Further requests to trama.
    pub variant: Variant,
    /// Its ports, if they differ from the scenario's.
    pub ports: Option<&'static [Port]>,
    /// Target for the first entrant's ratio to it.
    pub target: Option<f64>,
}

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Rates.
    Higher,
    /// Times, sizes.
    Lower,
}

/// A unit of figures.
pub(crate) struct Unit {
    /// Its symbol.
    pub name: &'static str,
    /// Its size in base units (frames or bits a second, seconds, bytes).
    pub scale: f64,
    /// Which direction is better.
    pub better: Better,
    /// Whether a figure counts frames a second.
    pub frames: bool,
}

const MPPS: Unit = Unit { name: "Mpps", scale: 1e6, better: Better::Higher, frames: true };
const GBPS: Unit = Unit { name: "Gb/s", scale: 1e9, better: Better::Higher, frames: false };
const MICROSECONDS: Unit = lower("µs", 1e-6);

const fn lower(name: &'static str, scale: f64) -> Unit {
    Unit { name, scale, better: Better::Lower, frames: false }
}

const fn trama(label: &'static str, variant: Variant) -> Entrant {
    Entrant { label, peer: &TRAMA, variant, ports: None, target: None }
}

const fn entrant(peer: &'static Peer) -> Entrant {
    Entrant { label: peer.name, peer, variant: PLAIN, ports: None, target: None }
}

const fn with_target(peer: &'static Peer, target: f64) -> Entrant {
    Entrant { target: Some(target), ..entrant(peer) }
}

const PLAIN: Variant = Variant {
    vlan: false,
    vlan_frame_sizes: false,
    silent_ports: 0,
    macs: 0,
    spins_always: false,
    separate_cores: false,
    idle_flows: 0,
    small_window: false,
    promiscuous: false,
    floods: false,
};

const HOSTS: [Port; 9] = [Port::Host; 9];

const TRAMA_ONLY: &[Entrant] = &[entrant(&TRAMA)];

/// Hosts on TAPs.
const fn hosts(name: &'static str, title: &'static str, ports: usize, load: Load) -> Scenario {
    Scenario {
        name,
        title,
        unit: GBPS,
        ports: HOSTS.split_at(ports).0,
        mtu: 1500,
        load,
        entrants: &[],
        against_best: false,
        ceiling: Some(&DIRECT),
        target: None,
    }
}

/// Returns all scenarios, in the order of the report.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [vhost::ALL, hosts::ALL, tunnel::ALL, footprint::ALL, gateway::ALL].into_iter().flatten()
}

impl Scenario {
    /// Returns whether `word` of the command line selects this scenario, by its name or group.
    pub(crate) fn is_selected_by(&self, word: &str) -> bool {
        self.name == word || self.group() == word
    }

    /// Returns its group: the first word of its name.
    pub(crate) fn group(&self) -> &'static str {
        self.name.split('-').next().unwrap_or(self.name)
    }

    /// Returns roughly the seconds of one round, given those of a measurement.
    pub(crate) fn round_takes(&self, seconds: u64) -> u64 {
        let measurements = self.entrants.len() + usize::from(self.ceiling.is_some());
        measurements as u64 * (self.load.overhead() + seconds)
    }

    /// Returns the ports of one of its entrants.
    pub(crate) fn ports_of(&self, entrant: &Entrant) -> &'static [Port] {
        entrant.ports.unwrap_or(self.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_trama_comes_first() {
        let names: HashSet<_> = all().map(|s| s.name).collect();
        assert_eq!(names.len(), all().count());
        for scenario in all() {
            let labels: HashSet<_> = scenario.entrants.iter().map(|e| e.label).collect();
            assert_eq!(labels.len(), scenario.entrants.len(), "{}", scenario.name);
            assert!(scenario.entrants[0].label.starts_with("trama"), "{}", scenario.name);
        }
    }

    #[test]
    fn every_entrants_peer_is_listed() {
        let known: HashSet<_> = peers::ALL.iter().map(|p| p.name).collect();
        for entrant in all().flat_map(|s| s.entrants) {
            assert!(known.contains(entrant.peer.name));
        }
    }

    #[test]
    fn a_group_means_all_its_scenarios() {
        let meant = |word| all().filter(|s| s.is_selected_by(word)).count();
        assert_eq!(meant("tap-ping"), 1);
        assert!(meant("footprint") >= 6);
        assert_eq!(meant("nonsense"), 0);
    }
}
