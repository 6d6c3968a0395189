//! Structured fuzzing: messages that are almost right.

use proptest::prelude::*;

use super::{FIXED_LEN, Packet, Request};
use crate::DropReason;
use crate::PortId;
use crate::server::{Outcome, Received};
use crate::testing::{Ask, Bench, discover, lab};
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
        let _ = Request::parse(&bytes);
        let framed = [&discover(1).bytes()[..FIXED_LEN], &bytes].concat();
        let _ = Request::parse(&framed);
    }
}

fn refused(ask: Ask) -> DropReason {
    Request::parse(&ask.bytes()).unwrap_err()
}

#[test]
fn every_structural_fault_has_its_reason() {
    use DropReason::*;
    let good = discover(1).bytes();
    assert!(Request::parse(&good).is_ok());
    for length in 0..good.len() {
        let expected = if length < FIXED_LEN { TooShort } else { OptionOverrun };
        assert_eq!(Request::parse(&good[..length]), Err(expected), "{length}");
    }
    let long = [&good[..], &[0; 9000]].concat();
    assert_eq!(Request::parse(&long), Err(TooLong));
    assert_eq!(refused(discover(1).field(0, &[2])), NotARequest);
    assert_eq!(refused(discover(1).field(1, &[6])), HardwareType);
    assert_eq!(refused(discover(1).field(2, &[16])), HardwareType);
    assert_eq!(refused(discover(1).field(28, &[0xff; 6])), HardwareType);
    assert_eq!(refused(discover(1).field(28, &[0; 6])), HardwareType);
    assert_eq!(refused(discover(1).field(236, &[0; 4])), NoMagicCookie);
    assert_eq!(refused(discover(1).field(3, &[255])), TooManyHops);
    assert_eq!(refused(Ask { options: vec![], ..discover(1) }), MessageType);
    assert_eq!(refused(Ask { options: vec![53, 1, 99], ..discover(1) }), MessageType);
    assert_eq!(refused(Ask { options: vec![53, 2, 1, 1], ..discover(1) }), OptionLength);
    assert_eq!(refused(Ask::new(super::MessageType::Offer, 1)), NotARequest);
    for (code, value) in [
        (50, &[0; 3][..]),
        (51, &[0; 5]),
        (54, &[]),
        (55, &[]),
        (57, &[0; 3]),
        (61, &[1]),
        (80, &[0]),
        (81, &[0; 2]),
        (82, &[1]),
        (93, &[0; 3]),
        (97, &[]),
    ] {
        assert_eq!(refused(discover(1).option(code, value)), OptionLength, "option {code}");
    }
}

#[test]
fn what_is_not_understood_is_tolerated() {
    let ask = discover(1)
        .option(108, &[])
        .option(175, &[177, 5, 1, 128, 134, 16, 0])
        .option(12, b"\xff\xfe")
        .option(77, b"\x03abc")
        .option(55, &[1, 252, 252, 0, 255]);
    let request = Request::parse(&ask.bytes()).unwrap();
    assert_eq!((request.kind, request.host_name), (MessageType::Discover, None));
    assert!(!request.ipxe);
}
