//! Clients of the host's ports on one side, guests on the other.

use std::net::{Ipv4Addr, TcpStream as Client};

use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, TcpPacket};

use super::*;
use crate::test_world::*;
use crate::testing::{GATEWAY4, GUEST4, GUEST6};

const ABSENT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 99);

/// A port of the host that is free now.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A world with a forward to each of these guests. Returns the host's addresses, too.
fn world(guests: &[Ipv4Addr]) -> (World, Vec<SocketAddr>) {
    let hosts: Vec<_> = guests.iter().map(|_| free()).collect();
    let rule = |(host, guest): (&SocketAddr, &Ipv4Addr)| Forward {
        name: format!("to-{guest}-{}", host.port()),
        transport: Transport::Tcp,
        host: Some(host.ip()),
        host_port: host.port(),
        guest: SocketAddr::new((*guest).into(), 80),
        count: 1,
        hides_client: false,
    };
    let mut world = World::new();
    let forwards = hosts.iter().zip(guests).map(rule).collect();
    world.config.nat.as_mut().unwrap().forwards = forwards;
    world.with(|nat, context| nat.configure(context));
    assert_eq!(world.nat.take_warnings(), Vec::<String>::new());
    (world, hosts)
}

/// The clients that the guest sees, by the SYNs that it received.
fn callers(world: &World) -> Vec<SocketAddr> {
    let caller = |(_, frame): &(_, Vec<u8>)| {
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        if frame.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        let segment = TcpPacket::new_checked(packet.payload()).unwrap();
        assert!(segment.syn() && packet.dst_addr() == GUEST4);
        Some(SocketAddr::new(packet.src_addr().into(), segment.src_port()))
    };
    world.wire.0.iter().filter_map(caller).collect()
}

#[test]
fn masqueraded_clients_do_not_collide() {
    let (mut world, hosts) = world(&[GUEST4]);
    // Even with bad luck.
    world.random = Box::new(|| 7);
    let clients: Vec<_> = (0..20).map(|_| Client::connect(hosts[0]).unwrap()).collect();
    world.until("a question for the guest", |world| !world.wire.0.is_empty());
    announce(&mut world);
    world.until("all calls", |world| callers(world).len() == clients.len());
    let mut ports: Vec<_> = callers(&world).iter().map(SocketAddr::port).collect();
    assert!(callers(&world).iter().all(|caller| caller.ip() == GATEWAY4));
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), clients.len());
    assert_eq!(world.counters.drops().len(), 0);
}

#[test]
fn clients_of_an_absent_guest_do_not_keep_others_out() {
    let (mut world, hosts) = world(&[ABSENT, GUEST4]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.extend((0..100).map(|_| Client::connect(hosts[0]).unwrap()));
        world.turn(Duration::from_secs(1));
        world.turn(Duration::ZERO);
    }
    clients.push(Client::connect(hosts[1]).unwrap());
    world.until("questions for both guests", |world| world.wire.0.len() >= 2);
    announce(&mut world);
    world.until("the call", |world| callers(world).len() == 1);
    assert!(world.nat.forwards.waiting.values().all(|waiting| waiting.len() <= MAX_WAITING));
    world.now = RESOLVE_TIMEOUT;
    world.turn(Duration::ZERO);
    assert!(world.nat.forwards.waiting.is_empty());
    assert_eq!(world.dropped(DropReason::NoStation), MAX_WAITING as u64);
    assert_eq!(world.dropped(DropReason::FlowLimit), 300 - MAX_WAITING as u64);
}

#[test]
fn many_clients_at_many_ports_of_a_guest_all_connect() {
    let (mut world, hosts) = world(&[GUEST4; 8]);
    let first = Client::connect(hosts[0]).unwrap();
    world.until("a question for the guest", |world| !world.wire.0.is_empty());
    announce(&mut world);
    let connect = |host: &SocketAddr| (0..50).map(|_| Client::connect(host).unwrap()).collect();
    let clients: Vec<Vec<Client>> = hosts.iter().map(connect).collect();
    world.until("all calls", |world| callers(world).len() == 1 + 8 * 50);
    assert_eq!(world.counters.drops().len(), 0);
    drop((first, clients));
}

