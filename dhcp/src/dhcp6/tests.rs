//! One test per rule of RFC 8415, and any octets.

use proptest::prelude::*;

use super::*;

const CLIENT: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 9];
const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

fn server() -> Dhcp6 {
    let settings = Settings6 {
        dns: vec!["fd00::53".parse().unwrap()],
        search: vec!["lab.example".parse().unwrap()],
        ntp: vec!["fd00::123".parse().unwrap()],
        refresh: 1800,
    };
    Dhcp6::new(MacAddr([2, 0, 0, 0, 0, 1]), settings)
}

fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![kind, 1, 2, 3];
    options.iter().for_each(|(code, value)| put(&mut bytes, *code, value));
    bytes
}

fn answer(kind: u8, options: &[(u16, &[u8])]) -> (u8, Vec<(u16, Vec<u8>)>) {
    let bytes = server().handle(&message(kind, options)).unwrap();
    let reply = Question::parse(&bytes).unwrap();
    assert_eq!(reply.transaction, [1, 2, 3]);
    (reply.kind, reply.options.iter().map(|(code, value)| (*code, value.to_vec())).collect())
}

fn refused(kind: u8, options: &[(u16, &[u8])]) -> DropReason {
    server().handle(&message(kind, options)).unwrap_err()
}

#[test]
fn an_information_request_is_told_what_it_asks_for() {
    let wanted = [0, 24, 0, 23, 0, 32, 0, 56, 0, 99];
    let (kind, options) = answer(11, &[(1, &CLIENT), (6, &wanted)]);
    assert_eq!(kind, 7);
    let dns = "fd00::53".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    let ntp = [&[0, 1, 0, 16], &"fd00::123".parse::<Ipv6Addr>().unwrap().octets()[..]].concat();
    assert_eq!(
        options,
        [
            (1, CLIENT.to_vec()),
            (2, SERVER.to_vec()),
            (23, dns.clone()),
            (24, b"\x03lab\x07example\0".to_vec()),
            (56, ntp),
            (32, vec![0, 0, 7, 8]),
        ]
    );
    // Client identifier and option request may be absent.
    assert_eq!(answer(11, &[(6, &[0, 23])]).1, [(2, SERVER.to_vec()), (23, dns)]);
    assert_eq!(answer(11, &[]).1.len(), 5);
}

#[test]
fn information_requests_for_others_are_ignored() {
    assert_eq!(refused(11, &[(2, &CLIENT)]), DropReason::OtherServer);
    assert_eq!(answer(11, &[(2, &SERVER)]).0, 7);
    for association in [3, 4, 25] {
        assert_eq!(refused(11, &[(association, &[0; 12])]), DropReason::MessageType);
    }
}

#[test]
fn there_are_no_addresses_and_no_prefixes() {
    let association = [0, 0, 0, 7, 0, 0, 1, 0, 0, 0, 2, 0];
    let asked: &[(u16, &[u8])] =
        &[(1, &CLIENT), (3, &association), (25, &association), (4, &[0, 0, 0, 8]), (6, &[0, 23])];
    let (kind, options) = answer(1, asked);
    assert_eq!(kind, 2);
    let refusal = |status: u8| {
        [&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0], &[0, 13, 0, 2, 0, status][..]].concat()
    };
    assert_eq!(
        options[2..5],
        [(3, refusal(2)), (25, refusal(6)), (4, vec![0, 0, 0, 8, 0, 13, 0, 2, 0, 2]),]
    );
    assert_eq!(options[5].0, 23);
    // REQUEST gets the same as a REPLY.
    let (kind, options) = answer(3, &[(1, &CLIENT), (2, &SERVER), (3, &association)]);
    assert_eq!((kind, &options[2]), (7, &(3, refusal(2))));
    // What was never given cannot be renewed, rebound, released or declined.
    for kind in [5, 8, 9] {
        let (_, options) = answer(kind, &[(1, &CLIENT), (2, &SERVER), (25, &association)]);
        assert_eq!(options[2], (25, refusal(3)), "{kind}");
    }
    assert_eq!(answer(6, &[(1, &CLIENT), (3, &association)]).1[2], (3, refusal(3)));
}

