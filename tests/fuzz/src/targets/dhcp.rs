//! The DHCP servers and their store.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use trama_dhcp::config::{Clients, Config, LeaseTimes, Limits, Settings, Subnet};
use trama_dhcp::dhcp6::{Config6, Outcome6, Received6, Server6, Settings6};
use trama_dhcp::server::{Outcome, Received, Server};
use trama_dhcp::store::{Disk, Found, Journal, Record};
use trama_dhcp::wire::{MAX_DATAGRAM, Packet};
use trama_dhcp::{PortId, Time, ra};
use trama_frame::MacAddr;

use crate::input::Input;

/// Addresses of each pool.
const POOL: usize = 10;

fn clients() -> Clients {
    Clients { limits: Limits { addresses: 4, offers: 4 }, ..Clients::default() }
}

fn config() -> Config {
    let settings = Settings {
        ranges: vec![Ipv4Addr::new(10, 0, 2, 10)..=Ipv4Addr::new(10, 0, 2, 19)],
        lease: LeaseTimes::from_secs(3600, 600, 7200),
        routers: vec![Ipv4Addr::new(10, 0, 2, 2)],
        domain: "lab.example".parse().ok(),
        ..Settings::default()
    };
    let server = Ipv4Addr::new(10, 0, 2, 1);
    let prefix = "10.0.2.0/24".parse().unwrap();
    let subnets = vec![Subnet { prefix, server, mtu: None, settings }];
    Config { subnets, clients: clients(), ..Config::default() }
}

fn config6() -> Config6 {
    let address = |last: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    Config6 {
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        prefix: "fd00::1/64".parse().unwrap(),
        own: vec![address(1)],
        ranges: vec![address(0x1000)..=address(0x1009)],
        clients: clients(),
        lease: Duration::from_secs(3600),
        probe: Some(Duration::from_millis(300)),
        offer_hold: Duration::from_secs(30),
        quarantine: Duration::from_secs(600),
        seed: 7,
        settings: Settings6 {
            dns: vec![address(0x53)],
            search: vec!["lab.example".parse().unwrap()],
            ntp: vec![address(0x123)],
            refresh: 1800,
            boot: Default::default(),
        },
    }
}

/// What an input says of one packet beside its payload.
struct Step {
    port: PortId,
    station: MacAddr,
    later: Duration,
}

impl Step {
    fn read(input: &mut Input<'_>) -> Step {
        let port = PortId(u64::from(input.byte() % 4));
        let station = MacAddr([2, 0, 0, 0, 0, input.byte() % 8]);
        Step { port, station, later: Duration::from_millis(u64::from(input.short()) * 100) }
    }
}

/// Packets of clients over time.
pub(super) fn dhcp4(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut server = Server::new(config()).unwrap();
    let (mut now, mut journal) = (Time::from_secs(1_700_000_000), Vec::new());
    while !input.is_empty() {
        let step = Step::read(&mut input);
        now = now + step.later;
        let mut out = Outcome::default();
        let flags = input.byte();
        let received = Received {
            port: step.port,
            station: (flags & 1 != 0).then_some(step.station),
            source: Ipv4Addr::from(if flags & 2 != 0 { [0; 4] } else { [10, 0, 2, flags] }),
            unicast: flags & 4 != 0,
            payload: input.piece(),
        };
        if flags & 8 == 0 {
            let _ = server.handle(now, &received, &mut out);
        } else {
            let address = Ipv4Addr::new(10, 0, 2, flags >> 4);
            server.in_use(now, address, step.station, step.port, &mut out);
        }
        for reply in out.replies.iter().chain(&out.confirmed) {
            Packet::parse(&reply.payload).expect("a reply that is none");
            assert!(reply.payload.len() <= usize::from(MAX_DATAGRAM), "a reply is too long");
        }
        journal.extend_from_slice(&out.records);
    }
    assert!(server.bound() <= POOL, "more leases than addresses");
    check_records(&journal, server.bound());
    check_records(&server.snapshot(), server.bound());
    for binding in server.bindings() {
        let [start @ .., last] = binding.address.octets();
        assert!(start == [10, 0, 2] && (10..=19).contains(&last), "{}", binding.address);
    }
}

