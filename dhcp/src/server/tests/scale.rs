//! A pool of 65,000 addresses, all of them leased.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use trama_frame::MacAddr;

use crate::DropReason;
use crate::config::{Config, Limits};
use crate::store::Record;
use crate::testing::{Ask, Bench, discover, ip, lab};
use crate::wire::MessageType::{Ack, Offer, Request};

const CLIENTS: u32 = 65_000;

fn config() -> Config {
    let mut config = lab();
    let last = Ipv4Addr::from_bits(ip("10.0.2.1").to_bits() + CLIENTS - 1);
    config.subnets[0].prefix = "10.0.0.0/15".parse().unwrap();
    config.subnets[0].settings.ranges = vec![ip("10.0.2.1")..=last];
    config.subnets[0].server = ip("10.1.255.1");
    config.subnets[0].settings.routers.clear();
    config.clients.limits = Limits { addresses: CLIENTS, offers: CLIENTS };
    config
}

fn client(ask: Ask, number: u32) -> Ask {
    let [a, b, c, d] = number.to_be_bytes();
    ask.mac(MacAddr([2, 9, a, b, c, d]))
}

#[test]
fn every_client_of_a_full_pool_has_its_own_address_and_keeps_it() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.server.pool_size(0), CLIENTS as usize);
    let mut addresses = Vec::new();
    for number in 0..CLIENTS {
        addresses.push(bench.expect(Ack, &client(discover(1).option(80, &[]), number)));
    }
    assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), CLIENTS as usize);
    assert_eq!(bench.server.bound(), CLIENTS as usize);
    let newcomer = client(discover(1), CLIENTS).port(2);
    assert_eq!(bench.send(&newcomer), Err(DropReason::PoolFull));
    let mut second = Bench::new(config());
    let (records, _) = Record::parse_all(&bench.server.snapshot());
    records.into_iter().for_each(|record| second.server.restore(bench.now, record));
    for (number, address) in (0..CLIENTS).zip(&addresses) {
        let ask = client(Ask::new(Request, 1).ciaddr(*address), number);
        assert_eq!(second.expect(Ack, &ask), *address);
    }
    // All at once they end, and the newcomer has the one that was idle for longest.
    second.wait_secs(3600);
    assert_eq!((second.out.events.len(), second.server.bound()), (CLIENTS as usize, 0));
    second.expect(Offer, &newcomer);
}
