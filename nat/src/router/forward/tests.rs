//! Clients of the host's ports on one side, machines on the other.

use std::net::{Ipv4Addr, TcpStream as Client};

use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, TcpPacket};

use super::*;
use crate::router::test_world::*;
use crate::testing::{GATEWAY4, GUEST4};

const ABSENT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 99);

/// A port of the host that is free now.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A world with a forward to each of these machines, and the host's ends.
fn world(machines: &[Ipv4Addr]) -> (World, Vec<SocketAddr>) {
    let hosts: Vec<_> = machines.iter().map(|_| free()).collect();
    let rule = |(host, guest): (&SocketAddr, &Ipv4Addr)| Forward {
        name: format!("to-{guest}-{}", host.port()),
        transport: Transport::Tcp,
        host: *host,
        guest: SocketAddr::new((*guest).into(), 80),
        count: 1,
        hides_client: false,
    };
    let mut world = World::new();
    let forwards = hosts.iter().zip(machines).map(rule).collect();
    world.config.nat.as_mut().unwrap().forwards = forwards;
    world.with(|router, context| router.configure(context));
    assert_eq!(world.router.take_warnings(), Vec::<String>::new());
    (world, hosts)
}

/// Whom the machine sees calling, by the SYNs that it got.
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
fn clients_whom_the_gateway_stands_for_do_not_meet() {
    let (mut world, hosts) = world(&[GUEST4]);
    // However bad the luck is.
    world.random = Box::new(|| 7);
    let clients: Vec<_> = (0..20).map(|_| Client::connect(hosts[0]).unwrap()).collect();
    world.until("a question for the machine", |world| !world.wire.0.is_empty());
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
fn clients_of_a_machine_that_is_not_there_do_not_keep_others_out() {
    let (mut world, hosts) = world(&[ABSENT, GUEST4]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.extend((0..100).map(|_| Client::connect(hosts[0]).unwrap()));
        world.turn(Duration::from_secs(1));
        world.turn(Duration::ZERO);
    }
    clients.push(Client::connect(hosts[1]).unwrap());
    world.until("questions for both machines", |world| world.wire.0.len() >= 2);
    announce(&mut world);
    world.until("the call", |world| callers(world).len() == 1);
    assert!(world.router.forwards.waiting.values().all(|waiting| waiting.len() <= WAITING));
    world.now = PATIENCE;
    world.turn(Duration::ZERO);
    assert!(world.router.forwards.waiting.is_empty());
    assert_eq!(world.dropped(DropReason::NoStation), WAITING as u64);
    assert_eq!(world.dropped(DropReason::FlowLimit), 300 - WAITING as u64);
}

#[test]
fn many_clients_at_many_ports_of_a_machine_that_is_there_all_come_in() {
    let (mut world, hosts) = world(&[GUEST4; 8]);
    let first = Client::connect(hosts[0]).unwrap();
    world.until("a question for the machine", |world| !world.wire.0.is_empty());
    announce(&mut world);
    let connect = |host: &SocketAddr| (0..50).map(|_| Client::connect(host).unwrap()).collect();
    let clients: Vec<Vec<Client>> = hosts.iter().map(connect).collect();
    world.until("all calls", |world| callers(world).len() == 1 + 8 * 50);
    assert_eq!(world.counters.drops().len(), 0);
    drop((first, clients));
}
