//! Prints what an exchange costs as the number of leases grows from 1,000 to 65,000.
//!
//! `cargo run --release -p trama-dhcp --example cost`
//!
//! Each row is the best of several rounds over the same number of exchanges, so that only the
//! number of leases differs. The slope says how much a tenfold number of leases adds.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use trama_dhcp::config::{Clients, Config, Limits, Settings, Subnet};
use trama_dhcp::server::{Outcome, Received, Server};
use trama_dhcp::{PortId, Time};

const SIZES: [u32; 5] = [1_000, 4_000, 16_000, 32_000, 65_000];
/// Exchanges per measurement.
const SAMPLE: u32 = 1_000;
const ROUNDS: u32 = 20;
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 0);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

type Failure = Box<dyn std::error::Error>;

fn server() -> Result<Server, Failure> {
    let prefix = Ipv4Net::new(SERVER, 15)?;
    let last = Ipv4Addr::from_bits(FIRST.to_bits() + 70_000);
    let subnet = Subnet {
        prefix,
        server: SERVER,
        mtu: None,
        settings: Settings {
            ranges: vec![FIRST..=last],
            routers: vec![SERVER],
            dns: Some(vec![SERVER]),
            ..Settings::default()
        },
    };
    let limits = Limits { addresses: u32::MAX, offers: u32::MAX };
    let clients = Clients { limits, ..Clients::default() };
    Ok(Server::new(Config { subnets: vec![subnet], probe: None, clients, ..Config::default() })?)
}

/// A message of client `number`.
fn message(number: u32, options: &[u8], ciaddr: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[12..16].copy_from_slice(&ciaddr.octets());
    bytes[28..30].copy_from_slice(&[2, 0]);
    bytes[30..34].copy_from_slice(&number.to_be_bytes());
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(options);
    bytes.extend_from_slice(&[55, 4, 1, 3, 6, 15, 255]);
    bytes
}

struct Bench {
    server: Server,
    now: Time,
    out: Outcome,
}

impl Bench {
    /// Sends a message; returns the address in the answer.
    fn send(&mut self, payload: &[u8]) -> Result<Ipv4Addr, Failure> {
        self.out.clear();
        let source = Ipv4Addr::UNSPECIFIED;
        let received = Received { port: PortId(1), station: None, source, unicast: false, payload };
        self.server.handle(self.now, &received, &mut self.out).map_err(|why| why.describe())?;
        let reply = self.out.replies.iter().chain(&self.out.confirmed).next().ok_or("silence")?;
        let octets: [u8; 4] = reply.payload[16..20].try_into()?;
        Ok(octets.into())
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    fn lease(&mut self, number: u32) -> Result<Ipv4Addr, Failure> {
        let offered = self.send(&message(number, &[53, 1, 1], Ipv4Addr::UNSPECIFIED))?;
        let [a, b, c, d] = offered.octets();
        let [e, f, g, h] = SERVER.octets();
        let options = [53, 1, 3, 50, 4, a, b, c, d, 54, 4, e, f, g, h];
        self.send(&message(number, &options, Ipv4Addr::UNSPECIFIED))
    }
}

/// The best time per exchange over the rounds, in nanoseconds.
fn best(mut round: impl FnMut(u32) -> Result<Duration, Failure>) -> Result<f64, Failure> {
    let mut least = Duration::MAX;
    for number in 0..ROUNDS {
        least = least.min(round(number)?);
    }
    Ok(least.as_nanos() as f64 / f64::from(SAMPLE))
}

fn main() -> Result<(), Failure> {
    println!("leases  fresh ns  renewal ns");
    let mut rows = Vec::new();
    for size in SIZES {
        let mut bench =
            Bench { server: server()?, now: Time::from_secs(1), out: Outcome::default() };
        let addresses: Vec<Ipv4Addr> =
            (0..size).map(|number| bench.lease(number)).collect::<Result<_, _>>()?;
        let fresh = best(|round| {
            // New clients, which release again outside the measured time.
            let numbers = (0..SAMPLE).map(|n| 1_000_000 + round * SAMPLE + n);
            let begin = Instant::now();
            let given: Vec<Ipv4Addr> =
                numbers.clone().map(|number| bench.lease(number)).collect::<Result<_, _>>()?;
            let time = begin.elapsed();
            for (number, address) in numbers.zip(given) {
                let release = message(number, &[53, 1, 7], address);
                // A RELEASE has no answer.
                let _ = bench.send(&release);
            }
            Ok(time)
        })?;
        let renewal = best(|round| {
            let begin = Instant::now();
            for n in 0..SAMPLE {
                let number = (round * SAMPLE + n).wrapping_mul(7919) % size;
                bench.send(&message(number, &[53, 1, 3], addresses[number as usize]))?;
            }
            Ok(begin.elapsed())
        })?;
        println!("{size:>6}  {fresh:>8.0}  {renewal:>10.0}");
        rows.push((f64::from(size).log10(), fresh, renewal));
    }
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        let decades = last.0 - first.0;
        println!(
            "slope: {:+.0} ns fresh, {:+.0} ns renewal per tenfold number of leases",
            (last.1 - first.1) / decades,
            (last.2 - first.2) / decades
        );
    }
    Ok(())
}
