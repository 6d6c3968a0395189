//! Random valid configurations for property tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use trama_dhcp::config::{
    Boot, BootFile, ClientMatch, Clients, Identity, LeaseTimes, Limits, Reservation, Service,
    Settings,
};
use trama_dhcp::prefix::Route;
use trama_frame::MacAddr;
use trama_gateway::{Discovery, Transport};

use crate::config::derived::subnet;
use crate::config::model::dhcp::DhcpSetting;
use crate::config::model::export::{Ipfix, Sflow};
use crate::config::model::openvswitch::{Kept, Record, RecordTable};
use crate::config::model::rule::Rule;
use crate::config::model::socket::{SocketAccess, SocketMode};
use crate::config::model::tunnel::Vxlan;
use crate::config::model::wire::{Dgram, Place, Stream};
use crate::config::model::{
    Config, DaemonConfig, Interface, LoopMode, MemoryLimits, Mirror, Mode, Network, Port, Role,
    Sandbox, Spin, StormLimits, Tap, VhostUser, Vlan, VlanModeName,
};

/// A configuration in which [`validate`](crate::config::validate) finds no problem. Names come from
/// a small pool, so that two configurations have many in common.
pub(crate) fn config() -> impl Strategy<Value = Config> {
    (daemon(), networks()).prop_flat_map(|(daemon, networks)| {
        let on = networks.clone();
        (Just(daemon), Just(networks), ports(on)).prop_map(|(daemon, networks, ports)| Config {
            records: records(ports.len()),
            mirrors: mirrors(&networks, &ports),
            daemon,
            networks,
            ports,
        })
    })
}

/// A mirror on each network that can have one, but for some.
fn mirrors(networks: &[Network], ports: &[Port]) -> Vec<Mirror> {
    let mirror = |network: &Network| {
        let on: Vec<&Port> = ports.iter().filter(|port| port.is_on(&network.name)).collect();
        let (output, rest) = on.split_first()?;
        let number = ports.len();
        let sources = rest.iter().take(number % 3).map(|port| port.name.clone()).collect();
        Some(Mirror {
            name: network.name.clone(),
            network: Some(network.name.clone()),
            select_all: number.is_multiple_of(2),
            select_src_port: sources,
            select_vlan: [number as u16; 1].into_iter().take(number % 2).collect(),
            output_port: (number % 4 != 3).then(|| output.name.clone()),
            output_vlan: (number % 4 == 3).then_some(number as u16),
            snaplen: 64 * (number as u16 % 3),
            filter: ["", "tcp port 80"][number % 2].to_owned(),
            ..Mirror::default()
        })
    };
    let shared = networks.iter().filter(|network| network.mode != Mode::Nat);
    shared.filter_map(mirror).collect()
}

/// A queue and a QoS that refers to it, or one of them, or none.
fn records(number: usize) -> Vec<Record> {
    let uuid = |last: usize| format!("5c458bc8-24e8-4a91-aebb-6870216ac44{last}");
    let queue = Record { name: uuid(1), table: RecordTable::Queue, columns: kept(&["dscp=3"], 1) };
    let queues = format!("queues={{0={}}}", uuid(1));
    let columns = kept(&["type=linux-htb", &queues], number);
    let qos = Record { name: uuid(2), table: RecordTable::Qos, columns };
    [queue, qos].into_iter().take(number % 3).collect()
}

fn daemon() -> impl Strategy<Value = DaemonConfig> {
    let spin = prop_oneof![
        Just(Spin::Always),
        (0u64..1000).prop_map(|us| Spin::from(Duration::from_micros(us)))
    ];
    let metrics = proptest::option::of((1u16..).prop_map(|port| ([127, 0, 0, 1], port).into()));
    let sandbox = proptest::sample::select(vec![Sandbox::Enforce, Sandbox::Log, Sandbox::Off]);
    let ring = proptest::option::of(64usize << 10..=1 << 30);
    let web = proptest::sample::select(vec!["127.0.0.1:1", "[::1]:65535", "unix:/a b\"c"]);
    let hosts = proptest::collection::vec("[a-z]{1,9}", 0..3);
    let web = (proptest::option::of(web), any::<bool>(), hosts);
    (1usize..4, spin, metrics, access(), sandbox, ring, web).prop_map(
        |(workers, spin, metrics, access, sandbox, capture_ring, (web, web_write, web_hosts))| {
            DaemonConfig {
                web: web.and_then(|text| text.parse().ok()),
                web_write,
                web_hosts,
                workers,
                spin,
                metrics,
                group: access.owner,
                socket_group: access.group,
                socket_mode: access.mode,
                sandbox,
                capture_ring,
                openvswitch: kept(&["external_ids={system-id=x}"], workers),
                ..DaemonConfig::default()
            }
        },
    )
}

