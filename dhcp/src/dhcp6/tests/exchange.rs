//! Which client gets which address, and keeps it.

use super::*;
use crate::State;
use crate::config::{BootFile, ClientMatch, Identity, Reservation};
use crate::store::Record;

#[test]
fn four_messages_make_a_lease_and_rapid_commit_makes_one_of_two() {
    let mut bench = Bench6::new(lab6());
    let address = bench.lease(9);
    assert!(lab6().ranges[0].contains(&address));
    let (records, whole) = Record::parse_all(&bench.journal);
    assert_eq!(whole, bench.journal.len());
    let [Record::Lease6(lease)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((lease.address, lease.mac), (address, mac(9)));
    assert_eq!(lease.until, bench.now + Duration::from_secs(3600));
    let duid = [&CLIENT[..9], &[8]].concat();
    let rapid = message(kind::SOLICIT, &[(1, &duid), (14, &[]), (3, &association(8, &[]))]);
    let reply = bench.one(8, &rapid);
    assert_eq!((reply.kind, reply.confirmed, reply.get(14)), (kind::REPLY, true, Some(&[][..])));
    assert_ne!(reply.address(), address);
    assert_eq!(bench.server.bound(), 2);
    // Half of the lease, and four fifths.
    assert_eq!(reply.get(3).unwrap()[4..12], [0, 0, 7, 8, 0, 0, 11, 64]);
}

#[test]
fn firmware_and_system_of_one_machine_are_one_client_unless_told_apart() {
    for (identity, same) in [(Identity::Hardware, true), (Identity::ClientId, false)] {
        let mut bench = Bench6::new(with(|clients| clients.identity = identity));
        let first = bench.lease(9);
        let other = message(
            kind::SOLICIT,
            &[(1, &[0, 2, 0, 0, 0xab, 0x11, 7]), (3, &association(200, &[]))],
        );
        assert_eq!(bench.one(9, &other).address() == first, same, "{identity:?}");
        assert_ne!(bench.lease(8), first, "another station");
    }
    let mut bench = Bench6::new(with(|clients| clients.identity = Identity::Alone));
    assert_eq!(bench.lease(9), bench.lease(8));
}

#[test]
fn a_message_has_one_address_and_the_rest_is_said_to_be_none() {
    let mut bench = Bench6::new(lab6());
    let (one, two) = (association(1, &[]), association(2, &[]));
    let solicit =
        message(kind::SOLICIT, &[(1, &CLIENT), (25, &one), (3, &one), (3, &two), (4, &two[..4])]);
    let heard = bench.one(9, &solicit);
    heard.address();
    let statuses: Vec<Option<&[u8]>> =
        heard.options[2..6].iter().map(|(_, value)| value.get(value.len() - 6..)).collect();
    let none = |status| Some([0, 13, 0, 2, 0, status]);
    assert_eq!(statuses[0], none(6).as_ref().map(|it| &it[..]));
    assert_eq!(statuses[2], none(2).as_ref().map(|it| &it[..]));
    assert_eq!(statuses[3], none(2).as_ref().map(|it| &it[..]));
}

#[test]
fn a_lease_is_extended_released_remembered_and_declined() {
    let mut bench = Bench6::new(lab6());
    let address = bench.lease(9);
    for kind in [kind::RENEW, kind::REBIND] {
        bench.wait(Duration::from_secs(3000));
        assert_eq!(bench.ask(kind, 9, &[address]).address(), address);
    }
    // Another address that the client believes in has no time left.
    let stray = ip6("fd00::77");
    let leases = bench.ask(kind::RENEW, 9, &[stray, address]).leases();
    assert_eq!(leases, [(address, 3600), (stray, 0)]);
    let reply = bench.ask(kind::RELEASE, 9, &[address]);
    assert_eq!((reply.kind, reply.status(), reply.confirmed), (kind::REPLY, Some(0), true));
    assert_eq!(bench.server.binding(address).unwrap().state, State::Idle);
    assert_eq!(bench.ask(kind::RELEASE, 9, &[address]).status(), Some(3));
    assert_eq!(bench.lease(9), address, "it is remembered");
    assert_eq!(bench.ask(kind::DECLINE, 9, &[address]).status(), Some(0));
    assert_eq!(bench.server.binding(address).unwrap().state, State::Quarantined);
    assert_ne!(bench.lease(9), address);
}

#[test]
fn a_client_cannot_give_up_or_take_the_address_of_another() {
    let mut bench = Bench6::new(lab6());
    let address = bench.lease(9);
    for kind in [kind::RELEASE, kind::DECLINE, kind::RENEW] {
        assert_eq!(bench.ask(kind, 8, &[address]).status(), Some(3), "{kind}");
    }
    assert_eq!(bench.ask(kind::REQUEST, 8, &[address]).status(), Some(2));
    assert_eq!(bench.ask(kind::REBIND, 8, &[address]).leases(), [(address, 0)]);
    // Nor by the holder's station from another port.
    let release = about(kind::RELEASE, 9, &[address]);
    assert_eq!(bench.send_from(2, 9, &release).unwrap()[0].status(), Some(3));
    assert_eq!(bench.server.binding(address).unwrap().state, State::Bound);
}

#[test]
fn what_a_restart_forgot_is_still_the_clients_if_it_is_free() {
    for kind in [kind::REQUEST, kind::RENEW, kind::REBIND] {
        let mut bench = Bench6::new(lab6());
        assert_eq!(bench.ask(kind, 9, &[ip6("fd00::1003")]).address(), ip6("fd00::1003"));
    }
    let mut bench = Bench6::new(lab6());
    assert_eq!(bench.ask(kind::REQUEST, 9, &[ip6("fd01::1")]).status(), Some(4), "not on link");
    assert_eq!(bench.ask(kind::RENEW, 9, &[ip6("fd00::99")]).status(), Some(3));
}

#[test]
fn an_address_of_a_host_that_asks_no_server_is_leased_to_no_client() {
    let mut bench = Bench6::new(lab6());
    let address = bench.lease(9);
    let config = with(|clients| clients.taken = vec![address.into(), [10, 0, 2, 10].into()]);
    bench.server.reconfigure(bench.now, config).unwrap();
    assert_eq!((bench.server.bound(), bench.server.pool_size()), (1, 15));
    assert_eq!(bench.ask(kind::RENEW, 9, &[address]).status(), Some(3));
    assert_eq!(bench.ask(kind::REBIND, 9, &[address]).leases(), [(address, 0)]);
    for client in 1..16 {
        assert_ne!(bench.lease(client), address);
    }
    assert_eq!(bench.ask(kind::REQUEST, 40, &[address]).status(), Some(2));
    bench.server.reconfigure(bench.now, lab6()).unwrap();
    assert_eq!(bench.server.pool_size(), 16);
}

#[test]
fn confirm_says_whether_addresses_are_of_the_link() {
    let mut bench = Bench6::new(lab6());
    assert_eq!(bench.ask(kind::CONFIRM, 9, &[ip6("fd00::1003")]).status(), Some(0));
    assert_eq!(bench.ask(kind::CONFIRM, 9, &[ip6("fd00::1"), ip6("fd01::1")]).status(), Some(4));
    let nothing = about(kind::CONFIRM, 9, &[]);
    assert_eq!(bench.send(9, &nothing), Err(DropReason::MessageType));
}

#[test]
fn leases_survive_a_restart_and_a_change_of_settings() {
    let mut bench = Bench6::new(lab6());
    let address = bench.lease(9);
    let released = bench.lease(8);
    bench.ask(kind::RELEASE, 8, &[released]);
    for bytes in [bench.journal.clone(), bench.server.snapshot()] {
        let mut next = Bench6 { now: bench.now, ..Bench6::new(lab6()) };
        let (records, _) = Record::parse_all(&bytes);
        records.into_iter().for_each(|record| next.server.restore(next.now, record));
        assert_eq!(next.server.bound(), 1);
        assert_eq!(next.ask(kind::RENEW, 9, &[address]).address(), address);
        assert_eq!(next.lease(8), released);
    }
    let config = Config6 { lease: Duration::from_secs(60), ..lab6() };
    bench.server.reconfigure(bench.now, config).unwrap();
    assert_eq!(bench.ask(kind::RENEW, 9, &[address]).leases(), [(address, 60)]);
    assert!(bench.wait(Duration::from_secs(61)).is_empty());
    assert_eq!(bench.server.binding(address).unwrap().state, State::Idle);
}

#[test]
fn an_address_is_probed_before_it_is_offered() {
    let mut bench = Bench6::new(Config6 { probe: Some(Duration::from_millis(300)), ..lab6() });
    let solicit = about(kind::SOLICIT, 9, &[]);
    assert_eq!(bench.send(9, &solicit), Ok(Vec::new()));
    let [first] = bench.out.probes[..] else { panic!("{:?}", bench.out) };
    assert_eq!(bench.send(9, &solicit), Err(DropReason::Probing));
    let request = about(kind::REQUEST, 9, &[first]);
    assert_eq!(bench.send(9, &request), Err(DropReason::Probing));
    bench.out.probes.clear();
    bench.server.in_use(bench.now, first, mac(77), PortId(3), &mut bench.out);
    let [second] = bench.out.probes[..] else { panic!("{:?}", bench.out) };
    assert_eq!(bench.out.conflicts, [Conflict6 { address: first, user: mac(77) }]);
    assert_ne!(first, second);
    let heard = bench.wait(Duration::from_millis(300));
    assert_eq!((heard[0].kind, heard[0].address()), (kind::ADVERTISE, second));
    // The client's own answer, or a late one, changes nothing.
    bench.server.in_use(bench.now, second, mac(77), PortId(3), &mut bench.out);
    assert_eq!(bench.ask(kind::REQUEST, 9, &[second]).address(), second);
    assert_eq!(bench.ask(kind::SOLICIT, 9, &[]).address(), second, "a known client does not wait");
}

#[test]
fn one_port_cannot_exhaust_the_pool() {
    let limits = Limits { addresses: 5, offers: 2 };
    let mut bench = Bench6::new(with(|clients| clients.limits = limits));
    let mut given = std::collections::HashSet::new();
    for client in 20..200 {
        let heard = bench.send_from(66, client, &about(kind::SOLICIT, client, &[])).unwrap();
        let Some((address, _)) = heard[0].leases().first().copied() else { continue };
        let heard = bench.send_from(66, client, &about(kind::REQUEST, client, &[address])).unwrap();
        given.extend(heard[0].leases());
    }
    assert_eq!(given.len(), 5);
    for wanted in 0..16 {
        let address = Ipv6Addr::from_bits(ip6("fd00::1000").to_bits() + wanted);
        let client = 200 + wanted as u8;
        let _ = bench.send_from(66, client, &about(kind::REQUEST, client, &[address]));
    }
    assert_eq!(bench.server.bound(), 5, "nor by asking for one after the other");
    assert!(bench.server.dropped(DropReason::PortFull) > 0);
    bench.lease(9);
}

#[test]
fn reservations_are_by_station_duid_or_the_identifier_of_both_versions() {
    let both = [&[0xff, 0, 0, 0, 5][..], &CLIENT[..9], &[5]].concat();
    let reserve = |client, address: &str, name: &str| Reservation {
        client,
        address: None,
        address6: Some(ip6(address)),
        name: name.parse().ok(),
    };
    let reservations = vec![
        reserve(ClientMatch::Mac(mac(9)), "fd00::9", "nine"),
        reserve(ClientMatch::Id([&CLIENT[..9], &[8]].concat()), "fd00::8", ""),
        reserve(ClientMatch::Id(both), "fd00::1005", ""),
    ];
    let mut bench = Bench6::new(with(|clients| clients.reservations = reservations));
    assert_eq!(bench.lease(9), ip6("fd00::9"));
    assert_eq!(bench.lease(8), ip6("fd00::8"));
    assert_eq!(bench.lease(5), ip6("fd00::1005"));
    let name = bench.server.binding(ip6("fd00::9")).unwrap().name.clone();
    assert_eq!(name.unwrap().as_str(), "nine");
    for client in 20..40 {
        let heard = bench.ask(kind::SOLICIT, client, &[ip6("fd00::1005")]);
        assert!(heard.leases().iter().all(|(address, _)| *address != ip6("fd00::1005")));
    }
    // A client that gets a reservation moves to it when it renews.
    let mut bench = Bench6::new(lab6());
    let address = bench.lease(9);
    let reservations = vec![reserve(ClientMatch::Mac(mac(9)), "fd00::9", "")];
    bench
        .server
        .reconfigure(bench.now, with(|clients| clients.reservations = reservations))
        .unwrap();
    let leases = bench.ask(kind::RENEW, 9, &[address]).leases();
    assert_eq!(leases, [(ip6("fd00::9"), 3600), (address, 0)]);
}

#[test]
fn boot_clients_get_the_url_that_suits_them() {
    let file = |architecture, name: &str| BootFile {
        architectures: vec![architecture],
        ipxe: None,
        name: name.into(),
    };
    let boot = Boot {
        server6: Some(ip6("fd00::1")),
        files: vec![
            file(16, "http://[fd00::9]/shim.efi"),
            file(7, "/grub.efi"),
            file(11, "grubaa64.efi"),
        ],
        parameters: vec!["a=1".into(), String::new()],
        ..Boot::default()
    };
    let settings = Settings6 { boot: boot.clone(), ..lab6().settings };
    let mut bench = Bench6::new(Config6 { settings, ..lab6() });
    let mut url = |architecture: u8, class: &str, wishes: &[u8]| {
        let class = [&[0, 0, 1, 87, 0, class.len() as u8], class.as_bytes()].concat();
        let heard = bench.one(
            9,
            &message(
                kind::SOLICIT,
                &[(1, &CLIENT), (6, wishes), (16, &class), (61, &[0, architecture])],
            ),
        );
        let text = |code| heard.get(code).map(|url| String::from_utf8(url.to_vec()).unwrap());
        (text(59), text(16), text(60))
    };
    let wishes = [0, 59, 0, 60];
    let (file, class, parameters) = url(7, "PXEClient:Arch:00007:UNDI:003000", &wishes);
    assert_eq!(file.unwrap(), "tftp://[fd00::1]/grub.efi");
    assert_eq!(class, None, "it would be a boot server's");
    assert_eq!(parameters.unwrap(), "\0\u{3}a=1\0\0");
    let (file, class, _) = url(16, "HTTPClient:Arch:00016:UNDI:003000", &wishes);
    assert_eq!(file.unwrap(), "http://[fd00::9]/shim.efi");
    assert_eq!(class.unwrap(), "\0\0\u{1}W\0\u{a}HTTPClient");
    // No URI, no HTTP; no wish, no file; no file, no class.
    assert_eq!(url(11, "HTTPClient:Arch:00019", &wishes), (None, None, None));
    assert_eq!(url(7, "PXEClient", &[0, 23]), (None, None, None));
    assert_eq!(url(0, "PXEClient", &wishes), (None, None, None));
    let settings = Settings6 { boot: Boot { server6: None, ..boot }, ..lab6().settings };
    let mut bench = Bench6::new(Config6 { settings, ..lab6() });
    let heard = bench.one(9, &message(kind::SOLICIT, &[(1, &CLIENT), (61, &[0, 7])]));
    assert_eq!(heard.get(59), None, "no server to fetch it from");
}

#[test]
fn contradictions_are_named() {
    use ConfigError6::*;
    let refused = |change: &dyn Fn(&mut Config6)| {
        let mut config = lab6();
        assert_eq!(config.check(), Ok(()));
        change(&mut config);
        config.check().unwrap_err()
    };
    let (a, b) = (ip6("fd00::5"), ip6("fd01::5"));
    assert_eq!(refused(&|it| it.ranges = vec![a..=b]), RangeOutside(a, b));
    assert_eq!(refused(&|it| it.ranges = vec![b..=a]), RangeOutside(b, a));
    let first = ip6("fd00::");
    assert_eq!(refused(&|it| it.ranges = vec![first..=a]), RangeOutside(first, a));
    assert_eq!(refused(&|it| it.ranges = vec![a..=a, a..=a]), RangesOverlap(a, a));
    assert_eq!(refused(&|it| it.ranges = vec![a..=ip6("fd00::1:0:0")]), PoolTooLarge);
    let reserve = |number, address| Reservation {
        client: ClientMatch::Mac(mac(number)),
        address: None,
        address6: Some(address),
        name: None,
    };
    assert_eq!(refused(&|it| it.clients.reservations = vec![reserve(1, b)]), ReservationOutside(b));
    let own = ip6("fd00::1");
    assert_eq!(
        refused(&|it| it.clients.reservations = vec![reserve(1, own)]),
        ReservationOfServer(own)
    );
    let group = Reservation { client: ClientMatch::Mac(MacAddr([1; 6])), ..reserve(1, a) };
    assert_eq!(refused(&|it| it.clients.reservations = vec![group.clone()]), ClientMac(a));
    let twice = vec![reserve(1, a), reserve(2, a)];
    assert_eq!(refused(&|it| it.clients.reservations = twice.clone()), AddressTwice(a));
    let (again, c) = (ip6("fd00::6"), vec![reserve(1, a), reserve(1, ip6("fd00::6"))]);
    assert_eq!(refused(&|it| it.clients.reservations = c.clone()), ClientTwice(again));
}
