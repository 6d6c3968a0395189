//! A hostile guest at one port: stations at others keep what they have beside an honest guest that
//! is as busy.
//!
//! Two stations exchange datagrams as fast as they can. Both phases of a pair follow each other at
//! once, so that what else the machine does falls on both. More pairs are added until the figures
//! hold: noise passes, an attack that costs others something does not.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::nice;
use trama_tests::nat::{SOON, tap_port};
use trama_tests::process::processor_time;
use trama_tests::{Host, Netns, Process, Tramad, wait_until};

mod attacks;
mod guest;

use attacks::{Attack, FLOODS, PROTOCOL, RINGS};
use guest::HostileGuest;

/// Duration of a phase: longer than the time between two connections that the daemon serves.
const PHASE: Duration = Duration::from_millis(50);
/// Pairs of phases after which the figures must hold first, and at last.
const PAIRS: std::ops::RangeInclusive<usize> = 12..=120;
/// What the stations keep beside an attack of what they have beside honest work: part of their
/// round trips, and the factor by which the slowest of a hundred may be slower.
const LEAST_RATE: f64 = 0.95;
const MOST_DELAY: f64 = 2.0;
/// The least part of what the honest guest does that the hostile one must do: one that is closed
/// after each act waits for its next connection, of which the daemon serves 25 a second. What it
/// leaves out meanwhile, an honest one makes up for.
const LEAST_ACTS: f64 = 0.05;
/// Daemons with which an attack is tried until the figures hold. Where the kernel places the
/// threads of one on two cores is worth some percent for as long as it runs.
const DAEMONS: usize = 3;
/// What a guest has done before its phase begins.
const HEAD_START: u64 = 3;
/// A round trip that takes longer was lost.
const LOST: Duration = Duration::from_millis(200);
/// Longest time in which a new client has its lease.
const LEASE: Duration = Duration::from_secs(1);
const ECHO: &str = "10.1.0.2:7";

/// Returns what it receives, until `over`.
fn echo(station: &Netns, over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let over = over.clone();
    let socket = station.inside(|| UdpSocket::bind(ECHO).expect("bind")).join().expect("a socket");
    socket.set_read_timeout(Some(LOST)).expect("timeout");
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while !over.load(Ordering::Relaxed) {
            if let Ok((count, from)) = socket.recv_from(&mut bytes) {
                socket.send_to(&bytes[..count], from).expect("an echo");
            }
        }
    })
}

/// Round trips during a phase.
struct Trips {
    rate: f64,
    /// The slowest of a hundred, in microseconds.
    slowest: f64,
    /// The daemon's use of a core, in percent.
    load: f64,
    /// What the guest did meanwhile.
    acts: u64,
}

