//! DISCOVER to RELEASE: addresses leased, requests refused, messages left without an answer.

use std::net::Ipv4Addr;

use crate::config::{ClientMatch, Identity, Reservation};
use crate::server::{Destination, End, Event};
use crate::store::{LeaseRecord, Record};
use crate::testing::{Ask, Bench, discover, ip, lab, mac};
use crate::wire::MessageType::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
use crate::wire::{Packet, options::code};
use crate::{ClientKey, DropReason, PortId, State, Time};

pub(super) fn request(client: u8) -> Ask {
    Ask::new(Request, client)
}

fn bench() -> Bench {
    Bench::new(lab())
}

fn non_authoritative() -> Bench {
    let mut config = lab();
    config.authoritative = false;
    Bench::new(config)
}

// spec-test: rfc2131 probe-off time-default offer-address
#[test]
fn four_messages_make_a_lease() {
    let mut bench = bench();
    let offered = bench.expect(Offer, &discover(1));
    assert!(bench.out.records.is_empty(), "an offer is no promise");
    let ask = request(1).requested(offered).server("10.0.2.1");
    assert_eq!(bench.expect(Ack, &ask), offered);
    // The ACK waits for its record.
    assert!(bench.out.replies.is_empty());
    let (records, length) = Record::parse_all(&bench.out.records);
    assert_eq!(length, bench.out.records.len());
    let [Record::Lease(lease)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((lease.address, lease.mac), (offered, mac(1)));
    assert_eq!(lease.until, Time(bench.now.0 + 3_600_000));
    assert!(matches!(bench.out.events[..], [Event::Leased { renewed: false, .. }]));
    assert_eq!((bench.server.bound(), bench.server.next_deadline()), (1, Some(lease.until)));
}

#[test]
fn a_retransmitted_request_is_acknowledged_again_with_its_record() {
    let mut bench = bench();
    let address = bench.lease(1);
    let ask = request(1).requested(address).server("10.0.2.1");
    assert_eq!(bench.expect(Ack, &ask), address);
    assert!(!bench.out.records.is_empty());
    assert!(matches!(bench.out.events[..], [Event::Leased { renewed: true, .. }]));
}

#[test]
fn a_machine_alone_has_one_address_whoever_it_says_it_is() {
    let mut config = lab();
    config.clients.identity = Identity::Alone;
    let client = ClientMatch::Id(b"\xffother".to_vec());
    config.clients.reservations = vec![reserved(client, "10.0.2.77", "")];
    let mut bench = Bench::new(config.clone());
    let address = bench.lease(1);
    assert_eq!(bench.lease(2), address, "another hardware address");
    assert_eq!(bench.expect(Offer, &discover(1).id(b"\xffother")), address);
    assert_eq!(bench.server.bound(), 1);
    let reserved = Reservation {
        client: ClientMatch::Mac(mac(7)),
        address: Some(ip("10.0.2.200")),
        address6: None,
        name: None,
    };
    config.clients.reservations = vec![reserved];
    let mut bench = Bench::new(config);
    assert_eq!(bench.lease(7), ip("10.0.2.200"), "but what is reserved is reserved");
    assert_eq!(bench.lease(8), address);
}

// spec-test: rfc2131 address-order chaddr-key
#[test]
fn the_same_client_gets_the_same_address() {
    let mut bench = bench();
    let address = bench.lease(1);
    assert_eq!(bench.lease(1), address, "while the lease runs");
    bench.wait_secs(3601);
    bench.lease(2);
    assert_eq!(bench.lease(1), address, "after it ended");
    bench.send(&Ask::new(Release, 1).ciaddr(address).server("10.0.2.1")).unwrap();
    assert_eq!(bench.lease(1), address, "after a release");
    // Another server with the same seed, and nothing remembered.
    let mut second = Bench::new(lab());
    assert_eq!(second.lease(1), address, "after the loss of all leases");
}

// spec-test: rfc2131 client-id-key
#[test]
fn clients_are_told_apart_by_identifier_before_hardware_address() {
    let mut bench = bench();
    let first = bench.lease_as(&discover(1).id(b"\xffone"));
    let second = bench.lease_as(&discover(1).id(b"\xfftwo"));
    assert_ne!(first, second);
    // The same identifier on the same port, another network card.
    assert_eq!(bench.lease_as(&discover(9).id(b"\xffone")), first);
}

#[test]
fn an_identifier_that_is_the_hardware_address_adds_nothing() {
    let mut bench = bench();
    let address = bench.lease(1);
    assert_eq!(bench.lease_as(&discover(1).id(&[1, 2, 0, 0, 0, 0, 1])), address);
    assert_ne!(bench.lease_as(&discover(2).id(&[1, 2, 0, 0, 0, 0, 1])), address);
}

#[test]
fn copies_of_a_machine_with_one_identifier_get_an_address_each() {
    let mut bench = bench();
    let original = discover(1).id(b"\xffimage").port(1);
    let copy = discover(2).id(b"\xffimage").port(2);
    let first = bench.lease_as(&original);
    let second = bench.lease_as(&copy);
    assert_ne!(first, second);
    // It stays that way when the original is gone and comes back.
    bench.send(&Ask::new(Release, 1).id(b"\xffimage").ciaddr(first)).unwrap();
    assert_eq!(bench.lease_as(&copy), second);
    assert_eq!(bench.lease_as(&original), first);
    // The copy cannot release the original's lease.
    let release = Ask::new(Release, 2).id(b"\xffimage").port(2).ciaddr(first);
    assert_eq!(bench.send(&release), Err(DropReason::NotHolder));
}

#[test]
fn a_copy_that_took_the_originals_place_keeps_it_over_a_restart() {
    let mut bench = bench();
    // It was told apart once, and has the identifier to itself since. Of the former address the
    // journal may know more than the server that forgot it.
    let lease = |last: u8, key, until| {
        Record::Lease(LeaseRecord {
            address: Ipv4Addr::new(10, 0, 2, last),
            until: Time(until),
            port: PortId(1),
            mac: mac(2),
            key,
            name: None,
        })
    };
    let twin = ClientKey::from_id_and_mac(b"\xffimage", mac(2));
    bench.server.restore(bench.now, lease(11, twin, 0));
    bench.server.restore(bench.now, lease(12, ClientKey::from_id(b"\xffimage"), u64::MAX));
    let ask = request(2).id(b"\xffimage").ciaddr(ip("10.0.2.12"));
    assert_eq!(bench.expect(Ack, &ask), ip("10.0.2.12"));
}

#[test]
fn a_machine_that_moves_to_another_port_keeps_its_address() {
    let mut bench = bench();
    let address = bench.lease_as(&discover(1).id(b"\xffone").port(1));
    assert_eq!(bench.lease_as(&discover(1).id(b"\xffone").port(2)), address);
}

// spec-test: rfc2131 address-order offer-kept
#[test]
fn a_discover_may_ask_for_a_free_address() {
    let mut bench = bench();
    assert_eq!(bench.expect(Offer, &discover(1).requested(ip("10.0.2.17"))), ip("10.0.2.17"));
    assert_ne!(bench.expect(Offer, &discover(2).requested(ip("10.0.2.17"))), ip("10.0.2.17"));
    for outside in ["10.0.2.1", "10.0.2.99", "192.0.2.1"] {
        let offered = bench.expect(Offer, &discover(3).requested(ip(outside)));
        assert!((ip("10.0.2.10")..=ip("10.0.2.19")).contains(&offered), "{outside}: {offered}");
    }
}

// spec-test: rfc2131 other-server
#[test]
fn selecting_another_server_withdraws_the_offer_in_silence() {
    let mut bench = bench();
    let offered = bench.expect(Offer, &discover(1));
    let ask = request(1).requested(offered).server("10.0.2.250");
    assert_eq!(bench.send(&ask), Err(DropReason::OtherServer));
    assert_eq!(bench.server.bindings().count(), 0);
    // A lease is not withdrawn: the client may be confused, or not the client.
    let leased = bench.lease(2);
    let ask = request(2).requested(leased).server("10.0.2.250");
    assert_eq!(bench.send(&ask), Err(DropReason::OtherServer));
    assert_eq!(bench.server.bound(), 1);
}

// spec-test: rfc2131 select-nak offer-kept nak-broadcast
#[test]
fn selecting_what_was_not_offered_is_refused() {
    let mut bench = bench();
    bench.expect(Offer, &discover(1).requested(ip("10.0.2.15")));
    let reply = bench.one(&request(1).requested(ip("10.0.2.16")).server("10.0.2.1"));
    assert_eq!((reply.kind, reply.to), (Nak, Destination::Broadcast));
    // What is offered to one is not for another, asked for in any way.
    bench.expect(Nak, &request(3).requested(ip("10.0.2.15")).server("10.0.2.1"));
    bench.expect(Nak, &request(3).ciaddr(ip("10.0.2.15")));
    bench.lease_as(&discover(2).requested(ip("10.0.2.16")));
    bench.expect(Nak, &request(3).requested(ip("10.0.2.16")).server("10.0.2.1"));
    bench.expect(Nak, &request(3).requested(ip("10.0.2.99")).server("10.0.2.1"));
}

#[test]
fn an_offer_that_a_crash_forgot_is_still_good_if_the_address_is_free() {
    let mut bench = non_authoritative();
    let ask = request(1).requested(ip("10.0.2.12")).server("10.0.2.1");
    assert_eq!(bench.expect(Ack, &ask), ip("10.0.2.12"));
}

#[test]
fn a_request_without_any_address_is_malformed() {
    let mut bench = bench();
    assert_eq!(bench.send(&request(1)), Err(DropReason::MessageType));
    assert_eq!(bench.send(&request(1).server("10.0.2.1")), Err(DropReason::MessageType));
    assert_eq!(bench.server.counters().drops.get(DropReason::MessageType), 2);
}

#[test]
fn init_reboot_confirms_what_it_knows() {
    let mut bench = bench();
    let address = bench.lease(1);
    assert_eq!(bench.expect(Ack, &request(1).requested(address)), address);
    bench.wait_secs(3601);
    assert_eq!(bench.expect(Ack, &request(1).requested(address)), address, "ended, not reused");
}

// spec-test: rfc2131 invalid-nak reboot-nak
#[test]
fn init_reboot_with_a_wrong_address_is_refused() {
    for mut bench in [bench(), non_authoritative()] {
        let address = bench.lease_as(&discover(1).requested(ip("10.0.2.14")));
        assert_eq!(address, ip("10.0.2.14"));
        bench.expect(Nak, &request(1).requested(ip("10.0.2.15")));
        bench.expect(Nak, &request(1).requested(ip("192.0.2.15")));
        bench.expect(Nak, &request(2).requested(ip("192.0.2.15")));
        assert_eq!(bench.server.bound(), 1);
    }
}

// spec-test: rfc2131 unsure-silent reboot-unknown
#[test]
fn init_reboot_of_an_unknown_client_depends_on_authority() {
    let ask = request(1).requested(ip("10.0.2.14"));
    bench().expect(Nak, &ask);
    assert_eq!(non_authoritative().send(&ask), Err(DropReason::UnknownClient));
}

// spec-test: rfc2131 reply-ciaddr
#[test]
fn renewing_extends_the_lease_and_goes_to_the_client() {
    let mut bench = bench();
    let address = bench.lease(1);
    bench.wait_secs(1800);
    let ask = Ask { unicast: true, ..request(1).ciaddr(address) };
    let reply = bench.one(&ask);
    assert_eq!((reply.kind, reply.to), (Ack, Destination::Client(address, mac(1))));
    assert_eq!(Packet::parse(&reply.payload).unwrap().ciaddr(), address);
    assert_eq!(bench.server.next_deadline(), Some(Time(bench.now.0 + 3_600_000)));
    // REBINDING is the same by broadcast; even with the flag it goes to the address.
    let ask = request(1).ciaddr(address).field(10, &[0x80, 0]);
    assert_eq!(bench.one(&ask).to, Destination::Client(address, mac(1)));
}

// spec-test: rfc2131 rebind-check
#[test]
fn renewing_another_clients_address_is_refused() {
    let mut bench = bench();
    let address = bench.lease(1);
    bench.expect(Nak, &request(2).ciaddr(address));
    bench.expect(Nak, &request(1).ciaddr(ip("10.0.3.9")));
    assert_eq!(bench.server.bound(), 1);
}

#[test]
fn renewing_an_unknown_lease_keeps_it_if_the_address_is_free() {
    let ask = request(1).ciaddr(ip("10.0.2.14"));
    assert_eq!(bench().expect(Ack, &ask), ip("10.0.2.14"));
    assert_eq!(non_authoritative().send(&ask), Err(DropReason::UnknownClient));
    bench().expect(Nak, &request(1).ciaddr(ip("10.0.2.99")));
}

// spec-test: rfc2131 offer-ends
#[test]
fn offers_and_leases_end() {
    let mut bench = bench();
    bench.expect(Offer, &discover(1));
    bench.wait_secs(30);
    assert_eq!(bench.server.bindings().count(), 0);
    let address = bench.lease(1);
    bench.wait_secs(3599);
    assert_eq!(bench.server.bound(), 1);
    bench.wait_secs(1);
    assert_eq!(bench.server.bound(), 0);
    let ended = Event::Ended { address, mac: mac(1), port: PortId(1), how: End::Expired };
    assert_eq!(bench.out.events, [ended]);
    // An offer of a remembered address that is not taken leaves it remembered.
    bench.expect(Offer, &discover(1));
    bench.wait_secs(30);
    assert_eq!(bench.server.bindings().next().unwrap().state, State::Idle);
}

// spec-test: rfc2131 decline-mark decline-notify
#[test]
fn decline_puts_the_address_aside() {
    let mut bench = bench();
    let address = bench.lease(1);
    let decline = Ask::new(Decline, 1).requested(address).server("10.0.2.1");
    assert_eq!(bench.send(&Ask::new(Decline, 2).requested(address)), Err(DropReason::NotHolder));
    let other_port = decline.clone().port(2);
    assert_eq!(bench.send(&other_port), Err(DropReason::NotHolder));
    let other_server = Ask::new(Decline, 1).requested(address).server("10.0.2.9");
    assert_eq!(bench.send(&other_server), Err(DropReason::OtherServer));
    assert_eq!(bench.send(&Ask::new(Decline, 1)), Err(DropReason::MessageType));
    assert_eq!(bench.send(&decline), Ok(vec![]));
    assert_eq!(Record::parse_all(&bench.out.records).0, [Record::Freed(address)]);
    assert!(matches!(bench.out.events[..], [Event::Ended { how: End::Declined, .. }]));
    for client in 1..10 {
        assert_ne!(bench.lease(client), address);
    }
    assert_eq!(bench.send(&discover(99)), Err(DropReason::PoolFull));
    bench.wait_secs(600);
    assert_eq!(bench.lease(99), address);
}

// spec-test: rfc2131 release-free release-remember
#[test]
fn release_frees_but_remembers() {
    let mut bench = bench();
    let address = bench.lease(1);
    let release = Ask::new(Release, 1).ciaddr(address).server("10.0.2.1");
    assert_eq!(bench.send(&release.clone().port(2)), Err(DropReason::NotHolder));
    assert_eq!(bench.send(&Ask::new(Release, 2).ciaddr(address)), Err(DropReason::NotHolder));
    assert_eq!(bench.send(&release), Ok(vec![]));
    assert!(matches!(bench.out.events[..], [Event::Ended { how: End::Released, .. }]));
    assert_eq!(bench.server.bound(), 0);
    // The record says that the lease is over and whose it was.
    let mut second = Bench::new(lab());
    for record in Record::parse_all(&bench.out.records).0 {
        second.server.restore(bench.now, record);
    }
    assert_eq!(second.server.bound(), 0);
    assert_eq!(second.lease(1), address);
    // It goes to another only when nothing else is left.
    for client in 2..11 {
        assert_ne!(bench.lease(client), address);
    }
    assert_eq!(bench.lease(11), address);
}

// spec-test: rfc2131 inform-unicast inform-consistent inform-no-lease
// spec-test: rfc2131 inform-no-time inform-no-address
#[test]
fn inform_is_told_everything_but_an_address() {
    let mut bench = bench();
    let ask = Ask::new(Inform, 1).ciaddr(ip("10.0.2.200"));
    let reply = bench.one(&ask);
    assert_eq!((reply.kind, reply.to), (Ack, Destination::Client(ip("10.0.2.200"), mac(1))));
    let packet = Packet::parse(&reply.payload).unwrap();
    assert!(packet.yiaddr().is_unspecified());
    for absent in [code::LEASE_TIME, code::RENEWAL_TIME, code::REBINDING_TIME] {
        assert_eq!(packet.options().get(absent), None);
    }
    assert_eq!(packet.options().get(code::DNS).unwrap().as_ref(), [10, 0, 2, 3]);
    // Some clients leave ciaddr out; the packet's source tells.
    let lazy = Ask { source: ip("10.0.2.201"), ..Ask::new(Inform, 1) };
    assert_eq!(bench.one(&lazy).to, Destination::Client(ip("10.0.2.201"), mac(1)));
    assert_eq!(bench.send(&Ask::new(Inform, 1)), Err(DropReason::MessageType));
    for elsewhere in ["192.0.2.1", "10.0.2.255", "224.0.0.1"] {
        let ask = Ask::new(Inform, 1).ciaddr(ip(elsewhere));
        assert_eq!(bench.send(&ask), Err(DropReason::UnknownSubnet), "{elsewhere}");
    }
    assert_eq!(bench.server.bindings().count(), 0);
}

// spec-test: rfc2131 reply-broadcast reply-unicast identifier-local
#[test]
fn offers_go_where_the_client_can_hear_them() {
    let mut bench = bench();
    let reply = bench.one(&discover(1));
    let address = Packet::parse(&reply.payload).unwrap().yiaddr();
    assert_eq!(reply.to, Destination::Client(address, mac(1)));
    assert_eq!(reply.from, ip("10.0.2.1"));
    let reply = bench.one(&discover(1).field(10, &[0x80, 0]));
    assert_eq!(reply.to, Destination::Broadcast);
}

// spec-test: rfc2131 time-asked offer-time times-sent times-order
#[test]
fn lease_times_are_kept_within_limits() {
    for (asked, granted) in [(1u32, 600u32), (900, 900), (7200, 7200), (u32::MAX, 7200)] {
        let mut bench = bench();
        let reply = bench.one(&discover(1).option(code::LEASE_TIME, &asked.to_be_bytes()));
        let packet = Packet::parse(&reply.payload).unwrap();
        let seconds = |code| packet.options().fixed(code).map(u32::from_be_bytes);
        assert_eq!(seconds(code::LEASE_TIME), Some(granted));
        assert_eq!(seconds(code::RENEWAL_TIME), Some(granted / 2));
        assert_eq!(seconds(code::REBINDING_TIME), Some(granted * 7 / 8));
    }
}

#[test]
fn rapid_commit_answers_a_discover_with_an_ack() {
    let mut bench = bench();
    let reply = bench.one(&discover(1).option(code::RAPID_COMMIT, &[]));
    assert_eq!(reply.kind, Ack);
    let packet = Packet::parse(&reply.payload).unwrap();
    assert_eq!(packet.options().get(code::RAPID_COMMIT).unwrap().as_ref(), b"");
    assert!(bench.out.replies.is_empty() && !bench.out.records.is_empty());
    let mut config = lab();
    config.rapid_commit = false;
    Bench::new(config).expect(Offer, &discover(1).option(code::RAPID_COMMIT, &[]));
}

pub(super) fn reserved(client: ClientMatch, address: &str, name: &str) -> Reservation {
    Reservation { client, address: Some(ip(address)), address6: None, name: name.parse().ok() }
}

#[test]
fn reservations_by_hardware_address_and_by_identifier() {
    let mut config = lab();
    config.clients.reservations = vec![
        reserved(ClientMatch::Mac(mac(1)), "10.0.2.12", "db"),
        reserved(ClientMatch::Id(b"\xffweb".to_vec()), "10.0.2.77", "web"),
    ];
    let mut bench = Bench::new(config);
    // Whatever identifier it sends: boot firmware and operating system are one machine.
    assert_eq!(bench.lease_as(&discover(1).id(b"\xffany")), ip("10.0.2.12"));
    assert_eq!(bench.lease_as(&discover(1)), ip("10.0.2.12"));
    assert_eq!(bench.lease_as(&discover(2).id(b"\xffweb")), ip("10.0.2.77"));
    // No other client gets them, requested or not.
    assert_ne!(bench.expect(Offer, &discover(3).requested(ip("10.0.2.12"))), ip("10.0.2.12"));
    bench.expect(Nak, &request(4).ciaddr(ip("10.0.2.77")));
    for client in 5..13 {
        bench.lease(client);
    }
    assert_eq!(bench.send(&discover(20)), Err(DropReason::PoolFull));
    assert_eq!(bench.server.address_of(&"db".parse().unwrap()), Some(ip("10.0.2.12")));
    // Nor when its client has left and nothing else is idle.
    bench.send(&Ask::new(Release, 1).ciaddr(ip("10.0.2.12"))).unwrap();
    assert_eq!(bench.send(&discover(20)), Err(DropReason::PoolFull));
}

#[test]
fn a_client_is_moved_to_its_new_reservation_when_it_renews() {
    let mut bench = bench();
    let address = bench.lease(1);
    let mut config = lab();
    config.clients.reservations = vec![reserved(ClientMatch::Mac(mac(1)), "10.0.2.77", "")];
    bench.server.reconfigure(bench.now, config).unwrap();
    assert_eq!(bench.server.bound(), 1);
    bench.expect(Nak, &request(1).ciaddr(address));
    assert_eq!(bench.lease(1), ip("10.0.2.77"));
}

#[test]
fn a_reserved_address_in_use_is_not_given_twice() {
    let mut bench = bench();
    let address = bench.lease(1);
    let mut config = lab();
    config.clients.reservations =
        vec![reserved(ClientMatch::Mac(mac(2)), &address.to_string(), "")];
    bench.server.reconfigure(bench.now, config).unwrap();
    // Its client gets another address until the holder's lease is over.
    assert_ne!(bench.lease(2), address);
    bench.expect(Nak, &request(1).ciaddr(address));
    bench.wait_secs(3601);
    assert_eq!(bench.lease(2), address);
}

#[test]
fn an_address_of_a_host_that_asks_no_server_is_leased_to_no_client() {
    let mut bench = bench();
    let address = bench.lease(1);
    let mut config = lab();
    config.clients.taken = vec![address.into(), "fd00::1".parse().unwrap()];
    bench.server.reconfigure(bench.now, config.clone()).unwrap();
    assert_eq!((bench.server.bound(), bench.server.pool_size(0)), (1, 9), "its lease is known");
    bench.expect(Nak, &request(1).ciaddr(address));
    // A restart keeps what is in force, and its end does not make the address free.
    let records = Record::parse_all(&bench.server.snapshot()).0;
    let mut bench = Bench::new(config);
    records.into_iter().for_each(|record| bench.server.restore(bench.now, record));
    assert_eq!(bench.server.bound(), 1);
    bench.wait_secs(3601);
    for client in 2..11 {
        assert_ne!(bench.lease(client), address);
    }
    assert_eq!(bench.send(&discover(20)), Err(DropReason::PoolFull));
    assert_eq!(bench.send(&discover(1)), Err(DropReason::PoolFull));
    bench.expect(Nak, &request(20).ciaddr(address));
    // Once its host is gone, it is leased as any other.
    bench.server.reconfigure(bench.now, lab()).unwrap();
    assert_eq!(bench.server.pool_size(0), 10);
    assert_eq!(bench.expect(Offer, &discover(20).requested(address)), address);
}

#[test]
fn what_is_taken_and_given_back_does_not_disturb_other_exchanges() {
    let mut config = lab();
    config.probe = Some(std::time::Duration::from_millis(300));
    config.clients.reservations = vec![reserved(ClientMatch::Mac(mac(9)), "10.0.2.19", "")];
    let mut bench = Bench::new(config);
    let rapid = |client| discover(client).option(code::RAPID_COMMIT, &[]);
    let probed = |bench: &Bench, state| {
        let mut all = bench.server.bindings().filter(|binding| binding.state == state);
        let address = all.next().map(|binding| binding.address);
        assert!(all.next().is_none());
        address
    };
    assert!(bench.send(&rapid(1)).unwrap().is_empty());
    let first = probed(&bench, State::Probing).unwrap();
    let other = (10..19).map(|last| Ipv4Addr::new(10, 0, 2, last)).find(|it| *it != first);
    bench.server.set_taken(vec![other.unwrap().into()]);
    assert_eq!((bench.server.pool_size(0), probed(&bench, State::Probing)), (8, Some(first)));
    bench.wait(std::time::Duration::from_millis(300));
    assert_eq!(probed(&bench, State::Bound), Some(first));
    // What is being offered is withdrawn where its address is taken, and a lease waits for its
    // client.
    bench.send(&discover(2)).unwrap();
    let second = probed(&bench, State::Probing).unwrap();
    bench.server.set_taken(vec![first.into(), second.into(), ip("10.0.2.19").into()]);
    assert_eq!((bench.server.pool_size(0), probed(&bench, State::Probing)), (7, None));
    assert_eq!(probed(&bench, State::Bound), Some(first));
    bench.expect(Nak, &request(1).ciaddr(first));
    bench.server.set_taken(Vec::new());
    assert_eq!(bench.server.pool_size(0), 9, "not what is reserved");
    assert_eq!(bench.expect(Ack, &request(1).ciaddr(first)), first);
}

#[test]
fn names_come_from_reservations_first() {
    let mut config = lab();
    config.clients.reservations = vec![reserved(ClientMatch::Mac(mac(1)), "10.0.2.12", "db")];
    let mut bench = Bench::new(config);
    let thief = discover(2).option(code::HOST_NAME, b"DB");
    bench.lease_as(&thief);
    assert_eq!(bench.server.address_of(&"db".parse().unwrap()), None);
    bench.lease_as(&discover(1).option(code::HOST_NAME, b"other"));
    assert_eq!(bench.server.address_of(&"db".parse().unwrap()), Some(ip("10.0.2.12")));
    let address = bench.lease_as(&discover(3).option(code::HOST_NAME, b"VM3.lab.example"));
    assert_eq!(bench.server.address_of(&"vm3".parse().unwrap()), Some(address));
    bench.send(&Ask::new(Release, 3).ciaddr(address)).unwrap();
    assert_eq!(bench.server.address_of(&"vm3".parse().unwrap()), None);
}

#[test]
fn a_server_takes_its_leases_over() {
    let mut bench = bench();
    let leases: Vec<_> = (1..6).map(|client| bench.lease(client)).collect();
    let mut second = Bench::new(lab());
    for record in Record::parse_all(&bench.server.snapshot()).0 {
        second.server.restore(bench.now, record);
    }
    assert_eq!(second.server.bound(), 5);
    for (client, address) in (1..6).zip(&leases) {
        assert_eq!(second.expect(Ack, &request(client).ciaddr(*address)), *address);
    }
    assert!(!leases.contains(&second.lease(9)));
}

#[test]
fn leases_outside_the_new_ranges_run_out_and_are_forgotten() {
    let mut bench = bench();
    let address = bench.lease_as(&discover(1).requested(ip("10.0.2.11")));
    let mut config = lab();
    config.subnets[0].settings.ranges = vec![ip("10.0.2.100")..=ip("10.0.2.109")];
    bench.server.reconfigure(bench.now, config.clone()).unwrap();
    assert_eq!(bench.server.bound(), 1);
    bench.expect(Nak, &request(1).ciaddr(address));
    bench.wait_secs(3601);
    bench.server.reconfigure(bench.now, config).unwrap();
    assert_eq!(bench.server.bindings().count(), 0);
    let mut broken = lab();
    broken.subnets.clear();
    assert!(bench.server.reconfigure(bench.now, broken).is_err());
    assert_eq!(bench.server.config().subnets.len(), 1);
}

#[test]
fn time_does_not_run_backwards() {
    let mut bench = bench();
    bench.lease(1);
    let end = bench.server.next_deadline();
    bench.now = Time(0);
    bench.lease(1);
    assert_eq!(bench.server.next_deadline(), end);
}

#[test]
fn servers_messages_are_not_answered() {
    let mut bench = bench();
    for kind in [Offer, Ack, Nak] {
        assert_eq!(bench.send(&Ask::new(kind, 1)), Err(DropReason::NotARequest));
    }
    let reply = discover(1).field(0, &[2]);
    assert_eq!(bench.send(&reply), Err(DropReason::NotARequest));
    assert_eq!(bench.send(&discover(1).field(3, &[17])), Err(DropReason::TooManyHops));
    assert_eq!(bench.server.counters().received(Discover), 0);
}