/// Records are whole, and have at least what is leased now.
fn check_records(bytes: &[u8], bound: usize) {
    let (records, whole) = Record::parse_all(bytes);
    assert_eq!(whole, bytes.len(), "a record is not whole");
    let is_lease = |it: &&Record| matches!(it, Record::Lease(_) | Record::Lease6(_));
    assert!(records.iter().filter(is_lease).count() >= bound, "a lease has no record");
}

/// Packets of clients over time, and router solicitations.
pub(super) fn dhcp6(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut server = Server6::new(config6()).unwrap();
    let (mut now, mut journal) = (Time::from_secs(1_700_000_000), Vec::new());
    while !input.is_empty() {
        let step = Step::read(&mut input);
        now = now + step.later;
        let flags = input.byte();
        let payload = input.piece();
        let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(flags));
        let _ = ra::check_solicitation(from, ra::ALL_NODES, 255, payload);
        let received =
            Received6 { port: step.port, station: step.station, source: (from, 546), payload };
        let mut out = Outcome6::default();
        if flags & 8 == 0 {
            let _ = server.handle(now, &received, &mut out);
        } else {
            let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x1000 + u16::from(flags >> 4));
            server.in_use(now, address, step.station, step.port, &mut out);
        }
        server.poll(now, &mut out);
        for reply in out.replies.iter().chain(&out.confirmed) {
            assert!((4..=1232).contains(&reply.payload.len()), "{} bytes", reply.payload.len());
        }
        journal.extend_from_slice(&out.records);
    }
    assert!(server.bound() <= POOL, "more leases than addresses");
    check_records(&journal, server.bound());
    check_records(&server.snapshot(), server.bound());
    for binding in server.bindings() {
        let pool = config6().ranges;
        assert!(pool.iter().any(|it| it.contains(&binding.address)), "{}", binding.address);
    }
}

/// A folder in memory.
#[derive(Default)]
struct Folder(BTreeMap<String, Vec<u8>>);

