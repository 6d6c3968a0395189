//! What the daemon is told of leases.

use super::*;
use crate::event::{Event, LeaseChange};

const RELEASE: u8 = 7;

fn changes(gateway: &mut Gateway) -> Vec<LeaseChange> {
    let change = |event| match event {
        Event::Lease(lease) => {
            assert_eq!((lease.port, lease.mac), (PORT.0, GUEST.0));
            lease.change
        }
        other => panic!("{other:?}"),
    };
    gateway.take_events().0.into_iter().map(change).collect()
}

#[test]
fn a_lease_is_told_from_its_beginning_to_its_end_and_not_when_it_is_renewed() {
    let config = Config { tells_events: true, ..settings() };
    let mut gateway = Gateway::new(config, random());
    gateway.open_leases(Duration::ZERO, EPOCH, Vec::new());
    let address = offer(&mut gateway);
    assert!(!gateway.has_events(), "an offer is no lease");
    request(&mut gateway, address);
    request(&mut gateway, address);
    let [Event::Lease(lease)] = &gateway.take_events().0[..] else { panic!("one lease") };
    assert_eq!((lease.address, lease.name.as_deref()), (Some(address.into()), Some("vm1")));
    assert_eq!(lease.change, LeaseChange::Leased);

    request(&mut gateway, Ipv4Addr::new(10, 0, 9, 9));
    let refused = LeaseChange::Refused("the address belongs to another subnet".to_owned());
    assert_eq!(changes(&mut gateway), [refused]);

    let payload = message(RELEASE, GUEST, address, &[(54, &GATEWAY4.octets())]);
    let ends = ((address.into(), 68), (GATEWAY4.into(), 67));
    let release = udp_frame((GUEST, GATEWAY), ends.0, ends.1, &payload).unwrap();
    gateway.handle(ms(500), PORT, &release, &mut Output::default());
    assert_eq!(changes(&mut gateway), [LeaseChange::Released]);
}

#[test]
fn a_client_that_gets_no_address_is_told() {
    let mut config = Config { tells_events: true, ..settings() };
    if let Some(dhcp) = &mut config.dhcp {
        dhcp.service.settings.ranges.clear();
    }
    let mut gateway = Gateway::new(config, random());
    gateway.open_leases(Duration::ZERO, EPOCH, Vec::new());
    gateway.handle(ms(0), PORT, &broadcast(DISCOVER, &[]), &mut Output::default());
    assert_eq!(changes(&mut gateway), [LeaseChange::Refused("pool_full".to_owned())]);
}
