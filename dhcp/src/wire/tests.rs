//! Structured fuzzing: messages that are almost right.

use proptest::prelude::*;

use super::{FIXED_LEN, Packet, Request};
use crate::DropReason;
use crate::PortId;
use crate::server::{Destination, Outcome, Received};
use crate::testing::{Ask, Bench, discover, lab, mac};
use crate::wire::MessageType;

/// Options with plausible codes and lengths, right and wrong.
fn options() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let code = prop_oneof![
        prop::sample::select(vec![
            50u8, 51, 52, 53, 54, 55, 57, 61, 12, 77, 80, 81, 82, 93, 97, 108, 116, 175, 0, 255,
        ]),
        any::<u8>(),
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..5),
        prop::collection::vec(0..9u8, 0..255),
        Just(vec![10, 0, 2, 12]),
        Just(vec![10, 0, 2, 1]),
    ];
    prop::collection::vec((code, value), 0..24)
}

fn ask(kind: u8, options: &[(u8, Vec<u8>)], fields: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut ask = discover(1);
    ask.options[2] = kind;
    for (code, value) in options {
        ask = ask.option(*code, value);
    }
    let mut bytes = ask.bytes();
    for (at, value) in fields {
        let at = at % bytes.len();
        bytes[at] = *value;
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn almost_right_messages_are_answered_within_bounds_or_counted(
        messages in prop::collection::vec(
            (0..10u8, options(), prop::collection::vec((0..400usize, any::<u8>()), 0..6),
             prop_oneof![3 => Just(0usize), 1 => 0..400usize]),
            1..6),
    ) {
        let mut bench = Bench::new(lab());
        for (kind, options, fields, cut) in messages {
            let payload = ask(kind, &options, &fields, cut);
            let received = Received {
                port: PortId(1),
                station: Some(mac(1)),
                source: [10, 0, 2, 99].into(),
                unicast: false,
                payload: &payload,
            };
            let mut out = Outcome::default();
            let result = bench.server.handle(bench.now, &received, &mut out);
            for reply in out.replies.iter().chain(&out.confirmed) {
                prop_assert!((300..=1472).contains(&reply.payload.len()));
                prop_assert!(Packet::parse(&reply.payload).is_ok());
            }
            if let Err(reason) = result {
                prop_assert!(out.replies.is_empty() && out.confirmed.is_empty());
                prop_assert!(bench.server.counters().drops.get(reason) > 0);
            }
            prop_assert!(bench.server.bindings().count() <= 12);
        }
    }

    #[test]
    fn any_octets_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let _ = Request::parse(&bytes, Some(mac(1)));
        let framed = [&discover(1).bytes()[..FIXED_LEN], &bytes].concat();
        let _ = Request::parse(&framed, Some(mac(1)));
    }
}

fn read(ask: &Ask) -> Result<Request, DropReason> {
    Request::parse(&ask.bytes(), Some(mac(9)))
}

fn refused(ask: Ask) -> DropReason {
    read(&ask).unwrap_err()
}

#[test]
fn every_structural_fault_has_its_reason() {
    use DropReason::*;
    let good = discover(1).bytes();
    assert!(Request::parse(&good, Some(mac(9))).is_ok());
    for length in 0..good.len() {
        let expected = match length {
            0..FIXED_LEN => Some(TooShort),
            _ if length < FIXED_LEN + 3 => Some(MessageType),
            _ => None,
        };
        assert_eq!(Request::parse(&good[..length], Some(mac(9))).err(), expected, "{length}");
    }
    let long = [&good[..], &[0; 9000]].concat();
    assert_eq!(Request::parse(&long, Some(mac(9))), Err(TooLong));
    assert_eq!(refused(discover(1).field(0, &[2])), NotARequest);
    assert_eq!(refused(discover(1).field(2, &[17])), HardwareType);
    let relayed = discover(1).giaddr("10.0.2.9");
    for (at, value) in [(1, &[32][..]), (2, &[0]), (28, &[0xff; 6]), (28, &[0; 6])] {
        assert_eq!(refused(relayed.clone().field(at, value)), HardwareType, "{at}");
    }
    assert_eq!(refused(discover(1).field(236, &[0; 4])), NoMagicCookie);
    assert_eq!(refused(discover(1).field(3, &[255])), TooManyHops);
    assert_eq!(refused(Ask { options: vec![], ..discover(1) }), MessageType);
    assert_eq!(refused(Ask { options: vec![53, 1, 99], ..discover(1) }), MessageType);
    assert_eq!(refused(Ask { options: vec![53, 0], ..discover(1) }), MessageType);
    assert_eq!(refused(Ask::new(super::MessageType::Offer, 1)), NotARequest);
}

#[test]
fn an_option_of_any_length_leaves_the_message_a_request() {
    let plain = read(&discover(1)).unwrap();
    for code in (1..255).filter(|code| ![52, 53].contains(code)) {
        for length in 0..5 {
            let request = read(&discover(1).option(code, &vec![0; length]));
            assert!(request.is_ok(), "option {code} of {length} octets");
        }
    }
    for (code, shortest) in
        [(50, 4), (51, 4), (54, 4), (55, 1), (57, 2), (61, 2), (81, 3), (82, 2), (93, 2), (97, 1)]
    {
        for length in 0..shortest {
            let request = read(&discover(1).option(code, &vec![1; length])).unwrap();
            assert_eq!(request, plain, "option {code} of {length} octets counts as absent");
        }
        let request = read(&discover(1).option(code, &vec![3; shortest])).unwrap();
        assert_ne!(request, plain, "option {code} of {shortest} octets");
    }
    // The last option runs past the end: all before it counts.
    let mut cut = discover(1).option(50, &[10, 0, 2, 7]).option(61, &[1; 9]).bytes();
    cut.truncate(cut.len() - 4);
    let request = Request::parse(&cut, Some(mac(9))).unwrap();
    assert_eq!((request.requested, request.client_id), (Some([10, 0, 2, 7].into()), None));
}

#[test]
fn a_client_that_names_no_station_is_known_by_its_frames_and_answered_by_broadcast() {
    for (at, value) in [(1, &[32][..]), (2, &[0]), (2, &[5]), (28, &[0xff; 6]), (28, &[0; 6])] {
        let ask = discover(1).field(at, value);
        let request = read(&ask).unwrap();
        assert_eq!((request.mac, request.broadcast), (mac(9), true), "{at}");
        let reply = Bench::new(lab()).one(&Ask { station: mac(9), ..ask.clone() });
        assert_eq!(reply.to, Destination::Broadcast);
        assert_eq!(reply.payload[1..3], ask.fixed[1..3], "htype and hlen come back");
        assert_eq!(reply.payload[28..44], ask.fixed[28..44], "chaddr too");
    }
    // The length of the field, or another name for Ethernet.
    let long = read(&discover(1).field(2, &[16])).unwrap();
    assert_eq!((long.mac, long.broadcast), (mac(1), true));
    let ieee = read(&discover(1).field(1, &[6])).unwrap();
    assert_eq!((ieee.mac, ieee.broadcast), (mac(1), false));
}

#[test]
fn what_is_not_understood_is_tolerated() {
    let ask = discover(1)
        .option(108, &[])
        .option(175, &[177, 5, 1, 128, 134, 16, 0])
        .option(12, b"\xff\xfe")
        .option(77, b"\x03abc")
        .option(55, &[1, 252, 252, 0, 255]);
    let request = read(&ask).unwrap();
    assert_eq!((request.kind, request.host_name), (MessageType::Discover, None));
    assert!(!request.boot.ipxe);
}
