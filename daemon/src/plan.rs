//! Computes the smallest list of steps from the running to the wanted configuration.
//!
//! A pure function of two configurations: start-up plans from an empty one, `reload` and `tramactl`
//! from the one in force. A port or network that is the same on both sides appears in no step and
//! is not disturbed. A port whose device is the same keeps it, whatever else changes. The plan
//! compares what runs ([`Config::expanded`]): a port on a network of mode `nat` gets a network of
//! its own there, and a network's own port counts as any other. The order of tables has no meaning.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use crate::config::model::{Config, DaemonConfig, Interface, Mirror, Network, Port};

/// One step from the running configuration towards the wanted one.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A port and its device are removed.
    RemovePort {
        /// Its name.
        name: String,
    },
    /// A network is added.
    AddNetwork {
        /// As wanted.
        network: Network,
    },
    /// A network's settings change while its ports stay.
    SetNetwork {
        /// As wanted.
        network: Network,
        /// The keys that change.
        keys: Vec<&'static str>,
    },
    /// A port's settings change while its device stays.
    SetPort {
        /// As wanted.
        port: Port,
        /// The keys that change.
        keys: Vec<&'static str>,
    },
    /// A network is removed, after all its ports.
    RemoveNetwork {
        /// Its name.
        name: String,
    },
    /// A port and its device are added.
    AddPort {
        /// As wanted.
        port: Port,
    },
    /// The mirrors of a network change.
    SetMirrors {
        /// The network's name.
        network: String,
        /// All that it has, as wanted.
        mirrors: Vec<Mirror>,
    },
    /// `[daemon]` differs; the change takes effect at the next start.
    NeedsRestart {
        /// The keys that change.
        keys: Vec<&'static str>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemovePort { name } => write!(f, "remove port {name}"),
            Self::AddNetwork { network } => write!(f, "add network {}", network.name),
            Self::SetNetwork { network, keys } => {
                write!(f, "set network {}: {}", network.name, keys.join(", "))
            }
            Self::SetPort { port, keys } => {
                write!(f, "set port {}: {}", port.name, keys.join(", "))
            }
            Self::RemoveNetwork { name } => write!(f, "remove network {name}"),
            Self::AddPort { port } => write!(f, "add port {}", port.name),
            Self::SetMirrors { network, mirrors } => {
                let names: Vec<_> = mirrors.iter().map(|mirror| mirror.name.as_str()).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                write!(f, "set mirrors of network {network}: {names}")
            }
            Self::NeedsRestart { keys } => {
                write!(f, "restart needed for daemon.{}", keys.join(", daemon."))
            }
        }
    }
}

/// Returns the steps that lead from `running` to `wanted`, in order.
///
/// Removals come first, so that a socket or device can pass to another port. Ports leave a network
/// before it is removed, and networks are added before their ports.
pub fn plan(running: &Config, wanted: &Config) -> Vec<Step> {
    let (running, wanted) = (running.expanded(), wanted.expanded());
    let (running, wanted) = (&ByName::of(&running), &ByName::of(&wanted));
    let mut steps = removed_ports(running, wanted);
    steps.extend(networks(running, wanted));
    steps.extend(kept_ports(running, wanted));
    let gone = running.config.networks.iter().filter(|old| wanted.network(&old.name).is_none());
    steps.extend(gone.map(|old| Step::RemoveNetwork { name: old.name.clone() }));
    steps.extend(added_ports(running, wanted));
    steps.extend(mirrors(running, wanted));
    steps
}

/// Returns the step of a change of `[daemon]` from `before` to `wanted`, in a daemon that was
/// started with `in_force`; `None` if it needs no restart, such as a change back.
pub fn restart(
    in_force: &DaemonConfig,
    before: &DaemonConfig,
    wanted: &DaemonConfig,
) -> Option<Step> {
    let keys = daemon_keys(in_force, wanted);
    let changes = !keys.is_empty() && !daemon_keys(before, wanted).is_empty();
    changes.then_some(Step::NeedsRestart { keys })
}