/// A rule that forwards port 5000 of the host to a guest.
fn rule(host: Option<&str>, guest: IpAddr) -> Forward {
    Forward {
        name: host.unwrap_or("all").to_owned(),
        transport: Transport::Tcp,
        host: host.map(|host| host.parse().unwrap()),
        host_port: 5000,
        guest: SocketAddr::new(guest, 80),
        count: 1,
        hides_client: true,
    }
}

/// Applies these rules. Returns the pending ports, and why.
fn follow(world: &mut World, rules: &[Forward]) -> Vec<(String, &'static str)> {
    world.config.nat.as_mut().unwrap().forwards = rules.to_vec();
    world.with(|nat, context| nat.configure(context));
    let pending = world.nat.forwards.pending();
    pending.map(|(_, host, error)| (host.to_string(), errno_text(error))).collect()
}

/// The guest that a client of an address is forwarded to, shown by the address that is resolved.
#[track_caller]
fn led_to(world: &mut World, address: &str) -> EthernetProtocol {
    world.wire.0.clear();
    world.nat.neighbours = NeighbourCache::default();
    let _client = Client::connect((address.parse::<IpAddr>().unwrap(), 5000)).unwrap();
    world.until("a question for the guest", |world| !world.wire.0.is_empty());
    world.nat.forwards.waiting.clear();
    EthernetFrame::new_checked(&world.wire.0[0].1[..]).unwrap().ethertype()
}

#[test]
fn the_versions_of_ip_have_ports_of_their_own() {
    if !is_isolated("echo 1 >/proc/sys/net/ipv6/bindv6only") {
        return;
    }
    let mut world = World::new();
    let all = [rule(None, GUEST4.into())];
    let four = rule(Some("0.0.0.0"), GUEST4.into());
    let six = rule(Some("::"), GUEST6.into());
    let near = [rule(Some("127.0.0.1"), GUEST4.into()), rule(Some("::1"), GUEST6.into())];
    // In any order, and from any rule to any other.
    let [one, two] = [[four.clone(), six.clone()], [six.clone(), four.clone()]];
    let one_of_each = [near[0].clone(), six.clone()];
    let orders: [&[Forward]; 8] = [&one, &all, &two, &near, &one_of_each, &all, &[], &one];
    for rules in orders {
        assert_eq!(follow(&mut world, rules), [], "{rules:?}");
        let Some(first) = rules.first() else { continue };
        assert_eq!(led_to(&mut world, "127.0.0.1"), EthernetProtocol::Arp);
        let is_split = first.host.is_some();
        let asked = if is_split { EthernetProtocol::Ipv6 } else { EthernetProtocol::Arp };
        assert_eq!(led_to(&mut world, "::1"), asked, "{rules:?}");
    }
    // Each rule alone listens for its IP version alone.
    for (rule, there, not_there) in [(&four, "127.0.0.1", "::1"), (&six, "::1", "127.0.0.1")] {
        assert_eq!(follow(&mut world, std::slice::from_ref(rule)), []);
        led_to(&mut world, there);
        let other = SocketAddr::new(not_there.parse().unwrap(), 5000);
        assert!(Client::connect(other).is_err(), "{not_there}");
    }
}

#[test]
fn a_host_without_ipv6_addresses_listens_for_ipv4() {
    if !is_isolated("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6") {
        return;
    }
    let mut world = World::new();
    assert_eq!(follow(&mut world, &[rule(None, GUEST4.into())]), []);
    assert_eq!(led_to(&mut world, "127.0.0.1"), EthernetProtocol::Arp);
    let pending = follow(&mut world, &[rule(Some("::1"), GUEST6.into())]);
    let wanted = ("[::1]:5000".to_owned(), "the host does not have that address");
    assert_eq!(pending, [wanted]);
    let warnings = world.nat.take_warnings();
    assert!(warnings[0].contains("forward \"::1\" is pending: tcp [::1]:5000"), "{warnings:?}");
}
