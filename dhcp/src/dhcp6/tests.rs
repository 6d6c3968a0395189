//! One test per rule of RFC 8415, clients' recorded messages, and any octets.

mod exchange;
mod stateless;

use std::net::Ipv6Addr;
use std::time::Duration;

use proptest::prelude::*;
use trama_frame::MacAddr;

use super::message::{Message, Options, code, kind, put};
use super::*;
use crate::config::{Boot, Clients, Limits};
use crate::testing::mac;
use crate::{DropReason, PortId, Time};

const CLIENT: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 9];
const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// fd00::/64, sixteen addresses; no probe, ports practically unlimited.
fn lab6() -> Config6 {
    Config6 {
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        prefix: "fd00::1/64".parse().unwrap(),
        own: vec![ip6("fd00::1")],
        ranges: vec![ip6("fd00::1000")..=ip6("fd00::100f")],
        clients: Clients { limits: Limits { addresses: 1000, offers: 1000 }, ..Clients::default() },
        lease: Duration::from_secs(3600),
        probe: None,
        offer_hold: Duration::from_secs(30),
        quarantine: Duration::from_secs(600),
        seed: 7,
        settings: Settings6 {
            dns: vec![ip6("fd00::53")],
            search: vec!["lab.example".parse().unwrap()],
            ntp: vec![ip6("fd00::123")],
            refresh: 1800,
            boot: Boot::default(),
        },
    }
}

/// The lab with other settings for its clients.
fn with(change: impl FnOnce(&mut Clients)) -> Config6 {
    let mut config = lab6();
    change(&mut config.clients);
    config
}

fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![kind, 1, 2, 3];
    options.iter().for_each(|(code, value)| put(&mut bytes, *code, value));
    bytes
}

/// An IA_NA with this identifier, for these addresses.
fn association(identifier: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, identifier, 0, 0, 0, 0, 0, 0, 0, 0];
    for address in addresses {
        put(&mut bytes, code::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
    }
    bytes
}

/// An answer, taken apart.
#[derive(Debug, PartialEq)]
struct Heard {
    kind: u8,
    options: Vec<(u16, Vec<u8>)>,
    /// Whether it waited for its record.
    confirmed: bool,
}

impl Heard {
    fn get(&self, code: u16) -> Option<&[u8]> {
        self.options.iter().find(|option| option.0 == code).map(|option| &option.1[..])
    }

    /// The addresses of the first association, each with its valid lifetime.
    fn leases(&self) -> Vec<(Ipv6Addr, u32)> {
        let Some(value) = self.get(code::IA_NA) else { return Vec::new() };
        let options = Options::parse(&value[12..]);
        let addresses = options.0.iter().filter(|option| option.0 == code::IA_ADDRESS);
        let parse = |value: &[u8]| {
            let address: [u8; 16] = value[..16].try_into().unwrap();
            (address.into(), u32::from_be_bytes(value[20..24].try_into().unwrap()))
        };
        addresses.map(|option| parse(option.1)).collect()
    }

    /// The address that is given.
    #[track_caller]
    fn address(&self) -> Ipv6Addr {
        let [(address, 3600)] = self.leases()[..] else { panic!("{self:?}") };
        address
    }

    /// The status of the first association, or of the message.
    fn status(&self) -> Option<u16> {
        let of_association =
            self.get(code::IA_NA).and_then(|value| Options::parse(&value[12..]).get(code::STATUS));
        let status = of_association.or(self.get(code::STATUS))?;
        Some(u16::from_be_bytes(status[..2].try_into().unwrap()))
    }
}

/// A server with a clock and everything that it said.
struct Bench6 {
    server: Server6,
    now: Time,
    out: Outcome6,
    journal: Vec<u8>,
}

impl Bench6 {
    fn new(config: Config6) -> Bench6 {
        let (server, now) = (Server6::new(config).unwrap(), Time::from_secs(1_000_000));
        Bench6 { server, now, out: Outcome6::default(), journal: Vec::new() }
    }

    /// Sends from a client's station on port 1.
    fn send(&mut self, client: u8, payload: &[u8]) -> Result<Vec<Heard>, DropReason> {
        self.send_from(1, client, payload)
    }

    /// Sends, and leaves what comes of it in `out`.
    fn send_raw(&mut self, payload: &[u8]) -> Result<(), DropReason> {
        let (port, source) = (PortId(1), (ip6("fe80::9"), 546));
        let received = Received6 { port, station: mac(9), source, payload };
        self.server.handle(self.now, &received, &mut self.out)
    }

    fn send_from(
        &mut self,
        port: u64,
        client: u8,
        payload: &[u8],
    ) -> Result<Vec<Heard>, DropReason> {
        let received = Received6 {
            port: PortId(port),
            station: mac(client),
            source: (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, client.into()), 546),
            payload,
        };
        let result = self.server.handle(self.now, &received, &mut self.out);
        for reply in self.out.replies.iter().chain(&self.out.confirmed) {
            assert_eq!(reply.payload[1..4], payload[1..4], "the transaction comes back");
        }
        let heard = self.heard();
        result.map(|()| heard)
    }

    fn wait(&mut self, time: Duration) -> Vec<Heard> {
        self.now = self.now + time;
        self.server.poll(self.now, &mut self.out);
        self.heard()
    }

    fn heard(&mut self) -> Vec<Heard> {
        let out = std::mem::take(&mut self.out);
        self.journal.extend(&out.records);
        self.out.probes = out.probes;
        self.out.conflicts = out.conflicts;
        let parse = |reply: &Reply6, confirmed| {
            let bytes = &reply.payload;
            let message = Message::parse(bytes).unwrap();
            assert_eq!(reply.to.1, 546);
            let own = |(code, value): &(u16, &[u8])| (*code, value.to_vec());
            let options = message.options.0.iter().map(own).collect();
            Heard { kind: message.kind, options, confirmed }
        };
        let at_once = out.replies.iter().map(|reply| parse(reply, false));
        at_once.chain(out.confirmed.iter().map(|reply| parse(reply, true))).collect()
    }

    #[track_caller]
    fn one(&mut self, client: u8, payload: &[u8]) -> Heard {
        let mut heard = self.send(client, payload).unwrap();
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// A message of a client about these addresses, to this server if its type has one.
    #[track_caller]
    fn ask(&mut self, kind: u8, client: u8, addresses: &[Ipv6Addr]) -> Heard {
        self.one(client, &about(kind, client, addresses))
    }

    /// SOLICIT, ADVERTISE, REQUEST, REPLY.
    #[track_caller]
    fn lease(&mut self, client: u8) -> Ipv6Addr {
        let offered = self.ask(kind::SOLICIT, client, &[]);
        assert_eq!((offered.kind, offered.confirmed), (kind::ADVERTISE, false));
        let address = offered.address();
        let reply = self.ask(kind::REQUEST, client, &[address]);
        assert_eq!((reply.kind, reply.confirmed), (kind::REPLY, true));
        assert_eq!(reply.address(), address);
        address
    }
}

fn about(kind: u8, client: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let duid = [&CLIENT[..9], &[client]].concat();
    let association = association(client, addresses);
    let mut options: Vec<(u16, &[u8])> = vec![(1, &duid), (3, &association)];
    if matches!(kind, kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE) {
        options.push((2, &SERVER));
    }
    message(kind, &options)
}