/// Returns the steps that build `wanted` from nothing, in a daemon started with its settings.
pub fn plan_start(wanted: &Config) -> Vec<Step> {
    plan(&Config::default(), wanted)
}

/// A configuration as it runs, with what it has by name: each look-up takes the same time in a
/// configuration of any size.
struct ByName<'a> {
    config: &'a Config,
    networks: HashMap<&'a str, &'a Network>,
    /// The ports, in order.
    ports: Vec<Cow<'a, Port>>,
    /// Where in `ports` a port is.
    places: HashMap<String, usize>,
}

impl<'a> ByName<'a> {
    fn of(config: &'a Config) -> ByName<'a> {
        let named = config.networks.iter().map(|network| (network.name.as_str(), network));
        let ports: Vec<_> = config.all_ports().collect();
        let places = ports.iter().enumerate().map(|(place, port)| (port.name.clone(), place));
        ByName { config, networks: named.collect(), places: places.collect(), ports }
    }

    fn network(&self, name: &str) -> Option<&'a Network> {
        self.networks.get(name).copied()
    }

    fn port(&self, name: &str) -> Option<&Port> {
        self.places.get(name).map(|place| &*self.ports[*place])
    }
}

/// Returns a step for each port that is removed, or whose device must be made again.
fn removed_ports(running: &ByName<'_>, wanted: &ByName<'_>) -> Vec<Step> {
    let stays = |old: &Port| wanted.port(&old.name).is_some_and(|new| same_device(old, new));
    let goes = running.ports.iter().filter(|old| !stays(old));
    goes.map(|old| Step::RemovePort { name: old.name.clone() }).collect()
}

/// Returns a step for each port that is added, or whose device must be made again.
fn added_ports(running: &ByName<'_>, wanted: &ByName<'_>) -> Vec<Step> {
    let is_there = |new: &Port| running.port(&new.name).is_some_and(|old| same_device(old, new));
    let comes = wanted.ports.iter().filter(|new| !is_there(new));
    comes.map(|port| Step::AddPort { port: Port::clone(port) }).collect()
}

/// Returns whether the device can stay when `old` becomes `new`.
fn same_device(old: &Port, new: &Port) -> bool {
    (old.of_network, &old.connection_of) == (new.of_network, &new.connection_of)
        && match (&old.interface, &new.interface) {
            // How many connections a stream may have changes nothing for those that it has.
            (Interface::Stream(old), Interface::Stream(new)) => {
                (&old.place, old.role) == (&new.place, new.role)
            }
            (old, new) => old == new,
        }
}

/// Returns a step for each network that is added or changes.
fn networks(running: &ByName<'_>, wanted: &ByName<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for network in &wanted.config.networks {
        let step = match running.network(&network.name) {
            None => Step::AddNetwork { network: network.clone() },
            Some(old) => {
                let keys = network_keys(old, network);
                if keys.is_empty() {
                    continue;
                }
                Step::SetNetwork { network: network.clone(), keys }
            }
        };
        steps.push(step);
    }
    steps
}

/// Returns a step for each port that changes and keeps its device.
fn kept_ports(running: &ByName<'_>, wanted: &ByName<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for port in &wanted.ports {
        let Some(old) = running.port(&port.name) else { continue };
        let keys = port_keys(old, port);
        if same_device(old, port) && !keys.is_empty() {
            steps.push(Step::SetPort { port: Port::clone(port), keys });
        }
    }
    steps
}

/// Returns a step for each network whose mirrors change.
fn mirrors(running: &ByName<'_>, wanted: &ByName<'_>) -> Vec<Step> {
    let of = |config: &Config, network: &str| -> Vec<Mirror> {
        let all = config.mirrors.iter();
        all.filter(|mirror| mirror.network.as_deref() == Some(network)).cloned().collect()
    };
    let all = running.config.mirrors.iter().chain(&wanted.config.mirrors);
    let names: BTreeSet<&str> = all.filter_map(|mirror| mirror.network.as_deref()).collect();
    let there = names.into_iter().filter(|name| wanted.network(name).is_some());
    let changed = there.filter_map(|name| {
        let mirrors = of(wanted.config, name);
        let known = running.network(name).map(|_| of(running.config, name)).unwrap_or_default();
        (mirrors != known).then(|| Step::SetMirrors { network: name.to_owned(), mirrors })
    });
    changed.collect()
}

