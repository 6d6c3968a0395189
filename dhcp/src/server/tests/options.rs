//! What answers say.

use crate::config::{Boot, BootFile, ClientMatch, Config, Reservation};
use crate::prefix::Route;
use crate::server::{Destination, Reply};
use crate::testing::{Ask, Bench, discover, ip, lab, mac};
use crate::wire::options::code;
use crate::wire::{MessageType, Packet};

fn bench(change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = lab();
    change(&mut config);
    Bench::new(config)
}

fn codes(reply: &Reply) -> Vec<u8> {
    Packet::parse(&reply.payload).unwrap().options().codes().collect()
}

fn value(reply: &Reply, code: u8) -> Option<Vec<u8>> {
    Packet::parse(&reply.payload).unwrap().options().get(code).map(|value| value.into_owned())
}

fn asking(list: &[u8]) -> Ask {
    discover(1).option(code::PARAMETER_LIST, list)
}

// spec-test: rfc2131 parameter-unknown parameter-once identifier-sent
#[test]
fn parameters_come_in_the_order_asked_for() {
    let mut bench = bench(|_| {});
    let reply = bench.one(&asking(&[15, 6, 3, 1, 6, 51, 43, 28]));
    assert_eq!(codes(&reply), [53, 54, 51, 58, 59, 1, 15, 6, 3, 28]);
    let reply = bench.one(&asking(&[6]));
    assert_eq!(codes(&reply), [53, 54, 51, 58, 59, 6]);
    let reply = bench.one(&discover(1));
    assert_eq!(codes(&reply), [53, 54, 51, 58, 59, 1, 3, 6, 15, 28]);
}

// spec-test: rfc2131 parameter-configured
#[test]
fn every_parameter_has_its_format() {
    let mut bench = bench(|config| {
        let settings = &mut config.subnets[0].settings;
        settings.search = vec!["a.lab".parse().unwrap(), "b.lab".parse().unwrap()];
        settings.ntp = vec![ip("10.0.2.4"), ip("10.0.2.5")];
        let to = "10.8.0.0/16".parse().unwrap();
        settings.routes = vec![Route { to, via: ip("10.0.2.9") }];
        config.subnets[0].mtu = Some(1400);
        let name = "db".parse().ok();
        let client = ClientMatch::Mac(mac(1));
        config.clients.reservations =
            vec![Reservation { client, address: Some(ip("10.0.2.77")), address6: None, name }];
    });
    let reply = bench.one(&asking(&[1, 3, 6, 12, 15, 26, 28, 42, 119, 121]));
    assert_eq!(codes(&reply)[5..], [1, 121, 3, 6, 12, 15, 26, 28, 42, 119]);
    for (code, expected) in [
        (1, &[255, 255, 255, 0][..]),
        (3, &[10, 0, 2, 2]),
        (6, &[10, 0, 2, 3]),
        (12, b"db"),
        (15, b"lab.example"),
        (26, &[0x05, 0x78]),
        (28, &[10, 0, 2, 255]),
        (42, &[10, 0, 2, 4, 10, 0, 2, 5]),
        (119, b"\x01a\x03lab\0\x01b\xc0\x02"),
        // Clients that read routes look for the default route here too (RFC 3442).
        (121, &[16, 10, 8, 10, 0, 2, 9, 0, 10, 0, 2, 2]),
    ] {
        assert_eq!(value(&reply, code).as_deref(), Some(expected), "{code}");
    }
}

// spec-test: rfc2131 nak-no-time nak-message identifier-sent
#[test]
fn identifiers_are_echoed_even_in_refusals() {
    let mut bench = bench(|_| {});
    let id = [0xff, 1, 2, 3];
    let ask = discover(1).id(&id).option(code::MACHINE_ID, &[0; 17]);
    let reply = bench.one(&ask);
    assert_eq!(value(&reply, code::CLIENT_ID).as_deref(), Some(&id[..]));
    assert_eq!(value(&reply, code::MACHINE_ID), Some(vec![0; 17]));
    let ask = Ask::new(MessageType::Request, 1).id(&id).requested(ip("192.0.2.1"));
    let reply = bench.one(&ask.option(code::RELAY_INFO, &[1, 1, 9]));
    assert_eq!(reply.kind, MessageType::Nak);
    assert_eq!(codes(&reply), [53, 54, 61, 56, 82]);
    assert_eq!(value(&reply, code::CLIENT_ID).as_deref(), Some(&id[..]));
}