#[test]
fn messages_that_contradict_their_type_are_ignored() {
    for kind in [1, 3, 5, 6, 8, 9] {
        let named: &[(u16, &[u8])] = &[(2, &SERVER)];
        assert_eq!(refused(kind, named), DropReason::MessageType, "{kind}: no client");
    }
    for kind in [1, 6] {
        assert_eq!(refused(kind, &[(1, &CLIENT), (2, &SERVER)]), DropReason::MessageType);
    }
    for kind in [3, 5, 8, 9] {
        assert_eq!(refused(kind, &[(1, &CLIENT)]), DropReason::MessageType, "{kind}: no server");
    }
    for kind in [0, 2, 4, 7, 10, 12, 13, 255] {
        assert_eq!(refused(kind, &[(1, &CLIENT)]), DropReason::NotARequest, "{kind}");
    }
}

#[test]
fn malformed_messages_have_their_reason() {
    use DropReason::*;
    assert_eq!(server().handle(&[11, 1, 2]), Err(TooShort));
    assert_eq!(server().handle(&[11; 1501]), Err(TooLong));
    assert_eq!(server().handle(&[11, 1, 2, 3, 0]), Err(OptionOverrun));
    assert_eq!(server().handle(&[11, 1, 2, 3, 0, 1, 0, 2, 0]), Err(OptionOverrun));
    assert_eq!(refused(11, &[(1, &[0; 2])]), OptionLength);
    assert_eq!(refused(11, &[(1, &[0; 131])]), OptionLength);
    assert_eq!(refused(11, &[(6, &[0; 3])]), OptionLength);
    assert_eq!(refused(1, &[(1, &CLIENT), (3, &[0; 11])]), OptionLength);
}

/// Recorded from unmodified clients, with the type of the answer.
const RECORDED: &[(&str, u8, &str)] = &[
    (
        "systemd-networkd 252, INFORMATION-REQUEST",
        7,
        "0bff74410006000a0017001f0020003800530001000e00020000ab110033bdebf95e192c000800020000",
    ),
    (
        "dhclient 4.4.3-P1 -S, INFORMATION-REQUEST",
        7,
        "0b7b23c60001000a00030001525400aa000100060008001700180027001f000800020000",
    ),
    (
        "dhclient 4.4.3-P1, SOLICIT",
        2,
        "01f5b1d70001000e0001000132943402525400aa000100060008001700180027001f00080002000000030\
         00c00aa000100000e1000001518",
    ),
];

#[test]
fn recorded_clients_are_answered() {
    for (name, kind, text) in RECORDED {
        let octet = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..text.len()).step_by(2).map(octet).collect();
        let reply = server().handle(&bytes).unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
        let (question, reply) =
            (Question::parse(&bytes).unwrap(), Question::parse(&reply).unwrap());
        assert_eq!((reply.kind, reply.transaction), (*kind, question.transaction), "{name}");
        assert_eq!(reply.get(code::CLIENT_ID), question.get(code::CLIENT_ID), "{name}");
        assert!(reply.get(code::DNS).is_some(), "{name}");
        assert_eq!(reply.get(code::DOMAINS).is_some(), question.wants(code::DOMAINS), "{name}");
        assert_eq!(reply.associations().count(), question.associations().count(), "{name}");
    }
}

proptest! {
    #[test]
    fn answers_are_bounded_and_well_formed(
        kind in 0..14u8,
        options in prop::collection::vec(
            (prop::sample::select(vec![1u16, 2, 3, 4, 6, 13, 14, 25, 300]), prop_oneof![
                Just(CLIENT.to_vec()), Just(SERVER.to_vec()), Just(vec![0; 12]),
                prop::collection::vec(any::<u8>(), 0..40),
            ]), 0..30),
        cut in prop_oneof![3 => Just(0usize), 1 => 0..50usize],
    ) {
        let list: Vec<(u16, &[u8])> =
            options.iter().map(|(code, value)| (*code, &value[..])).collect();
        let mut bytes = message(kind, &list);
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(reply) = server().handle(&bytes) {
            prop_assert!(reply.len() < 600);
            prop_assert!(Question::parse(&reply).is_ok());
        }
    }
}
