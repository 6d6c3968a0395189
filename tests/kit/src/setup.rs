//! Networks and settings of ports.

use std::time::Duration;

use trama_frame::VlanId;
use trama_switch::watch::{ReasonSet, Watch, Ways, Writer};
use trama_switch::{
    Engine, HdrLen, NetworkId, NetworkSettings, PortId, PortSettings, VlanMode, VlanSet,
};

/// Adds a network whose MAC table has room for 8192 addresses.
pub fn network(engine: &mut Engine, mtu: u16) -> NetworkId {
    engine.add_network(NetworkSettings {
        name: "lab".into(),
        mtu,
        mac_table_size: 8192,
        mac_aging: Duration::from_secs(300),
    })
}

/// Returns the ID of a VLAN.
///
/// # Panics
/// `vlan` is not the ID of a VLAN.
pub fn vid(vlan: u16) -> VlanId {
    VlanId::new(vlan).unwrap()
}

/// Returns the mode of an access port.
pub fn access(vlan: u16) -> VlanMode {
    VlanMode::Access { tag: vid(vlan) }
}

/// Returns the mode of a trunk of all VLANs.
pub fn trunk() -> VlanMode {
    VlanMode::Trunk { trunks: VlanSet::all() }
}

/// Returns the settings of a port whose other features are off.
pub fn port(network: NetworkId, vlan: VlanMode) -> PortSettings {
    PortSettings {
        name: "port".into(),
        network: Some(network),
        vlan,
        cable: true,
        filter: Default::default(),
        mark: 0,
        hdr_len: HdrLen::Headers,
    }
}

/// A watch of all that passes these ports, or is dropped there.
pub fn watch_of(ports: Vec<PortId>, queue: Writer) -> Watch {
    Watch {
        ports,
        frames: Ways::BOTH,
        dropped: Ways::BOTH,
        drops: ReasonSet::ALL,
        snaplen: 65_535,
        filter: None,
        sampling: None,
        queue,
    }
}
