//! `[network.dhcp]`: the addresses and options that a network's DHCP server hands out.

use trama_dhcp::config::Service;

/// The key `dhcp` of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DhcpSetting {
    /// The key is absent: the mode decides.
    #[default]
    ByMode,
    /// `false`.
    Off,
    /// `true`, or a table: what it states. [`Network::dhcp`](super::Network::dhcp) fills in the
    /// defaults that depend on the network.
    On(Box<Service>),
}
