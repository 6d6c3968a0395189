//! Random valid configurations for property tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::model::{
    Config, DaemonConfig, Interface, Network, Port, Role, Spin, Tap, VhostUser, Vlan, VlanMode,
};

/// A configuration that [`validate`](super::validate) finds nothing wrong with. Names come from
/// a small pool, so that two configurations have many in common.
pub fn config() -> impl Strategy<Value = Config> {
    (daemon(), networks()).prop_flat_map(|(daemon, networks)| {
        let names: Vec<String> = networks.iter().map(|network| network.name.clone()).collect();
        (Just(daemon), Just(networks), ports(names)).prop_map(|(daemon, networks, ports)| Config {
            daemon,
            networks,
            ports,
        })
    })
}

fn daemon() -> impl Strategy<Value = DaemonConfig> {
    let spin = prop_oneof![
        Just(Spin::Always),
        (0u64..1000).prop_map(|us| Spin::For(Duration::from_micros(us)))
    ];
    let metrics = proptest::option::of((1u16..).prop_map(|port| ([127, 0, 0, 1], port).into()));
    (1usize..4, spin, metrics).prop_map(|(workers, spin, metrics)| DaemonConfig {
        workers,
        spin,
        metrics,
        ..DaemonConfig::default()
    })
}

/// Values need quoting of every kind, but hold no line ends: the tests look at whole lines.
fn ids() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-c\"= ]{1,2}", "[a-z\\\\\"'# ]{0,6}", 0..3)
}

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let settings = (68u16..9000, 16usize..100_000, 1u64..86_400, ids());
    btree_map("n[0-4]", settings, 0..5).prop_map(|map| {
        let network = |(name, (mtu, size, aging, ids)): (String, (u16, usize, u64, _))| Network {
            // Some have a gateway, each with a range of its own.
            subnet: match mtu % 3 {
                0 => Vec::new(),
                kinds => {
                    let number = name.as_bytes()[1];
                    let v4 = (IpAddr::from([10, 7, number, 0]), 24);
                    let v6 = ([0xfd00, 0, 0, number.into(), 0, 0, 0, 0].into(), 64);
                    [v4, v6][..usize::from(kinds)].to_vec()
                }
            },
            mtu,
            hosts: if mtu % 3 == 2 {
                [("web".into(), [10, 7, 0, 1].into())].into()
            } else {
                [].into()
            },
            tftp: (mtu % 3 == 1).then(|| "/srv/tftp".into()),
            mac_table_size: size,
            mac_aging: Duration::from_secs(aging),
            external_ids: ids,
            ..Network::new(name)
        };
        map.into_iter().map(network).collect()
    })
}

fn ports(networks: Vec<String>) -> impl Strategy<Value = Vec<Port>> {
    let network = proptest::option::of(0..networks.len().max(1))
        .prop_map(move |index| index.and_then(|index| networks.get(index).cloned()));
    let settings = (network, vlan(), any::<bool>(), 0u8..4, 1u16..5, 0u8..3, ids());
    btree_map("p[0-7]", settings, 0..8).prop_map(|map| {
        let port =
            |(name, (network, vlan, cable, kind, queues, addresses, ids)): (String, _)| Port {
                network,
                vlan,
                cable,
                interface: interface(&name, kind, queues, addresses),
                external_ids: ids,
                name,
            };
        map.into_iter().map(port).collect()
    })
}

fn interface(name: &str, kind: u8, queues: u16, addresses: u8) -> Interface {
    if kind < 2 {
        let role = if kind == 0 { Role::Server } else { Role::Client };
        let path = format!("/run/trama/{name}-{queues}.sock").into();
        return Interface::VhostUser(VhostUser { path, role, queues });
    }
    let address = |host| (IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 24);
    Interface::Tap(Tap {
        ifname: format!("{name}-{queues}"),
        netns: (kind == 3).then(|| "h1".to_owned()),
        address: (0..addresses).map(address).collect(),
    })
}

fn vlan() -> impl Strategy<Value = Vlan> {
    let modes = prop_oneof![
        Just(None),
        Just(Some(VlanMode::Access)),
        Just(Some(VlanMode::Trunk)),
        Just(Some(VlanMode::NativeTagged)),
        Just(Some(VlanMode::NativeUntagged)),
    ];
    (modes, 0u16..4096, any::<bool>(), btree_set(0u16..4096, 0..4)).prop_map(
        |(mode, tag, tagged, trunks)| {
            let tagged = match mode {
                None => tagged,
                Some(mode) => mode != VlanMode::Trunk,
            };
            let mut vlan = Vlan { tag: tagged.then_some(tag), trunks: Vec::new(), mode };
            if vlan.mode_or_default() != VlanMode::Access {
                vlan.trunks = trunks.into_iter().collect();
            }
            vlan
        },
    )
}