/// Returns the keys that are marked as different.
fn differing(pairs: &[(&'static str, bool)]) -> Vec<&'static str> {
    pairs.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
}

/// Returns the keys of `[daemon]` that differ and need a restart. Defaults for ports do not: they
/// count as the ports' own settings.
pub fn daemon_keys(a: &DaemonConfig, b: &DaemonConfig) -> Vec<&'static str> {
    differing(&[
        ("control", a.control != b.control),
        ("group", a.group != b.group),
        ("state", a.state != b.state),
        ("metrics", a.metrics != b.metrics),
        ("workers", a.workers != b.workers),
        ("spin", a.spin != b.spin),
        ("sandbox", a.sandbox != b.sandbox),
    ])
}

fn network_keys(a: &Network, b: &Network) -> Vec<&'static str> {
    differing(&[
        ("mode", a.mode != b.mode),
        ("subnet", a.subnet != b.subnet),
        ("uplink", a.uplink != b.uplink),
        ("mtu", a.mtu != b.mtu),
        ("mac-table-size", a.mac_table_size != b.mac_table_size),
        ("mac-aging", a.mac_aging != b.mac_aging),
        ("hosts", a.hosts != b.hosts),
        ("tftp", a.tftp != b.tftp),
        ("dhcp", a.dhcp != b.dhcp),
        ("forward", a.forward != b.forward),
        ("loopback", a.loopback != b.loopback),
        ("reflect", a.reflect != b.reflect),
        ("sflow", a.sflow != b.sflow),
        ("ipfix", a.ipfix != b.ipfix),
        ("log-dns", a.log_dns != b.log_dns),
        ("events", a.tells_events != b.tells_events),
        ("guests", a.guests != b.guests),
        ("external-ids", a.external_ids != b.external_ids),
        ("openvswitch", a.openvswitch != b.openvswitch),
    ])
}

fn port_keys(a: &Port, b: &Port) -> Vec<&'static str> {
    differing(&[
        ("network", a.network != b.network),
        ("tag", a.vlan.tag != b.vlan.tag),
        ("trunks", a.vlan.trunks != b.vlan.trunks),
        ("vlan-mode", a.vlan.mode != b.vlan.mode),
        ("cable", a.cable != b.cable),
        ("promiscuous", a.promiscuous != b.promiscuous),
        ("mac", a.mac != b.mac),
        ("addresses", a.addresses != b.addresses),
        ("names", a.names != b.names),
        ("spoof", a.spoof != b.spoof),
        ("storm-broadcast", a.storm.broadcast != b.storm.broadcast),
        ("storm-multicast", a.storm.multicast != b.storm.multicast),
        ("storm-unknown", a.storm.unknown != b.storm.unknown),
        ("loop", a.loop_mode != b.loop_mode),
        ("socket-owner", a.socket.owner != b.socket.owner),
        ("socket-group", a.socket.group != b.socket.group),
        ("socket-mode", a.socket.mode != b.socket.mode),
        ("connections", connections(a) != connections(b)),
        ("memory-max", a.memory.max != b.memory.max),
        ("memory-populate", a.memory.populate != b.memory.populate),
        ("ephemeral", a.ephemeral != b.ephemeral),
        ("external-ids", a.external_ids != b.external_ids),
        ("openvswitch", a.openvswitch != b.openvswitch),
        ("openvswitch-interface", a.openvswitch_interface != b.openvswitch_interface),
    ])
}

