//! Random clients on several ports against a slow, obvious model of the answers.
//!
//! The model knows nothing of the server's tables. It keeps what each client believes, from the
//! ACKs that reached it, and judges every answer by that.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use crate::config::{ClientMatch, Config, Identity, Limits, Reservation};
use crate::server::{Event, Reply};
use crate::store::Record;
use crate::testing::{Ask, Bench, discover, ip, lab, mac};
use crate::wire::MessageType::{self, Ack, Decline, Inform, Nak, Offer, Release, Request};
use crate::wire::{Packet, options::code};
use crate::{PortId, State, Time};

const CLIENTS: u8 = 10;
const PORTS: u64 = 4;
const LIMITS: Limits = Limits { addresses: 4, offers: 2 };
/// This client's address is reserved.
const RESERVED: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Discover(u8, Option<u8>, bool),
    Select(u8),
    SelectOther(u8),
    Renew(u8, bool),
    Reboot(u8),
    Release(u8),
    Decline(u8),
    /// A message with this type, requested address, `ciaddr` and server, from that client.
    Hostile(u8, u8, u8, u8, bool),
    InUse(u8),
    Wait(u32),
    /// The process dies and starts again.
    Restart,
    /// The same, after the answer to this DISCOVER and before its record was durable.
    DieIn(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 0..CLIENTS;
    let step = prop_oneof![
        6 => (client(), prop::option::of(8..22u8), any::<bool>())
            .prop_map(|(c, wanted, rapid)| Step::Discover(c, wanted, rapid)),
        6 => client().prop_map(Step::Select),
        1 => client().prop_map(Step::SelectOther),
        4 => (client(), any::<bool>()).prop_map(|(c, unicast)| Step::Renew(c, unicast)),
        2 => client().prop_map(Step::Reboot),
        2 => client().prop_map(Step::Release),
        1 => client().prop_map(Step::Decline),
        3 => (client(), 1..9u8, 0..30u8, 0..30u8, any::<bool>())
            .prop_map(|(c, kind, wanted, has, ours)| Step::Hostile(c, kind, wanted, has, ours)),
        1 => (0..4u8).prop_map(Step::InUse),
        4 => prop_oneof![0..500u32, 0..5_000_000u32].prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => client().prop_map(Step::DieIn),
    ];
    prop::collection::vec(step, 1..120)
}

fn config(probe: bool, identity: Identity) -> Config {
    let mut config = lab();
    config.clients.identity = identity;
    config.clients.limits = LIMITS;
    config.probe = probe.then_some(Duration::from_millis(300));
    config.quarantine = Duration::from_secs(300);
    let client = ClientMatch::Mac(mac(RESERVED));
    config.clients.reservations = vec![Reservation {
        client,
        address: Some(ip("10.0.2.12")),
        address6: None,
        name: "db".parse().ok(),
    }];
    config
}

/// Clients with odd numbers send an identifier; 7 and 9 are copies of one image.
fn as_client(client: u8, ask: Ask) -> Ask {
    let ask = ask.port(u64::from(client) % PORTS);
    match client {
        7 | 9 => ask.id(b"\xffimage"),
        odd if odd % 2 == 1 => ask.id(&[0xff, odd]),
        _ => ask,
    }
}

fn message(client: u8, kind: MessageType) -> Ask {
    as_client(client, Ask::new(kind, client))
}

struct World {
    bench: Bench,
    probe: bool,
    identity: Identity,
    journal: Vec<u8>,
    /// What clients believe: the address, whose, until when.
    held: BTreeMap<Ipv4Addr, (u8, Time)>,
    offered: BTreeMap<u8, Ipv4Addr>,
    probed: Vec<Ipv4Addr>,
}

impl World {
    fn new(probe: bool, identity: Identity) -> World {
        World {
            bench: Bench::new(config(probe, identity)),
            probe,
            identity,
            journal: Vec::new(),
            held: BTreeMap::new(),
            offered: BTreeMap::new(),
            probed: Vec::new(),
        }
    }

    fn address_of(&self, client: u8) -> Option<Ipv4Addr> {
        self.held.iter().find(|(_, (holder, _))| *holder == client).map(|(address, _)| *address)
    }

    fn send(&mut self, ask: &Ask) -> Vec<Reply> {
        let _ = self.bench.send(ask);
        self.collect()
    }

    /// Makes the records durable and delivers the answers.
    fn collect(&mut self) -> Vec<Reply> {
        self.journal.extend_from_slice(&self.bench.out.records);
        for event in &self.bench.out.events {
            if let Event::Probe { address, .. } = event {
                self.probed.push(*address);
            }
        }
        let mut replies = std::mem::take(&mut self.bench.out.replies);
        replies.append(&mut self.bench.out.confirmed);
        self.bench.out.clear();
        replies.iter().for_each(|reply| self.judge(reply));
        replies
    }

    fn judge(&mut self, reply: &Reply) {
        let packet = Packet::parse(&reply.payload).unwrap();
        let (client, address) = (packet.hardware().octets[5], packet.yiaddr());
        assert_eq!(reply.port, PortId(u64::from(client) % PORTS), "answered to the wrong port");
        if reply.kind == Nak || address.is_unspecified() {
            return;
        }
        let pool = ip("10.0.2.10")..=ip("10.0.2.19");
        assert!(pool.contains(&address), "{address}");
        let reserved = address == ip("10.0.2.12");
        assert!(!reserved || client == RESERVED, "{address} is reserved");
        if let Some((holder, _)) = self.held.get(&address) {
            assert_eq!(*holder, client, "{address} is another client's");
        }
        match reply.kind {
            Offer => drop(self.offered.insert(client, address)),
            Ack => {
                let seconds = packet.options().fixed(code::LEASE_TIME).unwrap();
                let seconds = u64::from(u32::from_be_bytes(seconds));
                self.held.retain(|_, (holder, _)| *holder != client);
                let until = self.bench.now + Duration::from_secs(seconds);
                self.held.insert(address, (client, until));
            }
            kind => panic!("{kind:?}"),
        }
    }

