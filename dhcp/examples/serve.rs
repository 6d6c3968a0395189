//! Serves DHCPv4 in the current network namespace, to try real clients against the crate.
//!
//! `serve 10.7.0.1 FOLDER [BOOTFILE]`: subnet /16 with a pool of 65,000 addresses, leases in
//! FOLDER. Answers go out as broadcast, since a plain UDP socket cannot name a station that has no
//! address yet; the probe is off, since it cannot send ARP either. The gateway process does both
//! properly.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ipnet::Ipv4Net;
use trama_dhcp::config::{Boot, BootFile, Clients, Config, LeaseTimes, Limits, Settings, Subnet};
use trama_dhcp::prefix::Route;
use trama_dhcp::server::{Destination, Outcome, Received, Server};
use trama_dhcp::store::{Disk, Journal};
use trama_dhcp::wire::{CLIENT_PORT, SERVER_PORT};
use trama_dhcp::{PortId, Time};

const POOL: u32 = 65_000;
/// Datagrams that share one write to the lease store.
const BATCH: usize = 256;

type Failure = Box<dyn std::error::Error>;

/// A real folder.
struct Folder(PathBuf);

impl Disk for Folder {
    fn read(&mut self, file: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }
    fn create(&mut self, file: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.0.join(file)).map(drop)
    }
    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).open(self.0.join(file))?.write_all(bytes)
    }
    fn sync(&mut self, file: &str) -> io::Result<()> {
        File::open(self.0.join(file))?.sync_data()
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

fn config(server: Ipv4Addr, boot_file: Option<String>) -> Result<Config, Failure> {
    let prefix = Ipv4Net::new(server, 16)?;
    let host = |number: u32| Ipv4Addr::from_bits(prefix.network().to_bits() + number);
    let file = boot_file.map(|name| BootFile { name, ..BootFile::default() });
    let route = "10.99.0.0/16".parse()?;
    let settings = Settings {
        ranges: vec![host(256)..=host(256 + POOL - 1)],
        lease: LeaseTimes::from_secs(600, 60, 3600),
        routers: vec![server],
        dns: Some(vec![server]),
        domain: "lab.example".parse().ok(),
        search: vec!["lab.example".parse()?, "example".parse()?],
        ntp: vec![server],
        routes: vec![Route { to: route, via: host(9) }],
        boot: Boot { server: Some(server), files: file.into_iter().collect(), ..Boot::default() },
    };
    let subnet = Subnet { prefix, server, mtu: Some(1400), settings };
    let limits = Limits { addresses: POOL, offers: POOL };
    let clients = Clients { limits, ..Clients::default() };
    Ok(Config { subnets: vec![subnet], probe: None, clients, ..Config::default() })
}

fn now() -> Result<Time, Failure> {
    Ok(Time(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis().try_into()?))
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: serve ADDRESS FOLDER [BOOTFILE]";
    let address: Ipv4Addr = arguments.next().ok_or(usage)?.parse()?;
    let folder = Folder(arguments.next().ok_or(usage)?.into());
    let mut server = Server::new(config(address, arguments.next())?)?;
    let (mut journal, records, found) = Journal::open(folder)?;
    println!("{found}; {} records", records.len());
    for record in records {
        server.restore(now()?, record);
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut out = Outcome::default();
    loop {
        out.clear();
        serve_batch(&socket, &mut server, &mut out)?;
        journal.append(&out.records)?;
        if journal.wants_compaction() {
            journal.compact(&server.snapshot())?;
        }
        for reply in out.replies.iter().chain(&out.confirmed) {
            let to = match reply.to {
                Destination::Relay(relay) => (relay, SERVER_PORT),
                _ => (Ipv4Addr::BROADCAST, CLIENT_PORT),
            };
            socket.send_to(&reply.payload, to)?;
        }
    }
}

/// Answers what has come, and waits for it a while if nothing has.
fn serve_batch(socket: &UdpSocket, server: &mut Server, out: &mut Outcome) -> Result<(), Failure> {
    let mut buffer = [0; 9000];
    socket.set_nonblocking(false)?;
    for _ in 0..BATCH {
        match socket.recv_from(&mut buffer) {
            Ok((length, SocketAddr::V4(from))) => {
                let payload = &buffer[..length];
                let unicast = !from.ip().is_unspecified();
                let (port, source) = (PortId(1), *from.ip());
                let received = Received { port, station: None, source, unicast, payload };
                if let Err(reason) = server.handle(now()?, &received, out) {
                    eprintln!("{from}: {}", reason.describe());
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
        socket.set_nonblocking(true)?;
    }
    server.poll(now()?, out);
    Ok(())
}
