//! Formats by octets of the RFCs, times by running the clock.

use proptest::prelude::*;

use super::*;

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

fn advertisement() -> Advertisement {
    Advertisement {
        hop_limit: 64,
        managed: false,
        other: true,
        lifetime: 1800,
        prefixes: vec![PrefixInformation {
            prefix: "fd00:1:2:3:4::1/64".parse().unwrap(),
            on_link: true,
            autonomous: true,
            valid: 86400,
            preferred: 14400,
        }],
        mtu: Some(1400),
        dns: vec!["fd00:1:2:3::53".parse().unwrap()],
        search: vec!["lab.example".parse().unwrap()],
        dns_lifetime: 1800,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
    }
}

#[test]
fn every_option_has_its_octets() {
    let bytes = advertisement().emit(ROUTER, ALL_NODES);
    assert_eq!(
        (bytes[..2].to_vec(), bytes[4..16].to_vec()),
        (vec![134, 0], vec![64, 0x40, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0],)
    );
    assert_eq!(icmpv6_checksum(ROUTER, ALL_NODES, &bytes), 0);
    assert_ne!(icmpv6_checksum(ROUTER, HOST, &bytes), 0);
    let mut expected = vec![1, 1, 2, 0, 0, 0, 0, 1, 5, 1, 0, 0, 0, 0, 0x05, 0x78];
    expected.extend([3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0]);
    expected.extend([0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([25, 3, 0, 0, 0, 0, 0x07, 0x08]);
    expected.extend([0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0x53]);
    expected.extend([31, 3, 0, 0, 0, 0, 0x07, 0x08]);
    expected.extend(b"\x03lab\x07example\0\0\0\0");
    assert_eq!(bytes[16..], expected);
}

#[test]
fn what_is_absent_takes_no_room() {
    let bare = Advertisement {
        prefixes: vec![],
        mtu: None,
        dns: vec![],
        search: vec![],
        ..advertisement()
    };
    assert_eq!(bare.emit(ROUTER, ALL_NODES).len(), 24);
    // Too many servers for the option's length field: the rest is still right.
    let many = Advertisement { dns: vec![HOST; 128], ..bare };
    assert_eq!(many.emit(ROUTER, ALL_NODES).len(), 24);
}

fn solicitation(options: &[u8]) -> Vec<u8> {
    let mut bytes = [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat();
    let sum = icmpv6_checksum(HOST, ALL_ROUTERS, &bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn solicitations_are_checked() {
    use DropReason::*;
    let check = |hops, bytes: &[u8]| check_solicitation(HOST, ALL_ROUTERS, hops, bytes);
    let good = solicitation(&[1, 1, 2, 0, 0, 0, 0, 2]);
    assert_eq!(check(255, &good), Ok(()));
    assert_eq!(check(255, &solicitation(&[])), Ok(()));
    assert_eq!(check(254, &good), Err(NotLinkLocal));
    assert_eq!(check(255, &good[..7]), Err(TooShort));
    let mut wrong = good.clone();
    wrong[3] ^= 1;
    assert_eq!(check(255, &wrong), Err(Checksum));
    assert_eq!(check(255, &advertisement().emit(HOST, ALL_ROUTERS)), Err(NotARequest));
    assert_eq!(check(255, &solicitation(&[1, 0, 0, 0, 0, 0, 0, 0])), Err(OptionLength));
    assert_eq!(check(255, &solicitation(&[1, 2, 0, 0, 0, 0, 0, 0])), Err(OptionOverrun));
    assert_eq!(check(255, &solicitation(&[1])), Err(OptionOverrun));
    // A host without an address has no business naming one of the link layer.
    let none = Ipv6Addr::UNSPECIFIED;
    let mut bytes = solicitation(&[1, 1, 2, 0, 0, 0, 0, 2]);
    bytes[2..4].fill(0);
    let sum = icmpv6_checksum(none, ALL_ROUTERS, &bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(check_solicitation(none, ALL_ROUTERS, 255, &bytes), Err(OptionLength));
}

#[test]
fn linux_solicits_correctly() {
    // Recorded from Linux 6.18, from and to these addresses.
    let source = "fe80::5054:ff:feaa:1".parse().unwrap();
    let bytes = [0x85, 0, 0xd9, 0x2f, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0xaa, 0, 1];
    assert_eq!(check_solicitation(source, ALL_ROUTERS, 255, &bytes), Ok(()));
}

/// Every time until `end` at which something is sent, and where to.
fn run(router: &mut Router, end: Time) -> Vec<(Time, Vec<Ipv6Addr>)> {
    let mut sent = Vec::new();
    while router.next_deadline() <= end {
        let now = router.next_deadline();
        sent.push((now, router.poll(now)));
    }
    sent
}

#[test]
fn unsolicited_advertisements_keep_their_intervals() {
    let mut router = Router::new(Time(0), Duration::from_secs(600), 5);
    let sent = run(&mut router, Time::from_secs(100_000));
    assert_eq!(sent[0].0, Time(0));
    for (index, pair) in sent.windows(2).enumerate() {
        let gap = pair[1].0.saturating_sub(pair[0].0).as_secs_f64();
        let range = if index < 3 { 0.0..=16.0 } else { 200.0..=600.0 };
        assert!(range.contains(&gap), "{index}: {gap}");
        assert_eq!(pair[1].1, [ALL_NODES]);
    }
    assert!(sent.len() > 150);
}

#[test]
fn hosts_with_an_address_are_answered_alone_within_half_a_second() {
    let mut router = Router::new(Time(0), Duration::from_secs(600), 5);
    run(&mut router, Time::from_secs(1000));
    let now = Time::from_secs(1000);
    let quiet = router.next_deadline();
    assert_eq!(router.solicited(now, HOST), Ok(()));
    assert_eq!(router.solicited(now, HOST), Err(DropReason::Throttled));
    let sent = run(&mut router, Time(now.0 + 500));
    let [(_, destinations)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(destinations, &[HOST]);
    assert_eq!(router.next_deadline(), quiet);
}

#[test]
fn a_flood_of_solicitations_is_answered_sparingly() {
    let mut router = Router::new(Time(0), Duration::from_secs(600), 5);
    run(&mut router, Time::from_secs(1000));
    let (mut unicast, mut multicast) = (0, 0);
    for milli in 0..10_000u64 {
        let now = Time(1_000_000 + milli);
        for low in 0..10 {
            let none = low == 0;
            let host = Ipv6Addr::from_bits(if none { 0 } else { u128::from(milli * 10 + low) });
            let _ = router.solicited(now, host);
        }
        for destination in router.poll(now) {
            if destination == ALL_NODES { multicast += 1 } else { unicast += 1 }
        }
        assert!(router.waiting.len() <= MAX_WAITING);
    }
    assert!((3..=4).contains(&multicast), "{multicast}");
    // Each place among those that wait is taken for up to half a second.
    assert!(unicast <= 64 * 10_000 / 100, "{unicast}");
}

#[test]
fn changes_are_told_soon() {
    let mut router = Router::new(Time(0), Duration::from_secs(600), 5);
    run(&mut router, Time::from_secs(1000));
    router.changed(Time::from_secs(1000));
    assert!(router.next_deadline() <= Time(1_000_500));
    let sent = run(&mut router, Time::from_secs(1050));
    assert!(sent.len() >= 3, "{sent:?}");
}

proptest! {
    #[test]
    fn any_octets_are_checked_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = check_solicitation(HOST, ALL_ROUTERS, 255, &bytes);
        let _ = check_solicitation(HOST, ALL_ROUTERS, 255, &solicitation(&bytes));
    }
}