fn boot() -> Boot {
    let file = |architectures: &[u16], ipxe, name: &str| BootFile {
        architectures: architectures.to_vec(),
        ipxe,
        name: name.into(),
    };
    Boot {
        server: Some(ip("10.0.2.4")),
        files: vec![
            file(&[], Some(true), "menu.ipxe"),
            file(&[7], None, "ipxe.efi"),
            file(&[0], None, "undionly.kpxe"),
        ],
        ..Boot::default()
    }
}

#[test]
fn clients_that_boot_by_http_are_offered_a_uri_under_their_class() {
    let file = |architecture, name: &str| BootFile {
        architectures: vec![architecture],
        ipxe: None,
        name: name.into(),
    };
    let mut bench = bench(|config| {
        config.subnets[0].settings.boot = Boot {
            server: Some(ip("10.0.2.3")),
            files: vec![
                file(7, "grub.efi"),
                file(16, "grub.efi"),
                file(16, "http://10.0.2.9/shim.efi"),
                file(19, "grubaa64.efi"),
            ],
            ..Boot::default()
        };
    });
    let class = b"HTTPClient:Arch:00016:UNDI:003000";
    let ask = |architecture, class: &[u8]| {
        discover(1).option(code::CLIENT_ARCH, &[0, architecture]).option(code::VENDOR_CLASS, class)
    };
    let reply = bench.one(&ask(16, class));
    assert_eq!(value(&reply, code::VENDOR_CLASS).unwrap(), b"HTTPClient");
    assert_eq!(value(&reply, code::BOOT_FILE).unwrap(), b"http://10.0.2.9/shim.efi");
    let reply = bench.one(&ask(19, class));
    assert_eq!((value(&reply, code::VENDOR_CLASS), value(&reply, code::BOOT_FILE)), (None, None));
    let reply = bench.one(&ask(7, b"PXEClient:Arch:00007:UNDI:003000"));
    assert_eq!(value(&reply, code::VENDOR_CLASS), None);
    assert_eq!(value(&reply, code::BOOT_FILE).unwrap(), b"grub.efi");
}

#[test]
fn boot_clients_get_the_file_that_suits_them() {
    let mut bench = bench(|config| config.subnets[0].settings.boot = boot());
    let bios = asking(&[66, 67]).option(code::CLIENT_ARCH, &[0, 0]);
    let reply = bench.one(&bios);
    let packet = Packet::parse(&reply.payload).unwrap();
    assert_eq!(packet.siaddr(), ip("10.0.2.4"));
    assert_eq!(&packet.file()[..14], b"undionly.kpxe\0");
    assert_eq!(value(&reply, 66).as_deref(), Some(&b"10.0.2.4"[..]));
    assert_eq!(value(&reply, 67).as_deref(), Some(&b"undionly.kpxe"[..]));
    let file = |ask: &Ask, bench: &mut Bench| value(&bench.one(ask), 67).unwrap_or_default();
    let efi = asking(&[67]).option(code::CLIENT_ARCH, &[0, 7, 0, 9]);
    assert_eq!(file(&efi, &mut bench), b"ipxe.efi");
    let ipxe = efi.option(code::USER_CLASS, b"iPXE").option(175, &[177, 5, 1, 2, 3, 4, 5]);
    assert_eq!(file(&ipxe, &mut bench), b"menu.ipxe");
    // Not a boot client: nothing about booting.
    let reply = bench.one(&asking(&[66, 67]));
    let packet = Packet::parse(&reply.payload).unwrap();
    assert!(packet.siaddr().is_unspecified() && packet.file()[0] == 0);
    assert_eq!((value(&reply, 66), value(&reply, 67)), (None, None));
}

