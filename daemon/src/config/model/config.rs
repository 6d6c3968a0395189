//! The configuration as a whole.

use super::daemon::DaemonConfig;
use super::mirror::Mirror;
use super::network::Network;
use super::openvswitch::Record;
use super::port::Port;

/// The whole configuration. Names are unique per kind; order is that of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The `[daemon]` table.
    pub daemon: DaemonConfig,
    /// The `[[network]]` tables.
    pub networks: Vec<Network>,
    /// The `[[port]]` tables.
    pub ports: Vec<Port>,
    /// The `[[mirror]]` tables.
    pub mirrors: Vec<Mirror>,
    /// The `[[openvswitch]]` tables.
    pub records: Vec<Record>,
}

impl Config {
    /// The network of this name.
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// The ports that are ephemeral by their own setting, and so go on with the next switch.
    pub fn ephemeral(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|port| port.ephemeral && !port.is_connection())
    }

    /// The port of this name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }
}