/// Returns how many connections a stream port may have.
fn connections(port: &Port) -> Option<u16> {
    match &port.interface {
        Interface::Stream(device) => Some(device.connections),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Interface;
    use crate::config::model::socket::SocketMode;
    use crate::config::tests::arbitrary;

    /// The running networks and ports, as plain values; every step checks that it is allowed.
    #[derive(Debug, Default, PartialEq)]
    struct Model {
        networks: BTreeMap<String, Network>,
        ports: BTreeMap<String, Port>,
        mirrors: BTreeMap<String, Vec<Mirror>>,
    }

    impl Model {
        fn of(config: &Config) -> Self {
            let config = config.expanded();
            let mut mirrors = BTreeMap::<String, Vec<Mirror>>::new();
            for mirror in config.mirrors.clone() {
                mirrors.entry(mirror.network.clone().unwrap()).or_default().push(mirror);
            }
            Self {
                mirrors,
                networks: config.networks.iter().map(|n| (n.name.clone(), n.clone())).collect(),
                ports: config.all_ports().map(|p| (p.name.clone(), p.into_owned())).collect(),
            }
        }

        fn take(&mut self, step: &Step) {
            match step.clone() {
                Step::RemovePort { name } => assert!(self.ports.remove(&name).is_some()),
                Step::AddNetwork { network } => {
                    assert!(self.networks.insert(network.name.clone(), network).is_none());
                }
                Step::SetNetwork { network, keys } => {
                    assert!(!keys.is_empty());
                    let old = self.networks.insert(network.name.clone(), network.clone());
                    assert!(old.is_some_and(|old| old != network));
                }
                Step::SetPort { port, keys } => {
                    assert!(!keys.is_empty());
                    self.check_network(&port);
                    let old = self.ports.insert(port.name.clone(), port.clone()).unwrap();
                    assert!(same_device(&old, &port), "a device is never made anew live");
                    assert_ne!(old, port);
                }
                Step::RemoveNetwork { name } => {
                    assert!(self.networks.remove(&name).is_some());
                    assert!(self.ports.values().all(|port| port.network != Some(name.clone())));
                    self.mirrors.remove(&name);
                }
                Step::AddPort { port } => {
                    self.check_network(&port);
                    let free = self.ports.values().all(|other| clash(other, &port).is_none());
                    assert!(free, "its socket or device is still in use");
                    assert!(self.ports.insert(port.name.clone(), port).is_none());
                }
                Step::SetMirrors { network, mirrors } => {
                    let ports = mirrors.iter().filter_map(|mirror| mirror.output_port.as_ref());
                    assert!(ports.into_iter().all(|port| self.ports[port].is_on(&network)));
                    let old = self.mirrors.remove(&network).unwrap_or_default();
                    assert_ne!(old, mirrors);
                    if !mirrors.is_empty() {
                        self.mirrors.insert(network, mirrors);
                    }
                }
                Step::NeedsRestart { keys } => assert!(!keys.is_empty()),
            }
        }

        fn check_network(&self, port: &Port) {
            assert!(port.network.as_ref().is_none_or(|name| self.networks.contains_key(name)));
        }
    }

    fn clash<'a>(a: &'a Port, b: &Port) -> Option<&'a str> {
        (a.interface == b.interface).then_some(a.name.as_str())
    }

    proptest! {
        #[test]
        fn the_plan_leads_to_what_is_wanted(a in arbitrary::config(), b in arbitrary::config()) {
            let mut model = Model::of(&a);
            let steps = plan(&a, &b);
            steps.iter().for_each(|step| model.take(step));
            prop_assert_eq!(model, Model::of(&b));
            let (a, b) = (a.expanded(), b.expanded());
            for port in a.all_ports().filter(|port| b.all_ports().any(|other| other == *port)) {
                let named = |step: &Step| match step {
                    Step::RemovePort { name } => *name == port.name,
                    Step::SetPort { port: other, .. } | Step::AddPort { port: other } => {
                        other.name == port.name
                    }
                    _ => false,
                };
                prop_assert!(!steps.iter().any(named), "{} is the same on both sides", port.name);
            }
        }

        #[test]
        fn what_runs_already_needs_no_steps(a in arbitrary::config()) {
            let mut turned = a.clone();
            turned.ports.reverse();
            turned.networks.reverse();
            prop_assert_eq!(plan(&a, &turned), vec![]);
        }
    }

    #[test]
    fn the_smallest_list_of_steps() {
        let text = "[[network]]\nname = \"a\"\n[[port]]\nname = \"t\"\ntype = \"tap\"\n";
        let from = crate::config::parse(text, "").unwrap();
        let shown = |edit: fn(&mut Config)| {
            let mut to = from.clone();
            edit(&mut to);
            let steps: Vec<String> = plan(&from, &to).iter().map(ToString::to_string).collect();
            steps.join(" / ")
        };
        assert_eq!(shown(|c| c.ports[0].cable = false), "set port t: cable");
        assert_eq!(shown(|c| c.ports[0].vlan.tag = Some(3)), "set port t: tag");
        assert_eq!(
            shown(|c| {
                c.networks[0].name = "b".into();
                c.ports[0].network = Some("b".into());
            }),
            "add network b / set port t: network / remove network a"
        );
        assert_eq!(
            shown(|c| match &mut c.ports[0].interface {
                Interface::Tap(tap) => tap.ifname = "u".into(),
                _ => unreachable!("it is a tap"),
            }),
            "remove port t / add port t"
        );
        assert_eq!(shown(|c| c.daemon.workers = 2), "");
        assert_eq!(shown(|c| c.daemon.socket_mode = Some(SocketMode(0o666))), "");
    }

    #[test]
    fn a_restart_is_needed_for_what_differs_from_the_start() {
        let start = DaemonConfig::default();
        let other = DaemonConfig { workers: start.workers + 1, ..start.clone() };
        let both = DaemonConfig { group: Some("kvm".into()), ..other.clone() };
        let shown = |before: &DaemonConfig, wanted: &DaemonConfig| {
            restart(&start, before, wanted).map(|step| step.to_string()).unwrap_or_default()
        };
        assert_eq!(shown(&start, &other), "restart needed for daemon.workers");
        assert_eq!(shown(&other, &both), "restart needed for daemon.group, daemon.workers");
        assert_eq!(shown(&both, &both), "", "it was said");
        assert_eq!(shown(&both, &start), "", "it is in force");
        let mode = DaemonConfig { socket_mode: Some(SocketMode(0o666)), ..start.clone() };
        assert_eq!(shown(&start, &mode), "");
    }

    #[test]
    fn a_sockets_owner_changes_while_it_stays() {
        let text = "[[port]]\nname = \"a\"\ntype = \"vhost-user\"\n\
                    [[port]]\nname = \"b\"\ntype = \"vhost-user\"\nsocket-group = \"kvm\"\n\
                    socket-mode = \"0620\"\n\
                    [[port]]\nname = \"c\"\ntype = \"vhost-user\"\nrole = \"client\"\n";
        let from = crate::config::parse(text, "").unwrap();
        let shown = |edit: fn(&mut Config)| {
            let mut to = from.clone();
            edit(&mut to);
            let steps: Vec<String> = plan(&from, &to).iter().map(ToString::to_string).collect();
            steps.join(" / ")
        };
        assert_eq!(
            shown(|c| c.ports[0].socket.owner = Some("x".into())),
            "set port a: socket-owner"
        );
        assert_eq!(
            shown(|c| c.ports[2].memory.populate = Some(64 << 20)),
            "set port c: memory-populate"
        );
        // A named group may connect; a client makes no socket.
        assert_eq!(
            shown(|c| c.daemon.socket_group = Some("kvm".into())),
            "set port a: socket-group, socket-mode"
        );
        assert_eq!(
            shown(|c| c.daemon.socket_mode = Some(SocketMode(0o666))),
            "set port a: socket-mode"
        );
    }
}
