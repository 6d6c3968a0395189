//! The ports that networks create: the host's interface of a host-only network, the uplink of a
//! bridged one.

use std::borrow::Cow;

use ipnet::IpNet;

use super::subnet;
use crate::config::model::{Config, Interface, Mode, Network, Port, Tap, Uplink};

impl Config {
    /// The ports of the file, followed by those that networks create.
    pub fn all_ports(&self) -> impl Iterator<Item = Cow<'_, Port>> {
        let own = self.networks.iter().filter_map(Network::network_port);
        self.ports.iter().map(Cow::Borrowed).chain(own.map(Cow::Owned))
    }
}

impl Network {
    /// Whether the network creates a port, for the host's interface or the uplink.
    pub fn has_own_port(&self) -> bool {
        matches!(self.mode, Mode::HostOnly | Mode::Bridged)
    }

    /// The port that the network creates; it has the network's name.
    pub fn network_port(&self) -> Option<Port> {
        let interface = match self.mode {
            Mode::Internal | Mode::Nat | Mode::NatNetwork => return None,
            Mode::HostOnly => {
                let first = |subnet: IpNet| {
                    IpNet::new(subnet::first_host(subnet), subnet.prefix_len()).unwrap_or(subnet)
                };
                let address = self.subnets().into_iter().map(first).collect();
                Interface::Tap(Tap { ifname: self.name.clone(), netns: None, address })
            }
            Mode::Bridged => Interface::Uplink(Uplink { ifname: self.uplink.clone()? }),
        };
        Some(Port {
            network: Some(self.name.clone()),
            of_network: true,
            ..Port::new(&self.name, interface)
        })
    }
}
