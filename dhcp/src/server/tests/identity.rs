//! Which messages come from the same machine.

use super::exchange::{request, reserved};
use crate::config::{ClientMatch, Identity};
use crate::store::{LeaseRecord, Record};
use crate::testing::{Ask, Bench, discover, ip, lab, mac};
use crate::wire::MessageType::{Ack, Discover, Nak, Offer, Release, Request};
use crate::wire::options::code;
use crate::{ClientKey, DropReason, PortId, Time};

#[test]
fn a_machine_has_one_address_by_its_hardware_address_whatever_it_calls_itself() {
    let mut config = lab();
    config.clients.identity = Identity::Hardware;
    let client = ClientMatch::Id(b"\xffreserved".to_vec());
    config.clients.reservations = vec![reserved(client, "10.0.2.77", "web")];
    let mut bench = Bench::new(config);
    // Boot ROM, boot loader and system.
    let address =
        bench.lease_as(&discover(1).id(b"\0firmware-uuid").option(code::CLIENT_ARCH, &[0, 7]));
    assert_eq!(bench.lease_as(&discover(1)), address);
    assert_eq!(bench.lease_as(&discover(1).id(b"\xffsystem")), address);
    assert_eq!(bench.expect(Ack, &request(1).id(b"\xffother").ciaddr(address)), address);
    assert_eq!(bench.server.bound(), 1);
    // A nested guest is a machine of its own, a copy of an image too.
    let nested = bench.lease_as(&discover(2).id(b"\xffsystem"));
    assert_ne!(nested, address);
    // A reservation by identifier comes first.
    assert_eq!(bench.lease_as(&discover(3).id(b"\xffreserved")), ip("10.0.2.77"));
    let twin = bench.lease_as(&discover(4).id(b"\xffreserved").port(2));
    assert_ne!(twin, ip("10.0.2.77"));
    assert_eq!(bench.lease_as(&discover(4).id(b"\xffsystem").port(2)), twin);
}

#[test]
fn a_forged_hardware_address_does_not_get_its_owners_lease() {
    let mut config = lab();
    config.clients.identity = Identity::Hardware;
    let mut bench = Bench::new(config);
    let address = bench.lease_as(&discover(1).port(1));
    let forged = |kind| Ask { station: mac(66), ..Ask::new(kind, 1).port(2) };
    assert_ne!(bench.expect(Offer, &forged(Discover)), address);
    assert_eq!(bench.one(&forged(Request).ciaddr(address)).kind, Nak);
    assert_eq!(bench.send(&forged(Release).ciaddr(address)), Err(DropReason::NotHolder));
    assert_eq!(bench.expect(Ack, &request(1).port(1).ciaddr(address)), address);
    // The machine itself may move.
    assert_eq!(bench.expect(Ack, &request(1).port(2).ciaddr(address)), address);
}

/// Leases of one machine under the keys of its firmware and its system, as an earlier version
/// stored them.
fn stored(client: u8, address: &str, id: &[u8], until: u64) -> Record {
    Record::Lease(LeaseRecord {
        address: ip(address),
        until: Time(until),
        port: PortId(1),
        mac: mac(client),
        key: ClientKey::from_id(id),
        name: None,
    })
}

#[test]
fn an_upgrade_keeps_the_lease_that_a_machine_uses_and_gives_no_other_away() {
    let mut config = lab();
    config.clients.identity = Identity::Hardware;
    config.subnets[0].settings.ranges = vec![ip("10.0.2.10")..=ip("10.0.2.12")];
    let now = Time::from_secs(1_000_000).0;
    let records = [
        stored(1, "10.0.2.10", b"\0rom", now + 1000),
        stored(1, "10.0.2.11", b"\xffsystem", now + 9000),
    ];
    for records in [records.clone(), [records[1].clone(), records[0].clone()]] {
        let mut bench = Bench::new(config.clone());
        records.into_iter().for_each(|record| bench.server.restore(bench.now, record));
        assert_eq!(bench.server.bound(), 2);
        let renew = request(1).id(b"\xffsystem").ciaddr(ip("10.0.2.11"));
        assert_eq!(bench.expect(Ack, &renew), ip("10.0.2.11"));
        assert_eq!(bench.expect(Offer, &discover(1).id(b"\0rom")), ip("10.0.2.11"));
        assert_eq!(bench.expect(Offer, &discover(2)), ip("10.0.2.12"));
        assert_eq!(bench.send(&discover(3)), Err(DropReason::PoolFull));
    }
}

#[test]
fn a_change_of_what_tells_clients_apart_leaves_them_their_addresses() {
    let mut config = lab();
    let mut bench = Bench::new(config.clone());
    let address = bench.lease_as(&discover(1).id(b"\xffsystem"));
    let renew = request(1).id(b"\xffsystem").ciaddr(address);
    for identity in [Identity::Hardware, Identity::ClientId] {
        config.clients.identity = identity;
        bench.server.reconfigure(bench.now, config.clone()).unwrap();
        assert_eq!(bench.expect(Ack, &renew), address, "{identity:?}");
        assert_eq!(bench.server.bound(), 1);
    }
}
