//! A hostile neighbour behind a NAT costs a guest no more than an honest one that is as busy.
//!
//! Both phases of a pair follow each other at once, so that what else the machine does falls on
//! both, and a third of the pairs must hold: noise spoils some, an unfair gateway all of them.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use rustix::process::nice;
use rustix::thread::gettid;
use trama_tests::nat::{
    GATEWAY, NEIGHBOUR as SERVER, NETWORK, SOON, VM1, VM2, at, guest_port, host_and_server, listen,
    namespace, route,
};
use trama_tests::process::raise_file_limit;
use trama_tests::{Host, Netns, Tramad, wait_until};

/// The L4 ports at which the server closes each connection at once. Several: a thousand connects a
/// second to a single one would soon use up the ports to connect from.
const CLOSED: [u16; 4] = [9004, 9005, 9006, 9007];
/// A phase, and the time from one connect of the guest to the next: 800 a second.
const PHASE: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_micros(1250);
/// Pairs of phases of which a third must hold, at least and at most.
const PAIRS: std::ops::RangeInclusive<usize> = 3..=12;
/// What the guest keeps beside the hostile neighbour of what it has beside the honest one: part of
/// its connects, and the factor by which the slowest of a hundred may be slower.
const LEAST_RATE: f64 = 0.95;
const MOST_DELAY: f64 = 2.0;
/// Frames that a neighbour has sent before its phase begins.
const HEAD_START: u64 = 1000;
const SINK: [u8; 4] = [192, 0, 2, 9];

/// What the neighbour sends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Traffic {
    /// Datagrams of one flow: the honest one.
    OneFlow,
    /// Each datagram from another port.
    FreshPorts,
    /// Each echo request with another identifier.
    FreshIdents,
    /// SYNs from other ports to an address that does not answer.
    Syns,
}

impl Traffic {
    /// Returns the packet with this number.
    fn packet(self, number: u64) -> Vec<u8> {
        let source: Ipv4Addr = VM2[0].parse().expect("address");
        let ip = PacketBuilder::ipv4(source.octets(), SINK, 64);
        let fresh = 1024 + (number % 60_000) as u16;
        let mut packet = Vec::new();
        let written = match self {
            Traffic::OneFlow => ip.udp(1000, 9).write(&mut packet, b"load"),
            Traffic::FreshPorts => ip.udp(fresh, 9).write(&mut packet, b"load"),
            Traffic::FreshIdents => ip.icmpv4_echo_request(fresh, 1).write(&mut packet, b"load"),
            Traffic::Syns => {
                let port = 1 + (number / 60_000) as u16;
                ip.tcp(fresh, port, number as u32, 65_535).syn().write(&mut packet, &[])
            }
        };
        written.expect("packet");
        packet
    }
}

/// Sends `rate` packets a second until `over`; counts them. Idle priority: it costs others only
/// what the gateway spends on it.
fn send(
    vm: &Netns,
    traffic: Traffic,
    rate: f64,
    over: &Arc<AtomicBool>,
) -> (thread::JoinHandle<()>, Arc<AtomicU64>) {
    let (over, sent) = (over.clone(), Arc::new(AtomicU64::new(0)));
    let count = sent.clone();
    let job = vm.inside(move || {
        nice(19).expect("nice");
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW));
        let socket = socket.expect("raw socket");
        let to = SocketAddrV4::new(Ipv4Addr::from(SINK), 0);
        let began = Instant::now();
        while !over.load(Ordering::Relaxed) {
            let due = (began.elapsed().as_secs_f64() * rate) as u64;
            let number = count.load(Ordering::Relaxed);
            if number >= due {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            // A full queue of the device loses the packet, as on any link.
            let _ = sendto(&socket, &traffic.packet(number), SendFlags::empty(), &to);
            count.store(number + 1, Ordering::Relaxed);
        }
    });
    (job, sent)
}

/// Connects of a guest in a phase.
struct Connects {
    times: Vec<Duration>,
    total: Duration,
}

