//! The forwards of networks, each with what its gateway says of it.

use std::net::IpAddr;

use trama_gateway::report::ForwardStatus;

use crate::config::derived::forward::forward_guest;
use crate::config::derived::running::written_name;
use crate::config::model::rule::Rule;
use crate::config::model::{Config, Network};
use crate::state::QueryError;

/// The status of a network's forwards, or the reason why its gateway does not answer.
pub(crate) type ForwardAnswer = Result<Vec<ForwardStatus>, QueryError>;

/// A forward, in the words of `tramactl forward list`.
pub(crate) struct Line {
    /// The network as it runs.
    pub network: String,
    pub name: String,
    pub protocol: &'static str,
    pub host: String,
    pub guest: String,
    /// As whom the guest sees clients.
    pub client: &'static str,
    pub status: String,
}

impl Line {
    /// Returns the line of a rule; `answer` is that of the network's gateway, if one was asked.
    pub(crate) fn of(network: &Network, rule: &Rule, answer: Option<&ForwardAnswer>) -> Line {
        let fault = match answer {
            None => Some("its gateway is not running".to_owned()),
            Some(Err(error)) => Some(error.to_string()),
            Some(Ok(rows)) => match rows.iter().find(|row| row.name == rule.label()) {
                None => Some("its gateway has not applied it yet".to_owned()),
                Some(row) => row.pending.clone(),
            },
        };
        Line {
            network: network.name.clone(),
            name: rule.label().to_owned(),
            protocol: rule.transport.name(),
            host: end(rule, rule.host, rule.host_port),
            guest: end(rule, forward_guest(rule, network), rule.guest_port),
            client: if rule.as_gateway { "as-gateway" } else { "as-itself" },
            status: fault.map_or("listening".to_owned(), |why| format!("pending: {why}")),
        }
    }
}

/// One end of a rule: an address and its ports.
fn end(rule: &Rule, address: Option<IpAddr>, first: u16) -> String {
    let ports = match rule.count {
        1 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(rule.count - 1)),
    };
    match address {
        Some(IpAddr::V6(address)) => format!("[{address}]:{ports}"),
        Some(address) => format!("{address}:{ports}"),
        None => format!("*:{ports}"),
    }
}

/// The networks that run, and those of mode `nat` that have no port and so do not run.
pub(crate) fn with_idle(config: &Config) -> Vec<Network> {
    let mut networks = config.expanded().networks;
    let runs = |name: &str| networks.iter().any(|it| written_name(&it.name) == name);
    let idle: Vec<_> = config.networks.iter().filter(|it| !runs(&it.name)).cloned().collect();
    networks.extend(idle);
    networks
}