impl Disk for Folder {
    fn read(&mut self, file: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(file).cloned())
    }

    fn create(&mut self, file: &str) -> io::Result<()> {
        self.0.insert(file.to_owned(), Vec::new());
        Ok(())
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.entry(file.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, _file: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.0.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.0.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The journal as a file: after it was opened it is whole, with the same records.
pub(super) fn lease_journal(bytes: &[u8]) {
    let mut folder = Folder::default();
    folder.0.insert("leases".to_owned(), bytes.to_vec());
    let (journal, records, _) = Journal::open(folder).unwrap();
    let (_, again, found) = Journal::open(journal.into_disk()).unwrap();
    assert_eq!((again, found), (records.clone(), Found::Whole));
    let (mut server, mut server6) =
        (Server::new(config()).unwrap(), Server6::new(config6()).unwrap());
    for record in records {
        server.restore(Time::from_secs(1_700_000_000), record.clone());
        server6.restore(Time::from_secs(1_700_000_000), record);
    }
    assert!(server.bound() <= POOL && server6.bound() <= POOL, "more leases than addresses");
}

pub(super) mod seeds {
    use super::*;
    use crate::input::put_piece;

    /// A message of DHCPv4 with these options.
    pub(in super::super) fn message4(kind: u8, client: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; 240];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[4..8].copy_from_slice(&[0xaa, 0xbb, 0xcc, client]);
        message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, client]);
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        message.extend_from_slice(&[53, 1, kind]);
        for (code, value) in options {
            message.extend_from_slice(&[*code, value.len() as u8]);
            message.extend_from_slice(value);
        }
        message.push(255);
        message
    }

    /// A message of DHCPv6 with these options.
    pub(in super::super) fn message6(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![kind, 1, 2, 3];
        for (code, value) in options {
            message.extend_from_slice(&code.to_be_bytes());
            message.extend_from_slice(&(value.len() as u16).to_be_bytes());
            message.extend_from_slice(value);
        }
        message
    }

    fn steps(flags: u8, messages: &[Vec<u8>]) -> Vec<u8> {
        let mut seed = Vec::new();
        for message in messages {
            seed.extend_from_slice(&[1, 2, 10, 0, flags]);
            put_piece(&mut seed, message);
        }
        seed
    }

    pub(in super::super) fn dhcp4() -> Vec<Vec<u8>> {
        let (server, wanted) = ([10, 0, 2, 1], [10, 0, 2, 12]);
        let all: &[(u8, &[u8])] = &[
            (12, b"host"),
            (50, &wanted),
            (51, &[0, 0, 14, 16]),
            (55, &[1, 3, 6, 15, 26, 42, 119, 121, 66, 67]),
            (57, &[5, 220]),
            (60, b"PXEClient:Arch:00007"),
            (61, &[1, 2, 0, 0, 0, 0, 2]),
            (81, &[1, 0, 0, b'h']),
            (82, &[1, 2, 3, 4]),
            (93, &[0, 7]),
        ];
        let discover = message4(1, 2, all);
        let request = message4(3, 2, &[(50, &wanted), (54, &server)]);
        let renew = {
            let mut message = message4(3, 2, &[]);
            message[12..16].copy_from_slice(&wanted);
            message
        };
        vec![
            steps(3, &[discover.clone(), request.clone(), message4(4, 2, &[(50, &wanted)])]),
            steps(1, &[discover, request, renew.clone(), message4(7, 2, &[(54, &server)])]),
            steps(5, &[message4(8, 3, &[(55, &[1, 3])]), renew]),
            steps(11, &[message4(1, 4, &[(80, &[])])]),
            steps(3, &[message4(1, 4, &[(80, &[])]), message4(1, 5, &[(52, &[3])])]),
        ]
    }

    pub(in super::super) fn dhcp6() -> Vec<Vec<u8>> {
        let client: (u16, &[u8]) = (1, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 2]);
        let server: (u16, &[u8]) = (2, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]);
        let wants: (u16, &[u8]) = (6, &[0, 23, 0, 24, 0, 31, 0, 59]);
        let address = [
            &[0, 5, 0, 24, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 5][..],
            &[0, 0, 14, 16, 0, 0, 28, 32],
        ]
        .concat();
        let empty: (u16, &[u8]) = (3, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let named = [empty.1, &address].concat();
        let named: (u16, &[u8]) = (3, &named);
        vec![
            steps(
                1,
                &[
                    message6(1, &[client, empty, wants]),
                    message6(3, &[client, server, named]),
                    message6(5, &[client, server, named]),
                    message6(8, &[client, server, named]),
                ],
            ),
            steps(
                2,
                &[
                    message6(1, &[client, named, (14, &[])]),
                    message6(4, &[client, named]),
                    message6(6, &[client, named]),
                    message6(9, &[client, server, named]),
                ],
            ),
            steps(9, &[message6(11, &[client, wants, (32, &[0, 0, 0, 60])])]),
            steps(0, &[vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 2]]),
        ]
    }

    pub(in super::super) fn lease_journal() -> Vec<Vec<u8>> {
        let (mut server, mut out) = (Server::new(config()).unwrap(), Outcome::default());
        for client in 1..4 {
            for kind in [1, 3] {
                let wanted = [10, 0, 2, 10 + client];
                let server_id = [10, 0, 2, 1];
                let mut options: Vec<(u8, &[u8])> = vec![(50, &wanted), (12, b"vm")];
                if kind == 3 {
                    options.push((54, &server_id));
                }
                let received = Received {
                    port: PortId(1),
                    station: None,
                    source: Ipv4Addr::UNSPECIFIED,
                    unicast: false,
                    payload: &message4(kind, client, &options),
                };
                let now = Time::from_secs(1_700_000_000 + 10 * u64::from(kind));
                let _ = server.handle(now, &received, &mut out);
                server.poll(now + Duration::from_secs(1), &mut out);
            }
        }
        let (journal, ..) = Journal::open(Folder::default()).unwrap();
        let mut folder = journal.into_disk();
        let file = folder.0.get_mut("leases").unwrap();
        file.extend_from_slice(&server.snapshot());
        Record::Freed6(Ipv6Addr::LOCALHOST).emit(file);
        vec![file.clone(), file[..file.len() / 2].to_vec()]
    }
}
