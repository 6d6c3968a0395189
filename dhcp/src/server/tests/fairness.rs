//! One port cannot exhaust the pool.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use trama_frame::MacAddr;

use crate::config::{Config, Limits};
use crate::testing::{Ask, Bench, discover, ip, lab, mac};
use crate::wire::MessageType::{Ack, Decline, Discover, Nak, Offer, Release, Request};
use crate::{DropReason, PortId, State};

/// Twenty addresses, four ports' worth of five.
fn config() -> Config {
    let mut config = lab();
    config.subnets[0].settings.ranges = vec![ip("10.0.2.10")..=ip("10.0.2.29")];
    config.clients.limits = Limits { addresses: 5, offers: 2 };
    config
}

fn stranger(number: u32) -> Ask {
    let [a, b, c, d] = number.to_be_bytes();
    discover(0).mac(MacAddr([6, 0, a, b, c, d])).port(66)
}

fn held(bench: &Bench, port: u64) -> usize {
    bench.server.bindings().filter(|binding| binding.port == PortId(port)).count()
}

#[test]
fn a_flood_of_discovers_holds_two_addresses() {
    let mut bench = Bench::new(config());
    let mut offered: Vec<Ipv4Addr> =
        (0..500).map(|number| bench.expect(Offer, &stranger(number))).collect();
    assert_eq!(held(&bench, 66), 2);
    offered.sort();
    offered.dedup();
    assert_eq!(offered.len(), 2);
    bench.lease_as(&discover(1).port(1));
}

#[test]
fn a_flood_of_discovers_makes_no_flood_of_probes() {
    let mut bench = Bench::new(Config { probe: Some(Duration::from_millis(300)), ..config() });
    let mut probes = 0;
    for number in 0..500 {
        let _ = bench.send(&stranger(number));
        probes += bench.out.events.len();
    }
    assert_eq!(probes, 2);
    // The last two are answered all the same.
    bench.wait(Duration::from_millis(300));
    assert_eq!(bench.out.replies.len(), 2);
    bench.expect(Offer, &stranger(900));
    assert!(bench.out.events.is_empty());
}

#[test]
fn a_port_leases_its_share_and_no_more() {
    let mut bench = Bench::new(config());
    for port in [66, 67, 68] {
        for number in 0..5 {
            bench.lease_as(&stranger(port * 100 + number).port(port.into()));
        }
        assert_eq!(bench.send(&stranger(port).port(port.into())), Err(DropReason::PortFull));
        let ask = Ask::new(Request, 0).port(port.into()).requested(ip("10.0.2.20"));
        bench.expect(Nak, &ask.server("10.0.2.1"));
    }
    for client in 1..6 {
        bench.lease_as(&discover(client).port(1));
    }
    assert_eq!(bench.server.bound(), 20);
}

#[test]
fn leases_that_come_and_go_reuse_the_ports_own_addresses() {
    let mut bench = Bench::new(config());
    let neighbour = bench.lease_as(&discover(1).port(1));
    bench.send(&Ask::new(Release, 1).port(1).ciaddr(neighbour)).unwrap();
    for number in 0..200 {
        let ask = stranger(number);
        let address = bench.lease_as(&ask);
        let mut release = Ask::new(Release, 0).port(66).ciaddr(address);
        release.fixed[28..34].copy_from_slice(&ask.fixed[28..34]);
        bench.send(&release).unwrap();
        assert!(held(&bench, 66) <= 5);
    }
    assert_eq!(bench.lease_as(&discover(1).port(1)), neighbour, "still remembered");
}

#[test]
fn declines_are_charged_to_the_port() {
    let mut bench = Bench::new(config());
    let mut declined = 0;
    for number in 0..50 {
        let ask = stranger(number);
        if bench.send(&ask).is_err() {
            continue;
        }
        let address = crate::wire::Packet::parse(&bench.out.replies[0].payload).unwrap().yiaddr();
        let mut decline = Ask::new(Decline, 0).port(66).requested(address);
        decline.fixed[28..34].copy_from_slice(&ask.fixed[28..34]);
        bench.send(&decline).unwrap();
        declined += 1;
    }
    let quarantined = bench.server.bindings().filter(|b| b.state == State::Quarantined).count();
    assert_eq!((declined, quarantined), (5, 5));
    bench.lease_as(&discover(1).port(1));
}

#[test]
fn adopting_addresses_is_limited_too() {
    let mut bench = Bench::new(config());
    let mut acknowledged = 0;
    for last in 10..30 {
        let ask = Ask::new(Request, last).port(66).ciaddr(Ipv4Addr::new(10, 0, 2, last));
        acknowledged += usize::from(bench.one(&ask).kind == Ack);
    }
    assert_eq!((acknowledged, bench.server.bound()), (5, 5));
}

#[test]
fn reservations_do_not_depend_on_the_ports_share() {
    let mut config = config();
    config.clients.reservations = vec![crate::config::Reservation {
        client: crate::config::ClientMatch::Mac(mac(1)),
        address: Some(ip("10.0.2.77")),
        address6: None,
        name: None,
    }];
    let mut bench = Bench::new(config);
    for number in 0..5 {
        bench.lease_as(&stranger(number));
    }
    assert_eq!(bench.lease_as(&discover(1).port(66)), ip("10.0.2.77"));
}

#[derive(Clone, Debug)]
struct Try {
    port: u64,
    client: u8,
    kind: u8,
    last: u8,
    rapid: bool,
    millis: u64,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = (66..69u64, 0..30u8, 0..7u8, 8..32u8, any::<bool>(), 0..200u64).prop_map(
        |(port, client, kind, last, rapid, millis)| Try { port, client, kind, last, rapid, millis },
    );
    prop::collection::vec(one, 0..150)
}

/// Anything a guest can send, with any hardware address on any of its ports.
fn attempt(bench: &mut Bench, attempt: &Try) {
    let address = Ipv4Addr::new(10, 0, 2, attempt.last);
    let held = bench.server.bindings().find(|binding| binding.mac == mac(attempt.client));
    let held = held.map_or(address, |binding| binding.address);
    let ask = |kind| Ask::new(kind, attempt.client).port(attempt.port);
    let message = match attempt.kind {
        0 | 1 => ask(Discover).requested(address),
        2 => ask(Request).requested(held).server("10.0.2.1"),
        3 => ask(Request).ciaddr(held),
        4 => ask(Release).ciaddr(held),
        5 => ask(Decline).requested(held),
        _ => {
            let (now, port) = (bench.now, PortId(attempt.port));
            return bench.server.in_use(now, address, mac(200), port, &mut bench.out);
        }
    };
    let message = if attempt.rapid { message.option(80, &[]) } else { message };
    let _ = bench.send(&message);
    bench.wait(Duration::from_millis(attempt.millis));
}

proptest! {
    /// Three colluding ports, whatever they do, leave the fourth its share.
    #[test]
    fn nothing_takes_a_ports_share(tries in tries(), probe: bool) {
        let probe = probe.then_some(Duration::from_millis(300));
        let mut bench = Bench::new(Config { probe, ..config() });
        tries.iter().for_each(|one| attempt(&mut bench, one));
        for client in 101..106 {
            bench.out.clear();
            let ask = discover(client).port(1).option(80, &[]);
            let _ = bench.send(&ask);
            let leases = |bench: &Bench| {
                bench.out.confirmed.iter().filter(|reply| reply.port == PortId(1)).count()
            };
            let at_once = leases(&bench);
            bench.wait(Duration::from_millis(300));
            prop_assert_eq!(at_once + leases(&bench), 1);
        }
    }
}
