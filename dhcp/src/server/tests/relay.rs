//! Clients behind relay agents.

use crate::DropReason;
use crate::config::{Config, Settings, Subnet};
use crate::server::Destination;
use crate::testing::{Ask, Bench, discover, ip, lab, mac};
use crate::wire::MessageType::{Ack, Nak, Offer, Request};
use crate::wire::{Packet, options::code};

/// The lab, and 10.9.0.0/16 behind a relay.
fn bench() -> Bench {
    let mut config = lab();
    config.subnets.push(Subnet {
        prefix: "10.9.0.0/16".parse().unwrap(),
        server: ip("10.9.0.1"),
        settings: Settings {
            ranges: vec![ip("10.9.5.1")..=ip("10.9.5.9")],
            lease: config.subnets[0].settings.lease,
            ..Settings::default()
        },
        ..config.subnets[0].clone()
    });
    Bench::new(Config { probe: Some(std::time::Duration::from_secs(1)), ..config })
}

// spec-test: rfc2131 subnet reply-relay
#[test]
fn the_relays_address_selects_the_subnet_and_gets_the_answer() {
    let mut bench = bench();
    let ask = discover(1).giaddr("10.9.0.2").option(code::RELAY_INFO, &[1, 2, 7, 7]);
    // The server cannot probe another link, so the offer comes at once.
    let reply = bench.one(&ask);
    assert_eq!((reply.kind, reply.to), (Offer, Destination::Relay(ip("10.9.0.2"))));
    assert_eq!(reply.from, ip("10.9.0.1"));
    let packet = Packet::parse(&reply.payload).unwrap();
    assert_eq!(packet.giaddr(), ip("10.9.0.2"));
    assert!((ip("10.9.5.1")..=ip("10.9.5.9")).contains(&packet.yiaddr()));
    assert_eq!(packet.options().get(code::RELAY_INFO).unwrap().as_ref(), [1, 2, 7, 7]);
    assert_eq!(packet.options().codes().last(), Some(code::RELAY_INFO));
    let ask = Ask::new(Request, 1).giaddr("10.9.0.2").requested(packet.yiaddr());
    let reply = bench.one(&ask.server("10.9.0.1"));
    assert_eq!((reply.kind, reply.to), (Ack, Destination::Relay(ip("10.9.0.2"))));
}

#[test]
fn link_selection_overrides_the_relays_address() {
    let mut bench = bench();
    let info = [1, 1, 0, 5, 4, 10, 9, 0, 0];
    let ask = discover(1).giaddr("192.0.2.9").option(code::RELAY_INFO, &info);
    let reply = bench.one(&ask);
    assert_eq!(reply.to, Destination::Relay(ip("192.0.2.9")));
    let address = Packet::parse(&reply.payload).unwrap().yiaddr();
    assert!(bench.server.config().subnets[1].prefix.contains(&address));
}

// spec-test: rfc2131 own-addresses identifier-reachable
#[test]
fn the_server_names_its_address_on_the_clients_link_and_answers_to_each() {
    let mut bench = bench();
    let reply = bench.one(&discover(1).giaddr("10.9.0.2"));
    let packet = Packet::parse(&reply.payload).unwrap();
    assert_eq!(packet.options().address(code::SERVER_ID), Some(ip("10.9.0.1")));
    for server in ["10.9.0.1", "10.0.2.1"] {
        let ask = Ask::new(Request, 1).giaddr("10.9.0.2").requested(packet.yiaddr());
        bench.expect(Ack, &ask.server(server));
    }
}

#[test]
fn unknown_subnets_are_not_served() {
    let mut bench = bench();
    let ask = discover(1).giaddr("192.0.2.9");
    assert_eq!(bench.send(&ask), Err(DropReason::UnknownSubnet));
}

// spec-test: rfc2131 nak-relay nak-broadcast-bit
#[test]
fn a_refusal_through_a_relay_asks_for_broadcast() {
    let mut bench = bench();
    let reply = bench.one(&Ask::new(Request, 1).giaddr("10.9.0.2").requested(ip("10.0.2.11")));
    assert_eq!((reply.kind, reply.to), (Nak, Destination::Relay(ip("10.9.0.2"))));
    assert!(Packet::parse(&reply.payload).unwrap().broadcast());
}

#[test]
fn renewing_across_routers_is_answered_by_routing() {
    let mut bench = bench();
    let reply = bench.one(&discover(1).giaddr("10.9.0.2"));
    let address = Packet::parse(&reply.payload).unwrap().yiaddr();
    let ask = Ask::new(Request, 1).giaddr("10.9.0.2").requested(address).server("10.9.0.1");
    bench.expect(Ack, &ask);
    let renew = Ask { unicast: true, ..Ask::new(Request, 1).ciaddr(address) };
    let reply = bench.one(&renew);
    assert_eq!((reply.kind, reply.to), (Ack, Destination::Routed(address)));
    // The same by broadcast comes from the server's own link, where the address is wrong.
    bench.expect(Nak, &Ask::new(Request, 1).ciaddr(address));
}

#[test]
fn a_client_that_moves_between_links_is_renumbered() {
    let mut bench = bench();
    let reply = bench.one(&discover(1).giaddr("10.9.0.2"));
    let address = Packet::parse(&reply.payload).unwrap().yiaddr();
    bench.expect(Nak, &Ask::new(Request, 1).requested(address));
    assert_eq!(bench.send(&discover(1)), Ok(vec![]), "probes on its own link");
    bench.wait_secs(1);
    assert_eq!(bench.out.replies.len(), 1);
    assert!(matches!(bench.out.replies[0].to, Destination::Client(_, to) if to == mac(1)));
}