#[test]
fn names_by_option_81_are_answered_in_the_clients_format() {
    let mut bench = bench(|_| {});
    let ascii = discover(1).option(81, b"\x01\0\0vm1");
    assert_eq!(value(&bench.one(&ascii), 81).unwrap(), b"\x01\xff\xffvm1.lab.example");
    let wire = discover(1).option(81, b"\x04\0\0\x03vm1\x03old\0");
    let expected = b"\x07\xff\xff\x03vm1\x03lab\x07example\0";
    assert_eq!(value(&bench.one(&wire), 81).unwrap(), expected);
    assert_eq!(value(&bench.one(&discover(1).option(81, b"\0\0\0?")), 81), None);
}

// spec-test: rfc2131 parameter-most
#[test]
fn small_clients_get_what_fits_and_large_ones_all() {
    let mut bench = bench(|config| {
        let settings = &mut config.subnets[0].settings;
        let to = "10.8.0.0/32".parse().unwrap();
        settings.routes = vec![Route { to, via: ip("10.0.2.9") }; 40];
        settings.ntp = vec![ip("10.0.2.4"); 40];
    });
    let list = [121, 3, 6, 42];
    let reply = bench.one(&asking(&list));
    assert!(reply.payload.len() <= 548);
    assert_eq!(value(&reply, 121), None, "367 octets do not fit with the rest");
    assert!(value(&reply, 42).is_some());
    let reply = bench.one(&asking(&list).option(code::MAX_SIZE, &[0x05, 0xdc]));
    assert_eq!(value(&reply, 121).unwrap().len(), 365);
    assert!((549..=1472).contains(&reply.payload.len()));
    // A client cannot ask for fragments, nor for less than all must take.
    for size in [[0xff, 0xff], [0, 1]] {
        let reply = bench.one(&asking(&list).option(code::MAX_SIZE, &size));
        assert!((300..=1472).contains(&reply.payload.len()));
        assert!(value(&reply, 3).is_some());
    }
}

// spec-test: rfc2131 ack-as-offered no-requested no-list no-max-size
#[test]
fn an_ack_says_what_the_offer_said_and_nothing_of_the_question() {
    let mut bench = bench(|_| {});
    let list: Vec<u8> = (1..255).collect();
    let ask = |kind| Ask::new(kind, 1).option(code::PARAMETER_LIST, &list);
    let size = [0x05, 0xdc];
    let offer = bench.one(&ask(MessageType::Discover).option(code::MAX_SIZE, &size));
    let address = Packet::parse(&offer.payload).unwrap().yiaddr();
    let request = ask(MessageType::Request).option(code::MAX_SIZE, &size);
    let ack = bench.one(&request.requested(address).server("10.0.2.1"));
    assert_eq!(codes(&ack), codes(&offer));
    for code in codes(&ack) {
        assert!(![code::REQUESTED_ADDRESS, code::PARAMETER_LIST, code::MAX_SIZE].contains(&code));
        let is_same = value(&ack, code) == value(&offer, code);
        assert_eq!(is_same, code != code::MESSAGE_TYPE, "option {code}");
    }
}

// spec-test: rfc2131 flags-reserved fields-echoed
#[test]
fn fixed_fields_come_back_but_for_reserved_flags() {
    let ask = discover(1).field(10, &[0x7f, 0xff]);
    let reply = bench(|_| {}).one(&ask);
    assert!(matches!(reply.to, Destination::Client(_, to) if to == mac(1)), "no broadcast");
    assert_eq!(reply.payload[10..12], [0, 0]);
    assert_eq!(reply.payload[1..3], ask.fixed[1..3], "htype and hlen");
    for (what, at) in [("xid", 4..8), ("giaddr", 24..28), ("chaddr", 28..44)] {
        assert_eq!(reply.payload[at.clone()], ask.fixed[at], "{what}");
    }
}

#[test]
fn answers_are_padded_to_bootps_size_with_zeroes() {
    let reply = bench(|_| {}).one(&asking(&[1]));
    assert_eq!(reply.payload.len(), 300);
    let end = reply.payload.iter().rposition(|byte| *byte != 0).unwrap();
    assert_eq!(reply.payload[end], code::END);
    assert!(reply.payload[34..236].iter().all(|byte| *byte == 0), "no leftovers in free fields");
}