    fn restart(&mut self) {
        let now = self.bench.now;
        self.bench = Bench { now, ..Bench::new(config(self.probe, self.identity)) };
        let (records, whole) = Record::parse_all(&self.journal);
        assert_eq!(whole, self.journal.len());
        for record in records {
            self.bench.server.restore(now, record);
        }
    }

    fn wait(&mut self, millis: u32) {
        self.bench.wait(Duration::from_millis(millis.into()));
        let now = self.bench.now;
        self.held.retain(|_, (_, until)| *until > now);
        self.collect();
    }

    /// A client that holds a lease keeps it, whatever happened to the server.
    fn must_keep(&mut self, ask: &Ask, address: Ipv4Addr) {
        let replies = self.send(ask);
        let [reply] = &replies[..] else { panic!("no answer for {address}") };
        let packet = Packet::parse(&reply.payload).unwrap();
        // From another address the client with a reservation is called to its own.
        if reply.kind == Nak
            && packet.hardware().station() == Some(mac(RESERVED))
            && address != ip("10.0.2.12")
        {
            self.held.remove(&address);
            return;
        }
        assert_eq!((reply.kind, packet.yiaddr()), (Ack, address));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Discover(client, wanted, rapid) => {
                let mut ask = as_client(client, discover(client));
                if let Some(last) = wanted {
                    ask = ask.requested(Ipv4Addr::new(10, 0, 2, last));
                }
                if rapid {
                    ask = ask.option(code::RAPID_COMMIT, &[]);
                }
                self.send(&ask);
            }
            Step::Select(client) => {
                if let Some(address) = self.offered.remove(&client) {
                    let ask = message(client, Request).requested(address).server("10.0.2.1");
                    self.send(&ask);
                }
            }
            Step::SelectOther(client) => {
                let ask = message(client, Request).requested(ip("10.0.2.9")).server("10.0.2.8");
                assert_eq!(self.send(&ask), []);
            }
            Step::Renew(client, unicast) => {
                if let Some(address) = self.address_of(client) {
                    let ask = Ask { unicast, ..message(client, Request).ciaddr(address) };
                    self.must_keep(&ask, address);
                }
            }
            Step::Reboot(client) => {
                if let Some(address) = self.address_of(client) {
                    self.must_keep(&message(client, Request).requested(address), address);
                }
            }
            Step::Release(client) => {
                if let Some(address) = self.address_of(client) {
                    self.held.remove(&address);
                    self.send(&message(client, Release).ciaddr(address).server("10.0.2.1"));
                }
            }
            Step::Decline(client) => {
                if let Some(address) = self.address_of(client) {
                    self.held.remove(&address);
                    self.send(&message(client, Decline).requested(address).server("10.0.2.1"));
                }
            }
            Step::Hostile(client, kind, wanted, has, ours) => {
                self.hostile(client, kind, wanted, has, ours)
            }
            Step::InUse(port) => {
                if let Some(address) = self.probed.pop() {
                    let now = self.bench.now;
                    let port = PortId(port.into());
                    self.bench.out.clear();
                    self.bench.server.in_use(now, address, mac(200), port, &mut self.bench.out);
                    self.collect();
                }
            }
            Step::Wait(millis) => self.wait(millis),
            Step::Restart => self.restart(),
            Step::DieIn(client) => {
                let ask = as_client(client, discover(client)).option(code::RAPID_COMMIT, &[]);
                let _ = self.bench.send(&ask);
                self.restart();
            }
        }
    }

    /// Anything, of which the client believes no more than what it is told. What it gives up in
    /// this way it may no longer hold.
    fn hostile(&mut self, client: u8, kind: u8, wanted: u8, has: u8, ours: bool) {
        let kind = MessageType::from_number(kind).unwrap();
        let mut ask = message(client, kind).requested(Ipv4Addr::new(10, 0, 2, wanted));
        if has > 0 {
            ask = ask.ciaddr(Ipv4Addr::new(10, 0, 2, has));
        }
        if ours {
            ask = ask.server("10.0.2.1");
        }
        if matches!(kind, Decline | Release) {
            self.held.retain(|_, (holder, _)| *holder != client);
        }
        let replies = self.send(&ask);
        assert!(kind != Inform || replies.iter().all(|reply| reply.kind == Ack));
    }

    /// What must hold after every step.
    fn check(&self) {
        for port in (0..PORTS).map(PortId) {
            // A reservation does not count against its port's share.
            let mine = || {
                let all = self.bench.server.bindings();
                all.filter(move |b| b.port == port && b.address != ip("10.0.2.12"))
            };
            let offers = mine().filter(|b| matches!(b.state, State::Offered | State::Probing));
            assert!(mine().count() <= LIMITS.addresses as usize, "{port:?} has too many");
            // A client whose address is remembered is offered it at once.
            assert!(offers.filter(|b| !b.known).count() <= LIMITS.offers as usize);
        }
        let now = self.bench.now;
        assert!(self.bench.server.next_deadline().is_none_or(|deadline| deadline > now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn nobody_loses_a_lease_and_no_address_is_given_twice(
        steps in steps(),
        probe: bool,
        identity in prop::sample::select(vec![Identity::Hardware, Identity::ClientId]),
    ) {
        let mut world = World::new(probe, identity);
        for step in &steps {
            world.step(step);
            world.check();
        }
    }
}