impl Trips {
    /// Makes round trips for a phase.
    fn make(socket: &UdpSocket, daemon: u32) -> Trips {
        let spent = processor_time(daemon);
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < PHASE {
            let (start, number) = (Instant::now(), (times.len() as u64).to_ne_bytes());
            socket.send(&number).expect("send");
            let mut answer = [0; 8];
            // An earlier one that was late is skipped.
            while socket.recv(&mut answer).is_ok() && answer != number {}
            times.push(start.elapsed());
        }
        let rate = times.len() as f64 / began.elapsed().as_secs_f64();
        let load = (processor_time(daemon) - spent) * 1e-7 / began.elapsed().as_secs_f64();
        times.sort_unstable();
        Trips { rate, slowest: times[times.len() * 99 / 100].as_secs_f64() * 1e6, load, acts: 0 }
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// What a guest does at present, and how often it did so.
struct Work {
    /// The daemon's process.
    daemon: u32,
    is_attack: AtomicBool,
    acts: AtomicU64,
    is_over: AtomicBool,
}

impl Work {
    fn new(daemon: u32) -> Work {
        let [is_attack, is_over] = [AtomicBool::new(false), AtomicBool::new(false)];
        Work { daemon, is_attack, acts: AtomicU64::new(0), is_over }
    }

    /// Acts until it is over. Idle priority: a guest costs others only what the daemon spends on
    /// it.
    fn run(&self, guest: &mut HostileGuest, attack: &Attack) {
        nice(19).expect("nice");
        let (mut due, mut number) = (Instant::now(), 0);
        while !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due = (due + attack.pace).max(Instant::now() - LOST);
            guest.plug();
            let is_attack = self.is_attack.load(Ordering::Relaxed);
            (if is_attack { attack.act } else { attack.honest })(guest, number);
            number += 1;
            self.acts.store(number, Ordering::Relaxed);
        }
    }

    /// Makes a guest attack or be honest; returns round trips beside that.
    fn measure(&self, socket: &UdpSocket, is_attack: bool) -> Trips {
        self.is_attack.store(is_attack, Ordering::Relaxed);
        let (before, began) = (self.acts.load(Ordering::Relaxed), Instant::now());
        while self.acts.load(Ordering::Relaxed) < before + HEAD_START {
            assert!(began.elapsed() < SOON, "the guest does nothing");
            thread::sleep(Duration::from_millis(1));
        }
        let before = self.acts.load(Ordering::Relaxed);
        let trips = Trips::make(socket, self.daemon);
        Trips { acts: self.acts.load(Ordering::Relaxed) - before, ..trips }
    }
}

/// Two stations, a third that receives what an honest guest sends, and the guest.
struct Scene {
    tramad: Tramad,
    station: Netns,
    guest: HostileGuest,
    /// Ends the echo.
    over: Arc<AtomicBool>,
    echo: Option<JoinHandle<()>>,
    _others: [Netns; 2],
}

impl Scene {
    fn new() -> Scene {
        let [a, b, sink] = ["a", "b", "sink"].map(Netns::new);
        let mut text = "[[network]]\nname = \"n\"\n".to_owned();
        for (number, (name, netns)) in [("a", &a), ("b", &b), ("sink", &sink)].iter().enumerate() {
            let keys = format!("ifname = \"eth0\"\naddress = \"10.1.0.{}/24\"", number + 1);
            text += &tap_port("n", name, netns, &keys);
        }
        text += "\n[[port]]\nname = \"guest\"\nnetwork = \"n\"\ntype = \"vhost-user\"\n\
                 path = \"{dir}/guest.sock\"\nstorm-broadcast = 1000\n";
        let tramad = Tramad::start(&text);
        // The switch learns their addresses.
        a.wait_for_ping("10.1.0.2", SOON);
        sink.wait_for_ping("10.1.0.1", SOON);
        let mac = sink.run("cat /sys/class/net/eth0/address");
        let guest = HostileGuest::new(&tramad.path("guest.sock"), mac.trim());
        let over = Arc::new(AtomicBool::new(false));
        let echo = Some(echo(&b, &over));
        Scene { tramad, station: a, guest, over, echo, _others: [b, sink] }
    }

    /// Compares the stations' round trips beside an attack and beside honest work. Returns the
    /// figures if the attack costs too much.
    fn compare(&mut self, attack: &'static Attack) -> Option<String> {
        let work = Arc::new(Work::new(self.tramad.id()));
        let measured = work.clone();
        let name = attack.name;
        let job = self.station.inside(move || compare(name, &measured));
        thread::scope(|scope| {
            scope.spawn(|| work.run(&mut self.guest, attack));
            let figures = job.join();
            work.is_over.store(true, Ordering::Relaxed);
            figures.expect("a station")
        })
    }

    fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.echo.take().expect("an echo").join().expect("the echo");
        self.tramad.stop();
    }
}

/// Measures pairs of phases until the figures hold; returns them if they never do.
fn compare(name: &str, work: &Work) -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    socket.connect(ECHO).expect("connect");
    socket.set_read_timeout(Some(LOST)).expect("timeout");
    let (mut pairs, mut figures, mut holds) = (Vec::new(), String::new(), false);
    while pairs.len() < *PAIRS.end() && !(holds && pairs.len() >= *PAIRS.start()) {
        // Each is first in every other pair.
        let is_first = pairs.len() % 2 == 0;
        let mut pair = [is_first, !is_first].map(|is_attack| work.measure(&socket, is_attack));
        if is_first {
            pair.reverse();
        }
        pairs.push(pair);
        let ratio = |of: fn(&Trips) -> f64| median(pairs.iter().map(|[a, b]| of(b) / of(a)));
        let (kept, slower) = (ratio(|trips| trips.rate), ratio(|trips| trips.slowest));
        let typical =
            |kind: usize, of: fn(&Trips) -> f64| median(pairs.iter().map(|p| of(&p[kind])));
        let acts = |kind: usize| pairs.iter().map(|pair| pair[kind].acts).sum::<u64>();
        let is_as_busy = acts(1) as f64 >= LEAST_ACTS * acts(0) as f64;
        holds = kept >= LEAST_RATE && slower < MOST_DELAY && is_as_busy;
        figures = format!(
            "{name}, {} pairs: {kept:.3} of the rate, {slower:.2} times the delay; {:.0} of {:.0} \
             round trips a second, the slowest of a hundred {:.0} of {:.0} µs; the \
             daemon uses {:.0} of {:.0} % of a core; {} of {} acts",
            pairs.len(),
            typical(1, |trips| trips.rate),
            typical(0, |trips| trips.rate),
            typical(1, |trips| trips.slowest),
            typical(0, |trips| trips.slowest),
            typical(1, |trips| trips.load),
            typical(0, |trips| trips.load),
            acts(1),
            acts(0),
        );
    }
    println!("{figures}");
    (!holds).then_some(figures)
}

