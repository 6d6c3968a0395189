//! What the daemon says of its networks and ports.

use std::collections::BTreeMap;

use ipnet::IpNet;
use trama_api::transaction::Output;
use trama_api::value::{Atom, Value, quoted};

/// The commands whose answers [`Switch::read`] reads.
pub(super) const QUESTIONS: [&[&str]; 5] = [
    &["version"],
    &["--columns=name,mode,mtu,subnet,uplink", "list", "Bridge"],
    &["--columns=name,network,tag,mac,cable", "list", "Port"],
    &["--columns=name,type,options,status,error", "list", "Interface"],
    &["show"],
];

/// Networks and ports.
#[derive(Clone, Default, Debug)]
pub(super) struct Switch {
    pub version: String,
    pub networks: Vec<Network>,
    pub ports: Vec<Port>,
}

/// A network.
#[derive(Clone, Default, Debug)]
pub(super) struct Network {
    pub name: String,
    pub mode: String,
    /// In bytes.
    pub mtu: u64,
    pub subnets: Vec<IpNet>,
    pub uplink: Option<String>,
    /// Why it does not run, or what of it does not.
    pub error: Option<String>,
}

/// A port and its interface.
#[derive(Clone, Default, Debug)]
pub(super) struct Port {
    pub name: String,
    pub network: Option<String>,
    pub tag: Option<i64>,
    pub mac: Option<String>,
    pub cable: bool,
    pub kind: String,
    pub options: BTreeMap<String, String>,
    pub status: BTreeMap<String, String>,
    pub error: Option<String>,
}

impl Switch {
    /// Reads the answers to [`QUESTIONS`]; `None` if the daemon is of another version.
    pub(super) fn read(answers: &[Output]) -> Option<Switch> {
        let [Output::Text { lines }, bridges, ports, interfaces, shown] = answers else {
            return None;
        };
        let Output::Text { lines: shown } = shown else { return None };
        let interfaces: BTreeMap<String, &[Value]> =
            rows(interfaces)?.map(|row| Some((text(row.first()?)?, row))).collect::<Option<_>>()?;
        let port = |row: &[Value]| {
            let [name, network, tag, mac, cable] = row else { return None };
            let name = text(name)?;
            let [_, kind, options, status, error] = interfaces.get(&name)? else { return None };
            Some(Port {
                name,
                network: text(network),
                tag: number(tag),
                mac: text(mac),
                cable: *cable == Value::One(Atom::Bool(true)),
                kind: text(kind).unwrap_or_default(),
                options: map(options),
                status: map(status),
                error: text(error),
            })
        };
        Some(Switch {
            version: lines.first()?.rsplit(' ').next()?.to_owned(),
            networks: rows(bridges)?.map(|row| network(row, shown)).collect::<Option<_>>()?,
            ports: rows(ports)?.map(port).collect::<Option<_>>()?,
        })
    }

    pub(super) fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// Returns the network of a port.
    pub(super) fn network_of(&self, port: &Port) -> Option<&Network> {
        self.network(port.network.as_deref()?)
    }

    /// Returns the names of trama's own interfaces on the host.
    pub(super) fn own_interfaces(&self) -> Vec<&str> {
        let host_only = self.networks.iter().filter(|network| network.mode == "host-only");
        let of_networks = host_only.map(|network| network.name.as_str());
        let taps = self.ports.iter().filter(|port| port.kind == "tap");
        of_networks.chain(taps.filter_map(|port| port.option("ifname"))).collect()
    }
}

impl Network {
    /// Returns whether it has a NAT.
    pub(super) fn has_nat(&self) -> bool {
        self.mode == "nat" || self.mode == "nat-network"
    }
}

impl Port {
    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    pub(super) fn state(&self, key: &str) -> Option<&str> {
        self.status.get(key).map(String::as_str)
    }

    /// Returns the socket on which the daemon listens for it.
    pub(super) fn socket(&self) -> Option<&str> {
        let listens = self.kind == "vhost-user" && self.option("role") != Some("client");
        self.state("path").filter(|_| listens)
    }
}

fn network(row: &[Value], shown: &[String]) -> Option<Network> {
    let [name, mode, mtu, subnet, uplink] = row else { return None };
    let name = text(name)?;
    Some(Network {
        error: error_of(&name, shown),
        name,
        mode: text(mode)?,
        mtu: number(mtu)?.try_into().ok()?,
        subnets: subnet.atoms().iter().filter_map(|atom| atom.bare().parse().ok()).collect(),
        uplink: text(uplink),
    })
}

/// The error of a network, which only the overview has.
pub(super) fn error_of(name: &str, shown: &[String]) -> Option<String> {
    let is_own = |line: &&String| line.trim_start() == format!("Bridge {}", quoted(name));
    let below = shown.iter().skip_while(|line| !is_own(line)).skip(1);
    let mut own = below.take_while(|line| line.starts_with("        "));
    let error = own.find_map(|line| line.strip_prefix("        error: "))?;
    serde_json::from_str(error).ok().or_else(|| Some(error.to_owned()))
}

fn rows(output: &Output) -> Option<impl Iterator<Item = &[Value]>> {
    match output {
        Output::Table { rows, .. } => Some(rows.iter().map(Vec::as_slice)),
        Output::Text { .. } => None,
    }
}

/// The text of a cell that holds one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::One(atom) => Some(atom.bare()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::One(Atom::Integer(number)) => Some(*number),
        _ => None,
    }
}

fn map(value: &Value) -> BTreeMap<String, String> {
    value.pairs().iter().map(|(key, atom)| (key.bare(), atom.bare())).collect()
}
