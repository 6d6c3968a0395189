//! Configuration values as the data plane's own types.

use std::time::Duration;

use trama_frame::VlanId;
use trama_switch as switch;
use trama_vhost_net_backend as vhost;

use crate::config::model::{Network, Port, Role, Spin, Vlan, VlanMode};

pub fn spin(spin: Spin) -> switch::Spin {
    match spin {
        Spin::Always => switch::Spin::Always,
        Spin::For(Duration::ZERO) => switch::Spin::Never,
        Spin::For(time) => switch::Spin::For(time),
    }
}

pub fn role(role: Role) -> vhost::Role {
    match role {
        Role::Server => vhost::Role::Server,
        Role::Client => vhost::Role::Client,
    }
}

pub fn network(network: &Network) -> switch::NetworkSettings {
    switch::NetworkSettings {
        name: network.name.clone(),
        mtu: network.mtu,
        mac_table_size: network.mac_table_size,
        mac_aging: network.mac_aging,
    }
}

pub fn port(port: &Port, network: Option<switch::NetworkId>) -> switch::PortSettings {
    switch::PortSettings {
        name: port.name.clone(),
        network,
        vlan: vlan(&port.vlan),
        cable: port.cable,
    }
}

pub fn vlan(vlan: &Vlan) -> switch::VlanMode {
    // Validation lets no other value through; "none" is where Open vSwitch puts them, too.
    let id = |vlan: u16| VlanId::new(vlan).unwrap_or(VlanId::NONE);
    let tag = id(vlan.tag.unwrap_or(0));
    let trunks = || match vlan.trunks.as_slice() {
        [] => switch::VlanSet::all(),
        some => some.iter().map(|vlan| id(*vlan)).collect(),
    };
    match vlan.mode_or_default() {
        VlanMode::Access => switch::VlanMode::Access { tag },
        VlanMode::Trunk => switch::VlanMode::Trunk { trunks: trunks() },
        VlanMode::NativeTagged => switch::VlanMode::NativeTagged { tag, trunks: trunks() },
        VlanMode::NativeUntagged => switch::VlanMode::NativeUntagged { tag, trunks: trunks() },
    }
}
