//! TCP streams of Linux through the NAT, to a guest behind a link that drops, delays, duplicates,
//! reorders and corrupts frames: all data arrives intact, whichever side connects or sends.
//!
//! `TRAMA_LINK_SEED=N` replays the fate of each frame.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use trama_tests::impaired::{self, Impairments, LinkCounters};
use trama_tests::nat::{
    GATEWAY, HOST, NEIGHBOUR as SERVER, NETWORK, SOON, VM1, at, host_and_server, listen, namespace,
    route, set_up, tap_port,
};
use trama_tests::sim::rng::Rng;
use trama_tests::{Host, Netns, RawTap, Tramad, wait_until};

/// First L4 port of the servers, one for each stream: 12 on the server, the last six of them on the
/// guest, too.
const FIRST: u16 = 7000;
const BYTES: usize = 400_000;
/// Time without a byte after which a stream has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which side sends first; the other answers after the first one's FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Both,
    Client,
    Server,
}

/// A connection; its number decides the IP version and the direction.
#[derive(Clone, Copy, Debug)]
struct Stream(u16);

impl Stream {
    fn all() -> impl Iterator<Item = Stream> {
        (0..12).map(Stream)
    }

    fn is_from_machine(self) -> bool {
        self.0 < 6
    }

    fn order(self) -> Order {
        [Order::Both, Order::Client, Order::Server][usize::from(self.0 % 3)]
    }

    fn port(self) -> u16 {
        FIRST + self.0
    }

    /// Returns the address to connect to: the server's, or that of the host's forwards.
    fn to(self) -> SocketAddr {
        let addresses = if self.is_from_machine() { SERVER } else { HOST };
        at(addresses[usize::from(self.0 / 3 % 2)], self.port())
    }

    /// Returns what the client sends, and what the server sends.
    fn content(self) -> [Vec<u8>; 2] {
        [0, 1].map(|direction| {
            Rng::new(u64::from(2 * self.0 + direction)).bytes(BYTES + usize::from(self.0))
        })
    }
}

/// Runs one end of a stream.
fn talk(mut end: TcpStream, says: Vec<u8>, hears: &[u8], is_first: bool, order: Order) {
    end.set_read_timeout(Some(PATIENCE)).expect("timeout");
    end.set_write_timeout(Some(PATIENCE)).expect("timeout");
    let mut other = end.try_clone().expect("the same socket");
    let mut speak = move || {
        other.write_all(&says).expect("say");
        other.shutdown(Shutdown::Write).expect("end");
    };
    let mut heard = Vec::new();
    let mut hear = || end.read_to_end(&mut heard).expect("hear");
    if order == Order::Both {
        let speaker = thread::spawn(speak);
        hear();
        speaker.join().expect("speaker");
    } else if is_first {
        speak();
        hear();
    } else {
        hear();
        speak();
    }
    assert_eq!(heard.len(), hears.len());
    assert!(heard == hears, "other bytes");
}

fn client(netns: &Netns, stream: Stream) -> JoinHandle<()> {
    netns.inside(move || {
        let [says, hears] = stream.content();
        let end = TcpStream::connect_timeout(&stream.to(), PATIENCE).expect("connect");
        talk(end, says, &hears, stream.order() == Order::Client, stream.order());
    })
}

fn server(listener: TcpListener, stream: Stream) -> JoinHandle<()> {
    thread::spawn(move || {
        let [hears, says] = stream.content();
        let (end, _) = listener.accept().expect("a client");
        talk(end, says, &hears, stream.order() == Order::Server, stream.order());
    })
}

/// Runs all streams at once, and returns the link's counters.
fn exchange(impairments: Impairments) -> Arc<LinkCounters> {
    let seed = match std::env::var("TRAMA_LINK_SEED") {
        Ok(text) => text.parse().expect("TRAMA_LINK_SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    println!("TRAMA_LINK_SEED={seed}");
    let [host, far] = host_and_server();
    let (vm, link) = (namespace("vm"), Netns::new("link"));
    let forward = "forward = [\"four,tcp,,7006-7008,10.7.0.11,7006-7008\", \
                   \"six,tcp,::,7009-7011,fd00:7::11,7009-7011\"]\n";
    let port = tap_port("home", "vm", &link, "ifname = \"port\"");
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{forward}{port}"));
    wait_until("the port is there", SOON, || {
        (link.try_run("ip link show port").status == 0).then_some(())
    });
    let ends = [RawTap::device(&vm, "eth0"), RawTap::bridge(&link, "port")];
    let counters = impaired::join(ends, impairments, seed);
    set_up(&vm, "eth0", VM1);
    route(&vm, &GATEWAY);

    let began = Instant::now();
    let listening = |stream: Stream| {
        let netns = if stream.is_from_machine() { &far } else { &vm };
        server(listen(netns, &format!("[::]:{}", stream.port())), stream)
    };
    let servers: Vec<_> = Stream::all().map(listening).collect();
    let calling =
        |stream: Stream| client(if stream.is_from_machine() { &vm } else { &far }, stream);
    let clients: Vec<_> = Stream::all().map(calling).collect();
    let ends = clients.into_iter().zip(servers);
    let ended = ends.map(|(client, server)| [client.join(), server.join()]);
    let failed: Vec<_> =
        Stream::all().zip(ended).filter(|(_, ends)| ends.iter().any(Result::is_err)).collect();
    println!("{:?} for {impairments:?}: {counters:?}", began.elapsed());
    assert!(failed.is_empty(), "seed {seed}: {failed:?}");
    assert!(began.elapsed() < 3 * PATIENCE, "seed {seed}: {:?}", began.elapsed());
    assert_eq!(counters.oversized.load(Ordering::Relaxed), 0, "offloads are not for this link");
    // No flow remains.
    wait_until("the flows are over", 3 * SOON, || {
        tramad.ctl("--no-headings flows home").trim().is_empty().then_some(())
    });
    tramad.stop();
    counters
}

const LONG: Duration = Duration::from_millis(5);

// spec-test: rfc9293 MUST-5
#[test]
fn streams_arrive_exact_over_a_link_that_loses() {
    let counters = exchange(Impairments { lost: 30, delay: LONG, ..Impairments::default() });
    assert!(counters.lost.load(Ordering::Relaxed) > 50, "{counters:?}");
}

#[test]
fn streams_arrive_exact_over_a_link_that_reorders_and_repeats() {
    let counters = exchange(Impairments {
        reordered: 100,
        duplicated: 50,
        delay: LONG,
        ..Impairments::default()
    });
    assert!(counters.reordered.load(Ordering::Relaxed) > 200, "{counters:?}");
    assert!(counters.duplicated.load(Ordering::Relaxed) > 100, "{counters:?}");
}

// spec-test: rfc9293 MUST-3
#[test]
fn streams_arrive_exact_over_a_link_that_does_everything() {
    let impairments = Impairments {
        lost: 15,
        reordered: 50,
        duplicated: 20,
        corrupted: 15,
        delay: Duration::from_millis(15),
    };
    let counters = exchange(impairments);
    assert!(counters.corrupted.load(Ordering::Relaxed) > 30, "{counters:?}");
}
