//! What this crate's tests share: a small network, and a client that writes its own packets.

use std::net::Ipv4Addr;
use std::time::Duration;

use trama_frame::MacAddr;

use crate::config::{Clients, Config, Identity, LeaseTimes, Limits, Settings, Subnet};
use crate::server::{Outcome, Received, Reply, Server};
use crate::wire::options::code;
use crate::wire::{MessageType, Packet};
use crate::{DropReason, PortId, Time};

pub(crate) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// 10.0.2.0/24, server .1, pool .10-.19; no probe, ports practically unlimited.
pub(crate) fn lab() -> Config {
    let settings = Settings {
        ranges: vec![ip("10.0.2.10")..=ip("10.0.2.19")],
        lease: LeaseTimes::from_secs(3600, 600, 7200),
        routers: vec![ip("10.0.2.2")],
        dns: Some(vec![ip("10.0.2.3")]),
        domain: "lab.example".parse().ok(),
        ..Settings::default()
    };
    Config {
        subnets: vec![Subnet {
            prefix: "10.0.2.0/24".parse().unwrap(),
            server: ip("10.0.2.1"),
            mtu: None,
            settings,
        }],
        clients: Clients {
            identity: Identity::ClientId,
            limits: Limits { addresses: 1000, offers: 1000 },
            ..Clients::default()
        },
        probe: None,
        ..Config::default()
    }
}

/// A client's packet in the making.
#[derive(Clone)]
pub(crate) struct Ask {
    pub port: u64,
    pub station: MacAddr,
    pub source: Ipv4Addr,
    pub unicast: bool,
    pub fixed: [u8; 240],
    pub options: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(kind: MessageType, client: u8) -> Ask {
        let mut fixed = [0; 240];
        fixed[..4].copy_from_slice(&[1, 1, 6, 0]);
        fixed[4..8].copy_from_slice(&[0xaa, 0xbb, 0xcc, client]);
        fixed[28..34].copy_from_slice(&mac(client).0);
        fixed[236..].copy_from_slice(&[99, 130, 83, 99]);
        let options = vec![code::MESSAGE_TYPE, 1, kind as u8];
        Ask {
            port: 1,
            station: mac(client),
            source: Ipv4Addr::UNSPECIFIED,
            unicast: false,
            fixed,
            options,
        }
    }

    pub(crate) fn port(mut self, port: u64) -> Ask {
        self.port = port;
        self
    }

    pub(crate) fn option(mut self, code: u8, value: &[u8]) -> Ask {
        self.options.extend_from_slice(&[code, value.len() as u8]);
        self.options.extend_from_slice(value);
        self
    }

    pub(crate) fn id(self, id: &[u8]) -> Ask {
        self.option(code::CLIENT_ID, id)
    }

    /// Asks for this address, and no longer for any other.
    pub(crate) fn requested(mut self, address: Ipv4Addr) -> Ask {
        let mut at = 0;
        while let Some([code, length]) = self.options.get(at..at + 2) {
            let end = at + 2 + usize::from(*length);
            if *code == code::REQUESTED_ADDRESS {
                self.options.drain(at..end);
            } else {
                at = end;
            }
        }
        self.option(code::REQUESTED_ADDRESS, &address.octets())
    }

    pub(crate) fn server(self, address: &str) -> Ask {
        self.option(code::SERVER_ID, &ip(address).octets())
    }

    pub(crate) fn field(mut self, at: usize, octets: &[u8]) -> Ask {
        self.fixed[at..at + octets.len()].copy_from_slice(octets);
        self
    }

    pub(crate) fn ciaddr(self, address: Ipv4Addr) -> Ask {
        Ask { source: address, ..self.field(12, &address.octets()) }
    }

    pub(crate) fn giaddr(self, address: &str) -> Ask {
        self.field(24, &ip(address).octets())
    }

    pub(crate) fn mac(self, mac: MacAddr) -> Ask {
        Ask { station: mac, ..self.field(28, &mac.0) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.fixed[..], &self.options, &[code::END]].concat()
    }
}

pub(crate) fn mac(client: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, client])
}

pub(crate) fn discover(client: u8) -> Ask {
    Ask::new(MessageType::Discover, client)
}

/// A server with a clock and all its output.
pub(crate) struct Bench {
    pub server: Server,
    pub now: Time,
    pub out: Outcome,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Bench {
        let server = Server::new(config).unwrap();
        Bench { server, now: Time::from_secs(1_000_000), out: Outcome::default() }
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.out.clear();
        self.server.poll(self.now, &mut self.out);
    }

    pub(crate) fn wait_secs(&mut self, seconds: u64) {
        self.wait(Duration::from_secs(seconds));
    }

    /// Sends, and returns the answers of both kinds.
    pub(crate) fn send(&mut self, ask: &Ask) -> Result<Vec<Reply>, DropReason> {
        self.out.clear();
        let bytes = ask.bytes();
        let received = Received {
            port: PortId(ask.port),
            station: Some(ask.station),
            source: ask.source,
            unicast: ask.unicast,
            payload: &bytes,
        };
        self.server.handle(self.now, &received, &mut self.out)?;
        Ok([&self.out.replies[..], &self.out.confirmed].concat())
    }

    /// Sends what is answered by one message of `kind`; returns the address in it.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: MessageType, ask: &Ask) -> Ipv4Addr {
        let reply = self.one(ask);
        assert_eq!(reply.kind, kind);
        Packet::parse(&reply.payload).unwrap().yiaddr()
    }

    /// Sends what is answered by one message.
    #[track_caller]
    pub(crate) fn one(&mut self, ask: &Ask) -> Reply {
        let replies = self.send(ask).unwrap();
        let [reply] = &replies[..] else { panic!("not one answer: {replies:?}") };
        let packet = Packet::parse(&reply.payload).unwrap();
        assert_eq!(packet.xid().to_be_bytes(), ask.fixed[4..8]);
        assert_eq!(packet.options().fixed(code::MESSAGE_TYPE), Some([reply.kind as u8]));
        reply.clone()
    }

    /// DISCOVER, OFFER, REQUEST, ACK by this client, from `like`'s port and with its options.
    #[track_caller]
    pub(crate) fn lease_as(&mut self, like: &Ask) -> Ipv4Addr {
        let offered = self.expect(MessageType::Offer, like);
        let mut request = like.clone().requested(offered).server("10.0.2.1");
        request.options[2] = MessageType::Request as u8;
        let leased = self.expect(MessageType::Ack, &request);
        assert_eq!(leased, offered);
        leased
    }

    #[track_caller]
    pub(crate) fn lease(&mut self, client: u8) -> Ipv4Addr {
        self.lease_as(&discover(client))
    }
}
