//! A server without addresses: parameters, and refusals that are said.

use super::*;

fn server() -> Bench6 {
    Bench6::new(Config6 { ranges: Vec::new(), ..lab6() })
}

fn answer(kind: u8, options: &[(u16, &[u8])]) -> (u8, Vec<(u16, Vec<u8>)>) {
    let Heard { kind, options, .. } = server().one(9, &message(kind, options));
    (kind, options)
}

fn refused(kind: u8, options: &[(u16, &[u8])]) -> DropReason {
    server().send(9, &message(kind, options)).unwrap_err()
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
    let (_, options) = answer(5, &[(1, &CLIENT), (2, &SERVER), (25, &association)]);
    assert_eq!(options[2], (25, refusal(3)));
    for kind in [8, 9] {
        let (_, options) = answer(kind, &[(1, &CLIENT), (2, &SERVER), (25, &association)]);
        assert_eq!(options[2..4], [(13, vec![0, 0]), (25, refusal(3))], "{kind}");
    }
    assert_eq!(answer(6, &[(1, &CLIENT), (3, &association)]).1[2], (3, refusal(3)));
}

#[test]
fn messages_that_contradict_their_type_are_ignored() {
    for kind in [1, 3, 4, 5, 6, 8, 9] {
        let named: &[(u16, &[u8])] = &[(2, &SERVER)];
        assert_eq!(refused(kind, named), DropReason::MessageType, "{kind}: no client");
    }
    for kind in [1, 4, 6] {
        assert_eq!(refused(kind, &[(1, &CLIENT), (2, &SERVER)]), DropReason::MessageType);
    }
    for kind in [3, 5, 8, 9] {
        assert_eq!(refused(kind, &[(1, &CLIENT)]), DropReason::MessageType, "{kind}: no server");
    }
    for kind in [0, 2, 7, 10, 12, 13, 255] {
        assert_eq!(refused(kind, &[(1, &CLIENT)]), DropReason::NotARequest, "{kind}");
    }
}

#[test]
fn malformed_messages_are_refused_only_where_nothing_can_be_made_of_them() {
    use DropReason::*;
    assert_eq!(server().send(9, &[11, 1, 2]), Err(TooShort));
    assert_eq!(server().send(9, &[11; 1501]), Err(TooLong));
    assert_eq!(refused(11, &[(1, &[0; 2])]), OptionLength);
    assert_eq!(refused(11, &[(1, &[0; 131])]), OptionLength);
    // An option that runs past the end is left out.
    let whole = server().one(9, &[11, 1, 2, 3]);
    for cut in [&[0][..], &[0, 1, 0, 2, 0], &[0, 6, 0, 4, 0, 23]] {
        assert_eq!(server().one(9, &[&[11, 1, 2, 3], cut].concat()), whole, "{cut:?}");
    }
    // An odd end of a list counts for nothing, nor does an association without its fields.
    assert_eq!(answer(11, &[(6, &[0, 23, 0])]), answer(11, &[(6, &[0, 23])]));
    assert_eq!(answer(1, &[(1, &CLIENT), (3, &[0; 11])]), answer(1, &[(1, &CLIENT)]));
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
        let reply = server().send(9, &bytes).unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
        let (question, reply) = (Message::parse(&bytes).unwrap(), &reply[0]);
        assert_eq!(reply.kind, *kind, "{name}");
        assert_eq!(reply.get(code::CLIENT_ID), question.get(code::CLIENT_ID), "{name}");
        assert!(reply.get(code::DNS).is_some(), "{name}");
        assert_eq!(reply.get(code::DOMAINS).is_some(), question.wants(code::DOMAINS), "{name}");
        let associations = reply.options.iter().filter(|(code, _)| matches!(code, 3 | 4 | 25));
        assert_eq!(associations.count(), question.associations().count(), "{name}");
    }
}

proptest! {
    #[test]
    fn answers_are_bounded_and_well_formed(
        kind in 0..14u8,
        options in prop::collection::vec(
            (prop::sample::select(vec![1u16, 2, 3, 4, 6, 13, 14, 25, 300]), prop_oneof![
                Just(CLIENT.to_vec()), Just(SERVER.to_vec()), Just(vec![0; 12]),
                Just(association(1, &[ip6("fd00::1003"), ip6("fd01::1")])),
                prop::collection::vec(any::<u8>(), 0..40),
            ]), 0..30),
        cut in prop_oneof![3 => Just(0usize), 1 => 0..50usize],
    ) {
        let list: Vec<(u16, &[u8])> =
            options.iter().map(|(code, value)| (*code, &value[..])).collect();
        let mut bytes = message(kind, &list);
        bytes.truncate(bytes.len().saturating_sub(cut));
        for config in [Config6 { ranges: Vec::new(), ..lab6() }, lab6()] {
            let mut bench = Bench6::new(config);
            if bench.send_raw(&bytes).is_ok() {
                for reply in bench.out.replies.iter().chain(&bench.out.confirmed) {
                    prop_assert!(reply.payload.len() < 700);
                    prop_assert!(Message::parse(&reply.payload).is_ok());
                }
            }
        }
    }
}
