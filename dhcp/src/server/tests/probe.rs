//! Looking for another user of an address before it is offered.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::server::{End, Event};
use crate::testing::{Ask, Bench, discover, ip, lab, mac};
use crate::wire::MessageType::{Ack, Decline, Offer, Request};
use crate::wire::{Packet, options::code};
use crate::{DropReason, PortId, State, Time};

const PROBE: Duration = Duration::from_millis(300);

fn bench() -> Bench {
    let mut config = lab();
    config.probe = Some(PROBE);
    config.clients.limits.addresses = 5;
    Bench::new(config)
}

/// Sends a DISCOVER that leads to a probe; returns the address to look for.
#[track_caller]
fn probed(bench: &mut Bench, ask: &Ask) -> Ipv4Addr {
    assert_eq!(bench.send(ask), Ok(vec![]));
    let [Event::Probe { address, until }] = bench.out.events[..] else {
        panic!("{:?}", bench.out.events)
    };
    assert_eq!(until, bench.now + PROBE);
    assert_eq!(bench.server.next_deadline(), Some(until));
    address
}

fn offered(bench: &Bench) -> Vec<Ipv4Addr> {
    let yiaddr = |reply: &crate::server::Reply| {
        assert_eq!(reply.kind, Offer);
        Packet::parse(&reply.payload).unwrap().yiaddr()
    };
    bench.out.replies.iter().map(yiaddr).collect()
}

// spec-test: rfc2131 probe-new select-no-probe
#[test]
fn silence_makes_an_offer() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.wait(PROBE - Duration::from_millis(1));
    assert!(offered(&bench).is_empty());
    bench.wait(Duration::from_millis(1));
    assert_eq!(offered(&bench), [address]);
    let ask = Ask::new(Request, 1).requested(address).server("10.0.2.1");
    assert_eq!(bench.expect(Ack, &ask), address);
}

// spec-test: rfc2131 reboot-no-probe
#[test]
fn an_address_is_not_probed_when_its_client_verifies_it() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.wait(PROBE);
    bench.expect(Ack, &Ask::new(Request, 1).requested(address).server("10.0.2.1"));
    bench.wait_secs(4000);
    assert_eq!(bench.expect(Ack, &Ask::new(Request, 1).requested(address)), address);
    assert!(!bench.out.events.iter().any(|event| matches!(event, Event::Probe { .. })));
}

// spec-test: rfc2131 probe-reused
#[test]
fn an_address_that_another_client_had_is_probed() {
    let mut bench = bench();
    let mut had = Vec::new();
    for client in 1..=10 {
        let port = client.into();
        let address = probed(&mut bench, &discover(client).port(port));
        bench.wait(PROBE);
        let ask = Ask::new(Request, client).requested(address).server("10.0.2.1");
        bench.expect(Ack, &ask.port(port));
        had.push(address);
    }
    bench.wait_secs(4000);
    let reused = probed(&mut bench, &discover(11).port(11));
    assert!(had.contains(&reused));
}

#[test]
fn known_clients_do_not_wait() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.wait(PROBE);
    bench.expect(Ack, &Ask::new(Request, 1).requested(address).server("10.0.2.1"));
    assert_eq!(bench.expect(Offer, &discover(1)), address);
    bench.wait_secs(4000);
    assert_eq!(bench.expect(Offer, &discover(1)), address);
    assert!(bench.out.events.is_empty());
}

#[test]
fn an_impatient_client_is_answered_once_and_last_asked() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.now = bench.now + PROBE / 2;
    assert_eq!(bench.send(&discover(1).field(4, &[9, 9, 9, 9])), Err(DropReason::Probing));
    assert!(bench.out.events.is_empty(), "no second probe");
    bench.wait(PROBE / 2);
    assert_eq!(offered(&bench), [address]);
    assert_eq!(Packet::parse(&bench.out.replies[0].payload).unwrap().xid(), 0x0909_0909);
    // Nor is an address leased before it was offered.
    let address = probed(&mut bench, &discover(2));
    let ask = Ask::new(Request, 2).requested(address).server("10.0.2.1");
    assert_eq!(bench.send(&ask), Err(DropReason::Probing));
}

// spec-test: rfc2131 probe-new
#[test]
fn a_conflict_leads_to_another_address() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.out.clear();
    bench.server.in_use(bench.now, address, mac(77), PortId(7), &mut bench.out);
    let [Event::Conflict { address: taken, user, port }, Event::Probe { address: next, .. }] =
        bench.out.events[..]
    else {
        panic!("{:?}", bench.out.events)
    };
    assert_eq!((taken, user, port), (address, mac(77), PortId(7)));
    assert_ne!(next, address);
    bench.wait(PROBE);
    assert_eq!(offered(&bench), [next]);
    bench.wait_secs(601);
    assert!(bench.server.bindings().all(|binding| binding.state != State::Quarantined));
}

#[test]
fn the_clients_own_answer_is_no_conflict() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.server.in_use(bench.now, address, mac(1), PortId(1), &mut bench.out);
    bench.wait(PROBE);
    assert_eq!(offered(&bench), [address]);
}

#[test]
fn who_answers_every_probe_is_not_believed_for_long() {
    let mut bench = bench();
    let mut address = probed(&mut bench, &discover(1));
    for _ in 0..20 {
        bench.out.clear();
        bench.server.in_use(bench.now, address, mac(77), PortId(7), &mut bench.out);
        if let Some(Event::Probe { address: next, .. }) = bench.out.events.last() {
            address = *next;
        }
    }
    bench.wait(PROBE);
    assert_eq!(offered(&bench), [address]);
    let quarantined = bench.server.bindings().filter(|b| b.state == State::Quarantined);
    assert_eq!(quarantined.count(), 5);
}

#[test]
fn late_or_foreign_reports_change_nothing() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.server.in_use(bench.now, ip("10.0.2.99"), mac(77), PortId(7), &mut bench.out);
    bench.wait(PROBE);
    bench.out.clear();
    bench.server.in_use(bench.now, address, mac(77), PortId(7), &mut bench.out);
    assert!(bench.out.events.is_empty());
    let ask = Ask::new(Request, 1).requested(address).server("10.0.2.1");
    assert_eq!(bench.expect(Ack, &ask), address);
}

#[test]
fn rapid_commit_waits_for_the_probe() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1).option(code::RAPID_COMMIT, &[]));
    bench.wait(PROBE);
    let [ack] = &bench.out.confirmed[..] else { panic!("{:?}", bench.out) };
    assert_eq!((ack.kind, Packet::parse(&ack.payload).unwrap().yiaddr()), (Ack, address));
}

#[test]
fn a_declined_offer_is_quarantined_too() {
    let mut bench = bench();
    let address = probed(&mut bench, &discover(1));
    bench.wait(PROBE);
    bench.send(&Ask::new(Decline, 1).requested(address)).unwrap();
    assert!(matches!(bench.out.events[..], [Event::Ended { how: End::Declined, .. }]));
    let binding = bench.server.bindings().next().unwrap();
    assert_eq!((binding.state, binding.until), (State::Quarantined, Time(bench.now.0 + 600_000)));
}

#[test]
fn reserved_addresses_are_offered_at_once() {
    let mut config = lab();
    config.probe = Some(PROBE);
    config.clients.reservations = vec![crate::config::Reservation {
        client: crate::config::ClientMatch::Mac(mac(1)),
        address: Some(ip("10.0.2.77")),
        address6: None,
        name: None,
    }];
    let mut bench = Bench::new(config);
    assert_eq!(bench.expect(Offer, &discover(1)), ip("10.0.2.77"));
}