impl Connects {
    /// Connects for a phase. Real-time priority, so that only the NAT can delay the guest.
    fn of_phase(vm: &Netns) -> Connects {
        let job = vm.inside(|| {
            let thread = gettid().as_raw_nonzero().to_string();
            // Where real-time priority is not permitted, it also waits for other threads.
            let _ = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).status();
            let (began, mut times) = (Instant::now(), Vec::new());
            for port in CLOSED.into_iter().cycle() {
                let start = Instant::now();
                if start - began >= PHASE {
                    break;
                }
                TcpStream::connect_timeout(&at(SERVER[0], port), SOON).expect("connect");
                times.push(start.elapsed());
                thread::sleep(PACE.saturating_sub(start.elapsed()));
            }
            times.sort_unstable();
            Connects { times, total: began.elapsed() }
        });
        job.join().expect("a guest that connects")
    }

    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.total.as_secs_f64()
    }

    /// The slowest of a hundred, in seconds.
    fn slowest(&self) -> f64 {
        self.times[self.times.len() * 99 / 100].as_secs_f64()
    }
}

/// Runs a phase beside a neighbour's traffic.
fn phase(guest: &Netns, neighbour: &Netns, traffic: Traffic, rate: f64) -> Connects {
    let over = Arc::new(AtomicBool::new(false));
    let (job, sent) = send(neighbour, traffic, rate, &over);
    wait_until("the neighbour sends", SOON, || {
        (sent.load(Ordering::Relaxed) >= HEAD_START).then_some(())
    });
    let connects = Connects::of_phase(guest);
    over.store(true, Ordering::Relaxed);
    job.join().expect("neighbour");
    connects
}

/// Compares a guest's connects beside a hostile neighbour and beside an honest one that sends as
/// many frames. Returns the counters of the hostile one's port.
fn compare(hostile: Traffic, rate: f64) -> String {
    raise_file_limit(10_000);
    let [host, server] = host_and_server();
    host.run("ip route add 192.0.2.0/24 via 203.0.113.2");
    server.run("ip route add blackhole 192.0.2.0/24; echo 1 >/proc/sys/net/ipv4/ip_forward");
    let [guest, neighbour] = ["vm1", "vm2"].map(namespace);
    let ports = [guest_port(&guest, "vm1", &VM1), guest_port(&neighbour, "vm2", &VM2)].concat();
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{ports}"));
    for closed in CLOSED.map(|port| listen(&server, &format!("[::]:{port}"))) {
        thread::spawn(move || closed.incoming().for_each(drop));
    }
    route(&guest, &GATEWAY);
    route(&neighbour, &GATEWAY);
    let mut held = 0;
    for pair in 1..=*PAIRS.end() {
        let honest = phase(&guest, &neighbour, Traffic::OneFlow, rate);
        let beside = phase(&guest, &neighbour, hostile, rate);
        println!(
            "{hostile:?}, pair {pair}: {:.0} of {:.0} connects a second, the slowest of a hundred \
             {:.2} of {:.2} ms",
            beside.rate(),
            honest.rate(),
            beside.slowest() * 1e3,
            honest.slowest() * 1e3,
        );
        let kept = beside.rate() / honest.rate();
        let slower = beside.slowest() / honest.slowest();
        held += usize::from(kept >= LEAST_RATE && slower < MOST_DELAY);
        if 3 * held >= pair && pair >= *PAIRS.start() {
            break;
        }
        assert!(pair < *PAIRS.end(), "{hostile:?}: {held} of {pair} pairs hold");
    }
    let counters = tramad.ctl("counters vm2");
    tramad.stop();
    counters
}

#[test]
fn fresh_ports_cost_a_neighbour_no_more_than_one_flow() {
    let counters = compare(Traffic::FreshPorts, 30_000.0);
    assert!(counters.contains("gateway_drops:new_flow_share"), "{counters}");
    assert!(counters.contains("send from fewer source ports"), "the remedy: {counters}");
}

#[test]
fn fresh_pings_cost_a_neighbour_no_more_than_one_flow() {
    let counters = compare(Traffic::FreshIdents, 28_000.0);
    assert!(counters.contains("gateway_drops:new_flow_share"), "{counters}");
}

#[test]
fn a_syn_flood_costs_a_neighbour_no_more_than_one_flow() {
    compare(Traffic::Syns, 20_000.0);
}
