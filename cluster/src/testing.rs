//! What this crate's tests share: names, and any keys and rows.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use trama_frame::vxlan::Vni;
use trama_frame::{MacAddr, VlanId};

use crate::Name;
use crate::key::{Key, Scope, StationKey};
use crate::row::{Host, Member, Port, Station};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn any_name() -> impl Strategy<Value = Name> {
    "[a-zA-Z0-9_.:@+][-a-zA-Z0-9_.:@+]{0,62}".prop_map(|text| name(&text))
}

fn any_vni() -> impl Strategy<Value = Vni> {
    (0..=Vni::MAX).prop_map(|number| Vni::new(number).unwrap())
}

fn any_station_key() -> impl Strategy<Value = StationKey> {
    let vlan = (0..4095_u16).prop_map(|id| VlanId::new(id).unwrap_or(VlanId::NONE));
    (vlan, any::<[u8; 6]>()).prop_map(|(vlan, mac)| StationKey { vlan, mac: MacAddr(mac) })
}

pub(crate) fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(Key::Meta),
        any_name().prop_map(Key::Host),
        any_name().prop_map(Key::Live),
        any_name().prop_map(Key::Net),
        any_vni().prop_map(Key::Vni),
        any_name().prop_map(Key::Port),
        (any_vni(), any_name()).prop_map(|(vni, host)| Key::Member(vni, host)),
        (any_vni(), any::<Ipv4Addr>()).prop_map(|(vni, first)| Key::Block(vni, first)),
        (any_vni(), any_station_key()).prop_map(|(vni, station)| Key::Station(vni, station)),
    ]
}

pub(crate) fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        any_name().prop_map(Scope::Host),
        any_name().prop_map(Scope::Net),
        any_name().prop_map(Scope::Port),
        any_vni().prop_map(Scope::Network),
    ]
}

fn any_vteps() -> impl Strategy<Value = Vec<IpAddr>> {
    prop::collection::vec(any::<IpAddr>(), 1..=4)
}

pub(crate) fn any_host() -> impl Strategy<Value = Host> {
    (any_vteps(), "[0-9a-f]{0,32}", any::<u64>()).prop_map(|(vtep, boot, epoch)| Host {
        vtep,
        boot,
        epoch,
    })
}

pub(crate) fn any_member() -> impl Strategy<Value = Member> {
    (any_vteps(), any::<u16>(), any::<u64>(), any::<bool>())
        .prop_map(|(vtep, port, epoch, unknown)| Member { vtep, port, epoch, unknown })
}

pub(crate) fn any_port() -> impl Strategy<Value = Port> {
    (any_name(), any_name(), any::<u32>(), any::<u64>(), prop::option::of(any_name()))
        .prop_map(|(host, network, seq, epoch, to)| Port { host, network, seq, epoch, to })
}

pub(crate) fn any_station() -> impl Strategy<Value = Station> {
    (any_name(), prop::option::of(any_name()), any::<u32>(), any::<bool>())
        .prop_map(|(host, port, seq, sticky)| Station { host, port, seq, sticky })
}
