//! Recorded messages of real clients, answered octet for octet as they came.
//!
//! The pool is the one address that the recording asks for, so that the client's REQUEST fits the
//! OFFER that it gets here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use trama_frame::MacAddr;

use crate::config::{Boot, BootFile, Config};
use crate::prefix::Route;
use crate::server::{Destination, End, Event, Outcome, Received, Reply, Server};
use crate::testing::{ip, lab};
use crate::wire::MessageType::{self, Ack, Offer};
use crate::wire::options::code;
use crate::wire::{Packet, Request};
use crate::{PortId, Time};

/// The station that sends them all: it does not matter if the message names the client's own.
const STATION: Option<MacAddr> = Some(MacAddr([2, 0, 0, 0, 0, 9]));

/// The messages of each client, by what they are for.
fn recorded() -> BTreeMap<&'static str, BTreeMap<&'static str, Vec<u8>>> {
    let mut clients: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for line in include_str!("clients.txt").lines().filter(|line| !line.starts_with('#')) {
        let [client, state, payload] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        clients.entry(client).or_default().insert(state, decode(payload));
    }
    clients
}

fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in text.split(' ') {
        match part.strip_prefix('*') {
            Some(count) => bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), 0),
            None => bytes.extend(
                (0..part.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&part[at..at + 2], 16).unwrap()),
            ),
        }
    }
    bytes
}

/// A server of the recording's network with this one address in its pool.
fn server(address: Ipv4Addr) -> Server {
    let mut config = lab();
    let subnet = &mut config.subnets[0];
    subnet.prefix = "10.7.0.0/24".parse().unwrap();
    subnet.server = ip("10.7.0.1");
    subnet.settings.ranges = vec![address..=address];
    let to = "10.99.0.0/16".parse().unwrap();
    subnet.settings.routes = vec![Route { to, via: ip("10.7.0.9") }];
    subnet.mtu = Some(1400);
    subnet.settings.boot = Boot {
        server: Some(ip("10.7.0.1")),
        files: vec![BootFile { ipxe: Some(true), name: "pxe.0".into(), ..BootFile::default() }],
        ..Boot::default()
    };
    Server::new(Config { ..config }).unwrap()
}

struct Replay {
    server: Server,
    out: Outcome,
}

impl Replay {
    fn send(&mut self, payload: &[u8]) -> Vec<Reply> {
        self.out.clear();
        let source = Packet::parse(payload).unwrap().ciaddr();
        let received =
            Received { port: PortId(1), station: STATION, source, unicast: false, payload };
        self.server.handle(Time::from_secs(1), &received, &mut self.out).unwrap();
        [&self.out.replies[..], &self.out.confirmed].concat()
    }

    /// The one answer, checked for what every client relies on.
    fn answer(&mut self, payload: &[u8], kind: MessageType, address: Ipv4Addr) -> Reply {
        let request = Request::parse(payload, STATION).unwrap();
        let [reply] = &self.send(payload)[..] else { panic!("{:?}", self.out) };
        assert_eq!(reply.kind, kind);
        let packet = Packet::parse(&reply.payload).unwrap();
        assert_eq!((packet.yiaddr(), packet.hardware()), (address, request.hardware));
        assert_eq!(packet.xid(), request.xid);
        let to = match request.broadcast {
            true => Destination::Broadcast,
            false => Destination::Client(address, request.mac),
        };
        assert_eq!(reply.to, to);
        let options = packet.options();
        assert_eq!(options.address(code::SERVER_ID), Some(ip("10.7.0.1")));
        assert_eq!(options.get(code::CLIENT_ID).as_deref(), request.client_id.as_deref());
        for wanted in [code::SUBNET_MASK, code::ROUTER, code::DNS, code::MTU, code::STATIC_ROUTES] {
            assert_eq!(options.get(wanted).is_some(), request.wants(wanted), "option {wanted}");
        }
        let codes: Vec<u8> = options.codes().collect();
        let place = |code| codes.iter().position(|other| *other == code);
        if let (Some(routes), Some(router)) = (place(code::STATIC_ROUTES), place(code::ROUTER)) {
            assert!(routes < router);
        }
        assert!(reply.payload.len() <= request.max_len);
        reply.clone()
    }
}

#[test]
fn recorded_clients_get_their_lease() {
    let clients = recorded();
    assert_eq!(clients.len(), 5);
    for (name, messages) in clients {
        println!("{name}");
        let select = messages.get("select").map(|select| Request::parse(select, STATION).unwrap());
        let address = select.and_then(|select| select.requested).unwrap_or(ip("10.7.0.71"));
        let mut replay = Replay { server: server(address), out: Outcome::default() };
        if let Some(rapid) = messages.get("rapid") {
            replay.answer(rapid, Ack, address);
        } else {
            replay.answer(&messages["discover"], Offer, address);
            let reply = replay.answer(&messages["select"], Ack, address);
            let file = Packet::parse(&reply.payload).unwrap().file();
            assert_eq!(file.starts_with(b"pxe.0\0"), name.starts_with("iPXE"));
        }
        assert_eq!(replay.server.bound(), 1);
        if let Some(reboot) = messages.get("reboot") {
            replay.answer(reboot, Ack, address);
        }
        if let Some(release) = messages.get("release") {
            assert_eq!(replay.send(release), []);
            let released = |event: &Event| matches!(event, Event::Ended { how: End::Released, .. });
            assert!(replay.out.events.iter().any(released));
        }
    }
}