/// Makes these attacks, and checks what each costs. Returns the counters of the guest's port and
/// the daemon's log.
fn attack(attacks: &'static [Attack]) -> String {
    let (mut left, mut said): (Vec<_>, _) = (attacks.iter().collect(), String::new());
    let mut failures = Vec::new();
    for _ in 0..DAEMONS {
        let mut scene = Scene::new();
        let costs = |attack: &&'static Attack| Some((*attack, scene.compare(attack)?));
        (left, failures) = left.iter().filter_map(costs).unzip();
        said += &(scene.tramad.ctl("counters guest") + &scene.tramad.log());
        scene.stop();
        if left.is_empty() {
            return said;
        }
    }
    panic!("{failures:#?}");
}

/// Checks that the attacks were made.
fn expect(said: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(said.contains(part), "no {part} in:\n{said}"));
}

#[test]
fn bad_rings_cost_others_no_more_than_frames() {
    let loops = "a descriptor chain is longer than its table";
    let jumps = "the available index jumped past the ring";
    expect(&attack(&RINGS), &["chain_malformed", "header_malformed", loops, jumps]);
}

#[test]
fn bad_requests_cost_others_no_more_than_frames() {
    expect(&attack(&PROTOCOL), &["it is malformed or out of order"]);
}

#[test]
fn floods_cost_others_no_more_than_frames() {
    expect(&attack(&FLOODS), &["storm=", "a storm of broadcast frames"]);
}

#[test]
fn a_new_client_has_its_lease_beside_a_port_that_starves_dhcp() {
    let [flood, client] = ["flood", "client"].map(Netns::new);
    let text = "[[network]]\nname = \"lab\"\nsubnet = \"10.1.0.0/24\"\ndhcp = true\n".to_owned()
        + &tap_port("lab", "flood", &flood, "ifname = \"eth0\"\naddress = \"10.1.0.9/24\"")
        + &tap_port("lab", "client", &client, "ifname = \"eth0\"");
    let tramad = Tramad::start(&text);
    tramad.gateway_after(0);
    // One asks on behalf of thousands of clients, the other takes every address that it is offered.
    let start = |program: &str, arguments: &[&str]| {
        let mut command = flood.command(program);
        command.args(arguments);
        Process::spawn(program, command, &Path::new(flood.scratch()).join(program))
    };
    let flooding =
        ["-4", "-l", "eth0", "-r", "3000", "-R", "100000", "-p", "600", "-W", "1"].as_slice();
    let _flooding = [start("perfdhcp", flooding), start("dhcpstarv", &["-i", "eth0"])];
    let refused = || {
        let reasons = ["reason=\"port_full\"", "reason=\"probing\""];
        let count = |reason| tramad.metric("trama_dhcp_refused_total", &[reason]);
        reasons.map(count).iter().sum::<u64>()
    };
    wait_until("the port has what it may have", SOON, || (refused() > 1000).then_some(()));
    let before = refused();
    for number in 1..=3 {
        client.run(&format!(
            "ip link set eth0 down; ip link set eth0 address 52:54:00:00:01:0{number}; \
             ip link set eth0 up"
        ));
        let began = Instant::now();
        client.run("busybox udhcpc -f -n -q -t 25 -T 2 -i eth0 -s /bin/true");
        let took = began.elapsed();
        println!("a lease after {took:?}");
        assert!(took <= LEASE, "a lease after {took:?}");
    }
    wait_until("the port was refused more", SOON, || (refused() > before + 1000).then_some(()));
    tramad.stop();
}
