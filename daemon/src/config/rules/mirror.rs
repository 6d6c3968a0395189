//! Rules for mirrors.

use std::collections::{HashMap, HashSet};

use trama_api::value::is_uuid;
use trama_capture::filter::Filter;

use super::check::Check;
use crate::config::model::mirror::MAX_MIRRORS;
use crate::config::model::{Config, Mirror, Mode, Network, Port};

/// The longest frame that a snapshot length can name, and the shortest.
const SNAPLEN: std::ops::RangeInclusive<u16> = 14..=u16::MAX;

/// What mirrors look up, and how many a network has.
pub(super) struct Mirrored<'a> {
    networks: HashMap<&'a str, &'a Network>,
    ports: HashMap<String, std::borrow::Cow<'a, Port>>,
    uuids: HashSet<&'a str>,
    counts: HashMap<&'a str, usize>,
}

impl<'a> Mirrored<'a> {
    pub(super) fn of(config: &'a Config) -> Mirrored<'a> {
        let networks = config.networks.iter().map(|it| (it.name.as_str(), it)).collect();
        let ports = config.all_ports().map(|port| (port.name.clone(), port)).collect();
        Mirrored { networks, ports, uuids: HashSet::new(), counts: HashMap::new() }
    }
}

impl Check {
    /// The keys of a `[[mirror]]`.
    pub(super) fn mirror<'a>(&mut self, mirror: &'a Mirror, known: &mut Mirrored<'a>) {
        if let Some(uuid) = &mirror.uuid {
            if !is_uuid(uuid) {
                self.problem("uuid", "is not a UUID", "remove it: it follows from the name");
            } else if !known.uuids.insert(uuid) {
                self.problem("uuid", "is another mirror's", "remove it from one of them");
            }
        }
        let Some(network) = self.network_of(mirror, known) else { return };
        let count = known.counts.entry(&network.name).or_default();
        *count += 1;
        if *count > MAX_MIRRORS {
            let message = format!("{} has more than {MAX_MIRRORS} mirrors", network.name);
            self.problem("network", message, "remove one of them");
        }
        self.output(mirror, known);
        let sources = mirror.select_src_port.iter().map(|name| ("select-src-port", name));
        let destinations = mirror.select_dst_port.iter().map(|name| ("select-dst-port", name));
        for (key, name) in sources.chain(destinations) {
            self.port_of_mirror(key, name, mirror, known);
            if mirror.output_port.as_ref() == Some(name) {
                let message = format!("{name} is the output, of which nothing is copied");
                self.problem(key, message, "remove it there, or give the mirror another output");
            }
        }
        if mirror.select_vlan.iter().any(|vlan| *vlan > 4095) {
            self.problem("select-vlan", "has a number that is no VLAN", "use 0 to 4095");
        }
        if mirror.snaplen != 0 && !SNAPLEN.contains(&mirror.snaplen) {
            let message = format!("{} is out of range", mirror.snaplen);
            self.problem("snaplen", message, "use 14 to 65535, or 0 for whole frames");
        }
        if !mirror.filter.is_empty()
            && let Err(mistake) = Filter::parse(&mirror.filter, &[])
        {
            let remedy = "docs/capture.md has the language of filters";
            self.problem("filter", mistake.to_string(), remedy);
        }
    }

    fn network_of<'a>(&mut self, mirror: &'a Mirror, known: &Mirrored<'a>) -> Option<&'a Network> {
        let Some(name) = &mirror.network else {
            self.problem("network", "is missing", "name the network whose frames it copies");
            return None;
        };
        let network = known.networks.get(name.as_str()).copied();
        match network {
            None => {
                let remedy = "add the network, or name another one";
                self.problem("network", format!("there is no network {name:?}"), remedy);
            }
            Some(Network { mode: Mode::Nat, .. }) => {
                let message = format!("in {name}, of mode nat, each port is alone");
                self.problem("network", message, "capture, or set its mode to nat-network");
            }
            Some(_) => {}
        }
        network
    }

    fn output(&mut self, mirror: &Mirror, known: &Mirrored<'_>) {
        match (&mirror.output_port, mirror.output_vlan) {
            (None, None) => {
                let remedy = "name the analyser's port, or set output-vlan";
                self.problem("output-port", "is missing", remedy);
            }
            (Some(_), Some(_)) => {
                let message = "stands beside output-port";
                self.problem("output-vlan", message, "remove one of them");
            }
            (None, Some(1..=4094)) => {}
            (None, Some(vlan)) => {
                self.problem("output-vlan", format!("{vlan} is out of range"), "use 1 to 4094");
            }
            (Some(name), None) => {
                self.port_of_mirror("output-port", name, mirror, known);
                if known.ports.get(name).is_some_and(|port| port.of_network) {
                    let message = format!("{name} joins the network to the host");
                    self.problem("output-port", message, "add a port for the analyser");
                }
            }
        }
    }

    fn port_of_mirror(
        &mut self,
        key: &'static str,
        name: &str,
        mirror: &Mirror,
        known: &Mirrored<'_>,
    ) {
        let network = mirror.network.as_deref().unwrap_or_default();
        let Some(port) = known.ports.get(name) else {
            let remedy = format!("add it to {network}, or remove it from mirror {}", mirror.name);
            return self.problem(key, format!("there is no port {name:?}"), remedy);
        };
        if !port.is_on(network) {
            let remedy = format!("add it to {network}, or remove it from mirror {}", mirror.name);
            self.problem(key, format!("port {name} is not on {network}"), remedy);
        }
        if port.is_ephemeral() {
            let message = format!("port {name} is in no file, so the file cannot name it");
            self.problem(key, message, "select by VLAN, or all");
        }
    }
}