fn access() -> impl Strategy<Value = SocketAccess> {
    let name = || proptest::option::of(proptest::sample::select(vec!["kvm", "4242", "a b\"c"]));
    let mode = proptest::option::of(proptest::sample::select(vec![0o600, 0o660, 0o666]));
    (name(), name(), mode).prop_map(|(owner, group, mode)| SocketAccess {
        owner: owner.map(str::to_owned),
        group: group.map(str::to_owned),
        mode: mode.map(SocketMode),
    })
}

/// Values need quoting of every kind, but have no line endings: the tests look at whole lines.
fn ids() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-c\"= ]{1,2}", "[a-z\\\\\"'# ]{0,6}", 0..3)
}

/// Some of the columns, as `number` decides.
fn kept(columns: &[&str], number: usize) -> Kept {
    let columns = columns.iter().filter_map(|column| column.split_once('='));
    let numbered = columns.enumerate().filter(|(bit, _)| number >> bit & 1 == 1);
    numbered.map(|(_, (name, value))| (name.to_owned(), value.to_owned())).collect()
}

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let settings = (68u16..9000, 16usize..100_000, 1u64..86_400, ids());
    let settings = (settings, mode());
    btree_map("n[0-4]", settings, 0..5).prop_map(|map| {
        let network =
            |(number, (name, ((mtu, size, aging, ids), mode))): (usize, (String, _))| Network {
                mode,
                subnet: subnets(mode, number, mtu),
                uplink: (mode == Mode::Bridged).then(|| format!("eth{number}")),
                mtu,
                mac_table_size: size,
                mac_aging: Duration::from_secs(aging),
                openvswitch: kept(&["fail_mode=secure", "protocols=[OpenFlow13]"], size),
                external_ids: ids,
                ..Network::new(name)
            };
        (0..)
            .zip(map)
            .map(|(number, named)| with_services(number, network((number.into(), named))))
            .collect()
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    proptest::sample::select(Mode::ALL.to_vec())
}

/// Subnets of the network with this number; `any` decides how many an internal network has, from
/// none to two.
fn subnets(mode: Mode, number: usize, any: u16) -> Vec<IpNet> {
    let number = number as u8;
    let v4 = Ipv4Net::new_assert([10, 1, number, 0].into(), 24).into();
    let v6 = Ipv6Net::new_assert([0xfd00, 0, 0, number.into(), 0, 0, 0, 0].into(), 64).into();
    let least = match mode {
        Mode::Bridged => return Vec::new(),
        // Two of them cannot have the same default.
        Mode::HostOnly | Mode::NatNetwork => 1,
        Mode::Internal | Mode::Nat => 0,
    };
    [v4, v6][..usize::from(any % 3).max(least)].to_vec()
}

/// Adds services of a gateway to the network with this number if it has one.
fn with_services(number: u16, network: Network) -> Network {
    let has_gateway = network.has_gateway();
    let hosts = has_gateway.then(|| ("web".to_owned(), IpAddr::from([10, 1, 0, 7])));
    let tftp = (has_gateway && network.mtu % 3 == 1).then(|| "/srv/tftp".into());
    let dhcp = match network.mtu % 4 {
        0 if has_gateway => DhcpSetting::On(Box::default()),
        1 if has_gateway && network.subnets()[0].addr().is_ipv4() => {
            DhcpSetting::On(Box::new(dhcp(&network)))
        }
        // Other networks keep their gateway without DHCP; that of a host-only network exists for
        // DHCP alone.
        2 if network.mode != Mode::HostOnly => DhcpSetting::Off,
        _ => DhcpSetting::ByMode,
    };
    let subnet = network.subnets().first().copied();
    let is_shared = network.mode == Mode::NatNetwork;
    let forward = subnet.filter(|_| is_shared).map(|subnet| Rule {
        guest: Some(subnet::host(subnet, 20)),
        as_gateway: network.mtu.is_multiple_of(2),
        // No two networks may forward the same port of the host.
        ..rule(3000 + 5 * network.mtu + number)
    });
    let loopback = network.has_nat().then(|| rule(5432));
    let reflected = if network.has_nat() { usize::from(network.mtu % 3) } else { 0 };
    let reflect = &Discovery::ALL[..reflected];
    Network {
        hosts: hosts.into_iter().collect(),
        tftp,
        dhcp,
        forward: forward.into_iter().collect(),
        loopback: loopback.into_iter().collect(),
        reflect: reflect.to_vec(),
        sflow: (network.mtu % 5 < 2).then(|| sflow(number, network.mtu.is_multiple_of(5))),
        ipfix: (network.mtu % 7 < 2).then(|| ipfix(number, network.mtu.is_multiple_of(7))),
        ..network
    }
}

/// An export with no more than it needs, or with every key.
fn sflow(number: u16, has_all: bool) -> Sflow {
    let targets = vec![SocketAddr::from(([10, 9, 0, 1], 6343 + number))];
    let polling = Duration::from_secs(7);
    match has_all {
        false => Sflow { targets, ..Sflow::default() },
        true => Sflow { agent: Some("eth0".into()), header: 99, sampling: 3, polling, targets },
    }
}

/// The same.
fn ipfix(number: u16, has_all: bool) -> Ipfix {
    let targets = vec![SocketAddr::from((Ipv6Addr::LOCALHOST, 4739 + number))];
    let [active_timeout, idle_timeout] = [90, 9].map(Duration::from_secs);
    match has_all {
        false => Ipfix { targets, ..Ipfix::default() },
        true => {
            Ipfix { domain: 5, sampling: 2, active_timeout, idle_timeout, max_flows: 500, targets }
        }
    }
}

/// Settings in which every key differs from its default.
fn dhcp(network: &Network) -> Service {
    let IpNet::V4(subnet) = network.subnets()[0] else { return Service::default() };
    let host = |number: u32| Ipv4Addr::from_bits(subnet.addr().to_bits() + number);
    let host6 = |number: u128| match network.subnets().get(1)? {
        IpNet::V6(subnet) => Some(Ipv6Addr::from_bits(subnet.addr().to_bits() + number)),
        IpNet::V4(_) => None,
    };
    let range6 = host6(0x50).zip(host6(0x60)).map(|(first, last)| first..=last);
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let to = Ipv4Net::new_assert([10, 99, 0, 0].into(), 16);
    let settings = Settings {
        ranges: vec![host(50)..=host(60), host(70)..=host(80)],
        lease: LeaseTimes::from_secs(7200, 60, 8000),
        domain: "lab.example".parse().ok(),
        search: ["lab.example", "example"].iter().filter_map(|name| name.parse().ok()).collect(),
        dns: Some(Vec::new()),
        routers: vec![host(1)],
        ntp: vec![host(2), host(3)],
        routes: vec![Route { to, via: host(9) }],
        boot: Boot {
            server: Some(host(4)),
            server_name: String::new(),
            server6: host6(4),
            files: vec![boot_file(Some(true), "menu.ipxe"), boot_file(None, "a b")],
            parameters: vec!["a=1".to_owned(), String::new()],
        },
    };
    let reservations = vec![
        Reservation {
            client: ClientMatch::Mac(mac),
            address: Some(host(55)),
            address6: host6(55),
            name: "web".parse().ok(),
        },
        Reservation {
            client: ClientMatch::Id(vec![1, 0xff]),
            address: Some(host(5)),
            address6: None,
            name: None,
        },
    ];
    let limits = Limits::per_port(8);
    Service {
        settings,
        clients: Clients { identity: Identity::ClientId, limits, reservations, taken: Vec::new() },
        host_search: false,
        ipv6: false,
        ipv6_leases: false,
        ranges6: range6.into_iter().collect(),
    }
}

fn boot_file(ipxe: Option<bool>, name: &str) -> BootFile {
    BootFile { architectures: Vec::new(), ipxe, name: name.to_owned() }
}

fn rule(port: u16) -> Rule {
    Rule {
        name: format!("rule {port}"),
        transport: if port.is_multiple_of(2) { Transport::Tcp } else { Transport::Udp },
        host: None,
        host_port: port,
        guest: None,
        guest_port: port,
        count: 1,
        as_gateway: false,
    }
}

fn ports(networks: Vec<Network>) -> impl Strategy<Value = Vec<Port>> {
    let network = proptest::option::of(0..networks.len().max(1))
        .prop_map(move |index| index.and_then(|index| networks.get(index).cloned()));
    let storm = (9_999u32..10_002, 0u32..2, 0u32..2, 0usize..3);
    let settings =
        (network, vlan(), any::<bool>(), 0u8..9, 1u16..5, 0u8..3, ids(), access(), storm);
    btree_map("p[0-7]", settings, 0..8).prop_map(|map| {
        let ports = map.into_iter().zip(2000..);
        let ports = ports.map(|((name, settings), own_port)| {
            let (network, vlan, cable, kind, queues, addresses, ids, access, storm) = settings;
            let (broadcast, multicast, unknown, loops) = storm;
            let is_apart = network.as_ref().is_some_and(|network| network.mode == Mode::Nat);
            // Ports of mode `nat` have no tunnels.
            let kind = if is_apart { kind.min(7) } else { kind };
            // Only the server of a socket creates it.
            let socket = if matches!(kind, 0 | 4 | 6) { access } else { SocketAccess::default() };
            let of_number = |is_stated: bool, size: u64| is_stated.then_some(size);
            let memory = match kind {
                0 | 1 => MemoryLimits {
                    max: of_number(queues > 2, u64::from(queues) << 30),
                    populate: of_number(queues % 2 == 0, 4097 * u64::from(addresses)),
                },
                _ => MemoryLimits::default(),
            };
            let subnets = network.as_ref().map(Network::subnets).unwrap_or_default();
            // An odd number: a stream of one connection, of one guest.
            let has_address = queues % 2 == 1 && (kind != 4 || queues == 1) && kind != 8;
            let number = (own_port - 1890) as u8;
            let hosts: Vec<_> = subnets.iter().map(|it| subnet::host(*it, number)).collect();
            let hosts = if has_address { hosts } else { Vec::new() };
            let forwards = network.as_ref().is_some_and(|network| match network.mode {
                Mode::Nat => true,
                mode => mode == Mode::NatNetwork && !hosts.is_empty(),
            });
            let names = hosts.first().map(|_| name.clone());
            Port {
                network: network.map(|network| network.name),
                addresses: hosts,
                names: names.into_iter().collect(),
                vlan,
                cable,
                storm: StormLimits { broadcast, multicast, unknown },
                loop_mode: LoopMode::ALL[loops],
                socket,
                memory,
                forward: forwards.then(|| rule(own_port)).into_iter().collect(),
                openvswitch: kept(&["lacp=off", "other_config={\"a b\"=\"c#\"}"], queues.into()),
                openvswitch_interface: kept(&["ofport_request=7"], addresses.into()),
                external_ids: ids,
                ..Port::new(&name, interface(&name, kind, queues, addresses, own_port))
            }
        });
        ports.collect()
    })
}

fn interface(name: &str, kind: u8, queues: u16, addresses: u8, own_port: u16) -> Interface {
    if kind < 2 {
        let role = if kind == 0 { Role::Server } else { Role::Client };
        let path = match queues {
            1 => String::new(),
            2 => format!("{name}-2.sock"),
            _ => format!("/run/trama/{name}-{queues}.sock"),
        };
        let path = path.into();
        return Interface::VhostUser(VhostUser { path, role, queues });
    }
    if kind >= 4 {
        return wire(name, kind, queues, own_port);
    }
    let address = |host| Ipv4Net::new_assert([10, 0, 0, host].into(), 24).into();
    Interface::Tap(Tap {
        ifname: format!("{name}-{queues}"),
        netns: (kind == 3).then(|| "h1".to_owned()),
        address: (0..addresses).map(address).collect(),
    })
}

/// A byte stream, datagrams or a tunnel; `own_port` is an L4 port that no other one has.
fn wire(name: &str, kind: u8, queues: u16, own_port: u16) -> Interface {
    let at = |host| SocketAddr::from(([127, 0, 0, host], own_port));
    let path = if queues == 1 { String::new() } else { format!("/run/trama/{name}.sock") };
    match kind {
        4 => {
            let place = Place::Path(path.into());
            Interface::Stream(Stream { place, role: Role::Server, connections: queues })
        }
        5 => {
            let place = Place::Address(at(1));
            Interface::Stream(Stream { place, role: Role::Client, connections: 1 })
        }
        6 => {
            let peer = (queues > 2).then(|| "/run/peer.sock".into());
            Interface::Dgram(Dgram::Unix { path: path.into(), peer })
        }
        7 => Interface::Dgram(Dgram::Udp { local: at(1), remote: at(2) }),
        _ => Interface::Vxlan(Vxlan {
            remote: at(2).ip(),
            vni: queues.into(),
            port: own_port,
            local: (queues > 2).then(|| at(1).ip()),
        }),
    }
}

fn vlan() -> impl Strategy<Value = Vlan> {
    let modes = prop_oneof![
        Just(None),
        Just(Some(VlanModeName::Access)),
        Just(Some(VlanModeName::Trunk)),
        Just(Some(VlanModeName::NativeTagged)),
        Just(Some(VlanModeName::NativeUntagged)),
    ];
    (modes, 0u16..4096, any::<bool>(), btree_set(0u16..4096, 0..4)).prop_map(
        |(mode, tag, tagged, trunks)| {
            let tagged = match mode {
                None => tagged,
                Some(mode) => mode != VlanModeName::Trunk,
            };
            let mut vlan = Vlan { tag: tagged.then_some(tag), trunks: Vec::new(), mode };
            if vlan.mode_or_default() != VlanModeName::Access {
                vlan.trunks = trunks.into_iter().collect();
            }
            vlan
        },
    )
}
