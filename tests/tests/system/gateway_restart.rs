//! The switch is killed or replaced while guests have flows through a gateway: the gateway's
//! process goes on, and so do they.
//!
//! `TRAMA_KILLS=N` kills and replaces it N times, `TRAMA_KILL_SEED=N` at other moments.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};
use trama_frame::checksum;
use trama_keeper::{Claim, Keeper, Kept};
use trama_tests::nat::{
    GATEWAY, HOST, NEIGHBOUR as SERVER, NETWORK, SOON, VM1, at, guest_port, host_and_server,
    listen, namespace, route, tap_port,
};
use trama_tests::process::child;
use trama_tests::sim::rng::Rng;
use trama_tests::{Host, Netns, Tramad, wait_until};

const PORT: u16 = 7000;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn exists(process: Pid) -> bool {
    std::path::Path::new(&format!("/proc/{}", process.as_raw_nonzero())).exists()
}

/// The process, and then no longer.
#[track_caller]
fn ends(process: Pid) {
    wait_until("the gateway ends", SOON, || (!exists(process)).then_some(()));
}

/// Returns the host, a server on its link, a guest, and the daemon of its network; `keys` are the
/// network's, `more` is added to the configuration.
fn world(keys: &str, more: &str) -> ([Netns; 3], Tramad) {
    let ([host, server], vm) = (host_and_server(), namespace("vm"));
    let text = format!("{NETWORK}{keys}{}{more}", guest_port(&vm, "vm", &VM1));
    let tramad = Tramad::start_in(&host, &text);
    route(&vm, &GATEWAY);
    ([host, server, vm], tramad)
}

/// The byte at a place of a download.
fn byte(place: u64) -> u8 {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A TCP download that lasts until it is told to end.
struct Download {
    received: Arc<AtomicU64>,
    /// The longest time without a byte, in microseconds.
    gap: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    server: JoinHandle<u64>,
    client: JoinHandle<u64>,
}

impl Download {
    #[track_caller]
    fn start(server: &Netns, vm: &Netns) -> Download {
        let listener = listen(server, &at(SERVER[0], PORT).to_string());
        let (received, gap) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let is_over = Arc::<AtomicBool>::default();
        let over = is_over.clone();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.set_write_timeout(Some(SOON)).expect("a limit");
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let part: Vec<u8> = (sent..sent + 65_536).map(byte).collect();
                stream.write_all(&part).expect("the connection goes on");
                sent += part.len() as u64;
            }
            sent
        });
        let (count, longest) = (received.clone(), gap.clone());
        let client = vm.inside(move || {
            let mut stream = TcpStream::connect(at(SERVER[0], PORT)).expect("connect");
            stream.set_read_timeout(Some(SOON)).expect("a limit");
            let (mut room, mut taken) = (vec![0; 65_536], 0);
            loop {
                let began = Instant::now();
                let length = stream.read(&mut room).expect("the connection goes on");
                longest.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                if length == 0 {
                    return taken;
                }
                let wanted = (taken..).map(byte);
                assert!(room[..length].iter().copied().eq(wanted.take(length)), "at {taken}");
                taken += length as u64;
                count.store(taken, Ordering::Relaxed);
            }
        });
        Download { received, gap, is_over, server, client }
    }

    /// Waits until this many more bytes have arrived.
    #[track_caller]
    fn wait_for(&self, more: u64) {
        let wanted = self.received.load(Ordering::Relaxed) + more;
        wait_until("the download goes on", SOON, || {
            (self.received.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// Returns the longest time without a byte since the last call, in milliseconds.
    fn take_gap(&self) -> f64 {
        self.gap.swap(0, Ordering::Relaxed) as f64 / 1e3
    }

    /// Ends it, and checks that all has arrived.
    #[track_caller]
    fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let sent = self.server.join().expect("the server");
        assert_eq!(self.client.join().expect("the client"), sent);
        println!("{} MB arrived whole", sent / 1_000_000);
    }
}

fn print_gaps(what: &str, mut gaps: Vec<f64>) {
    gaps.sort_by(f64::total_cmp);
    if let Some(worst) = gaps.last() {
        let (count, median) = (gaps.len(), gaps[gaps.len() / 2]);
        println!("{count} times {what}: gap, median {median:.1} ms, worst {worst:.1} ms");
    }
}

#[test]
fn a_download_through_the_nat_goes_on_over_kills_and_upgrades() {
    let (kills, seed) = (variable("TRAMA_KILLS", 6), variable("TRAMA_KILL_SEED", 1));
    println!("TRAMA_KILLS={kills} TRAMA_KILL_SEED={seed}");
    let mut rng = Rng::new(seed);
    let ([host, server, vm], mut tramad) = world("", "");
    let gateway = tramad.gateway_after(0);
    let download = Download::start(&server, &vm);
    // The metrics are reachable in the host's namespace alone.
    let metric = |tramad: &Tramad, name: &str| {
        let text = host.run(&format!("curl -s http://{}/metrics", tramad.metrics_address()));
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
        line.trim().parse::<f64>().expect("a number")
    };
    let mut gaps = [(); 3].map(|()| Vec::new());
    for number in 0..kills as usize {
        download.wait_for(rng.below(20_000_000) as u64);
        download.take_gap();
        match number % 3 {
            0 => drop(tramad.kill_and_follow()),
            1 => tramad.start_again(),
            _ => drop(tramad.upgrade(|tramad| drop(tramad.ctl("upgrade")))),
        }
        download.wait_for(1_000_000);
        gaps[number % 3].push(download.take_gap());
        wait_until("it goes on as the same process", SOON, || {
            let goes_on = format!("gateway goes on as process {}\n", gateway.as_raw_nonzero());
            (tramad.log().matches(&goes_on).count() == number + 1).then_some(())
        });
    }
    for (what, gaps) in ["killed", "taken over", "upgraded"].into_iter().zip(gaps) {
        print_gaps(what, gaps);
    }
    download.finish();
    assert_eq!(tramad.gateways(), [gateway], "another gateway has taken its place");
    tramad.wait_for_gateway("home");
    let restarts = metric(&tramad, "trama_gateway_restarts_total{network=\"home\"}");
    let frames = "trama_gateway_frames_total{direction=\"tx\",network=\"home\"}";
    assert!(restarts == 0.0 && metric(&tramad, frames) > 1000.0, "what was counted before");
    tramad.signal_current(Signal::TERM);
    ends(gateway);
}

/// A connection of the guest that only listens.
#[track_caller]
fn listening_connection(server: &Netns, vm: &Netns) -> [TcpStream; 2] {
    let listener = listen(server, &at(SERVER[0], PORT).to_string());
    let near = vm.inside(|| TcpStream::connect(at(SERVER[0], PORT)).expect("connect"));
    let near = near.join().expect("a connection");
    near.set_read_timeout(Some(SOON)).expect("a limit");
    [near, listener.accept().expect("a client").0]
}

#[test]
fn a_gateway_that_dies_alone_with_the_switch_or_after_an_upgrade_is_replaced() {
    let ([_host, server, vm], mut tramad) = world("", "");
    let mut gateway = tramad.gateway_after(0);
    let kill = |process: Pid| kill_process(process, Signal::KILL).expect("a gateway");
    for number in 1..5 {
        let [mut near, _far] = listening_connection(&server, &vm);
        match number {
            1 => kill(gateway),
            2 => {
                // Both at once: the switch does not see its end.
                tramad.signal_current(Signal::STOP);
                kill(gateway);
                tramad.kill_and_follow();
            }
            3 => {
                tramad.start_again();
                kill(gateway);
            }
            _ => {
                // The helper of the new switch has not started it, and must end it.
                tramad.upgrade(|tramad| drop(tramad.ctl("upgrade")));
                kill_process(gateway, Signal::STOP).expect("a gateway");
            }
        }
        let next = tramad.gateway_after(number);
        // A guest that says nothing is told, as the next process has the journal of its flows.
        let end = near.read(&mut [0; 1]).expect_err("the flow has ended");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{number}");
        ends(gateway);
        vm.wait_for_ping(GATEWAY[0], SOON);
        listening_connection(&server, &vm);
        gateway = next;
    }
    tramad.signal_current(Signal::TERM);
    ends(gateway);
}

#[test]
fn what_was_edited_meanwhile_is_applied_by_the_same_process_or_another_one() {
    let ([_host, server, vm], mut tramad) = world("dhcp = true\n", "");
    let first = tramad.gateway_after(0);
    let [mut near, mut far] = listening_connection(&server, &vm);
    let inside = listen(&vm, &at(VM1[0], 80).to_string());
    let text = tramad.configuration();
    let forward = "dhcp = true\nforward = \"web,tcp,,8080,10.7.0.11,80\"\n";
    tramad.write_configuration(&text.replace("dhcp = true\n", forward));
    tramad.kill_and_follow();
    let connect = move || TcpStream::connect_timeout(&at(HOST[0], 8080), SOON).map(drop);
    wait_until("the forward is there", SOON, || server.inside(connect).join().expect("it").ok());
    inside.accept().expect("a client");
    far.write_all(b"x").expect("the connection goes on");
    near.read_exact(&mut [0; 1]).expect("the connection goes on");
    assert_eq!(tramad.gateways(), [first]);

    // Without leases a process may open less.
    tramad.write_configuration(&text.replace("dhcp = true", "dhcp = false"));
    tramad.kill_and_follow();
    let second = tramad.gateway_after(1);
    ends(first);
    let log = tramad.log();
    assert!(log.contains("was started for other settings; starts again"), "{log}");
    assert!(near.read(&mut [0; 1]).is_err(), "the flow has ended");
    vm.wait_for_ping(GATEWAY[0], SOON);

    // It is not configured any more.
    let (network, port) = text.split_once("subnet").expect("a subnet");
    let (_, port) = port.split_once("[[port]]").expect("a port");
    let without = format!("{network}\n\n[[port]]{port}").replace("nat-network", "internal");
    tramad.write_configuration(&without);
    tramad.kill_and_follow();
    ends(second);
    tramad.signal_current(Signal::TERM);
}

/// Makes something of what was kept that is not as it should be.
type Spoil = fn(&mut Kept);

fn replace(kept: &mut Kept, place: usize, by: OwnedFd) {
    kept.fds[place] = by;
}

fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("a descriptor")
}

/// Changes the version of the program, with which the record begins, and so the checksum of it.
fn of_version_9(kept: &mut Kept) {
    let ((format, _), record) =
        postcard::take_from_bytes::<(u32, u16)>(&kept.value).expect("a record");
    let mut record = record.to_vec();
    // After the length of the text.
    record[1] = b'9';
    let sum = checksum::internet(&record);
    kept.value = postcard::to_allocvec(&(format, sum)).expect("a record");
    kept.value.extend(record);
}

/// What the log says of what is wrong.
const BAD: [(&str, Spoil); 8] = [
    ("what was kept of it is of another version", |kept| kept.value[0] = 99),
    ("is of version 9", of_version_9),
    ("5 descriptors were kept of it, not 6", |kept| kept.fds.truncate(5)),
    ("its rings cannot be used: driver memory has ", |kept| {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let short = rustix::fs::memfd_create("short", flags).expect("memory");
        rustix::fs::ftruncate(&short, 8192).expect("its size");
        replace(kept, 1, short);
    }),
    ("its rings cannot be used: the descriptor is pipe:", |kept| {
        replace(kept, 2, std::io::pipe().expect("a pipe").1.into());
    }),
    ("Socket operation on non-socket", |kept| {
        // Its lifeline lasts, so that it must be killed.
        std::mem::forget(kept.fds[0].try_clone().expect("a copy"));
        replace(kept, 0, eventfd());
    }),
    ("what was kept is not of its process", |kept| {
        replace(kept, 5, pidfd_open(getpid(), PidfdFlags::empty()).expect("a pidfd"));
    }),
    ("is of version 9", |kept| {
        replace(kept, 4, std::io::pipe().expect("a pipe").0.into());
        of_version_9(kept);
    }),
];

#[test]
fn what_was_kept_wrongly_costs_one_gateway_and_no_other() {
    let other = "\n[[network]]\nname = \"other\"\nmode = \"nat-network\"\n\
                 subnet = [\"10.8.0.0/24\", \"fd00:8::/64\"]\n";
    let vm2 = namespace("vm2");
    let port = tap_port("other", "vm2", &vm2, "ifname = \"eth0\"\naddress = \"10.8.0.12/24\"");
    let ([_host, server, vm], mut tramad) = world("", &format!("{other}{port}"));
    route(&vm2, &["10.8.0.1"]);
    let ids = |tramad: &Tramad, network: &str| -> Vec<Pid> {
        let named = format!("network {network}: gateway runs as process ");
        let log = tramad.log();
        let lines = log.lines().filter_map(|line| line.split_once(&named));
        lines.filter_map(|(_, id)| Pid::from_raw(id.parse().ok()?)).collect()
    };
    let [mut near, mut far] = listening_connection(&server, &vm2);
    for (number, (text, spoil)) in BAD.into_iter().enumerate() {
        let before = *ids(&tramad, "home").last().expect("a gateway");
        let known = tramad.log().len();
        tramad.kill_with_helper();
        spoil_entry(&tramad, "gateway/home", spoil);
        tramad.start_again();
        let count = number + 2;
        wait_until("another gateway runs", SOON, || {
            (ids(&tramad, "home").len() == count).then_some(())
        });
        let log = &tramad.log()[known..];
        let named = |line: &str| line.contains("network home") && line.contains(text);
        assert!(log.lines().any(named), "{text}: {log}");
        ends(before);
        vm.wait_for_ping(GATEWAY[0], SOON);
        far.write_all(b"x").expect("the connection goes on");
        near.read_exact(&mut [0; 1]).expect("the connection goes on");
    }
    let all = [ids(&tramad, "home"), ids(&tramad, "other")];
    assert_eq!(all[1].len(), 1, "the other one goes on");
    tramad.stop();
    all.concat().into_iter().for_each(ends);
}

/// Changes what the keeper has, while no switch is there.
#[track_caller]
fn spoil_entry(tramad: &Tramad, key: &str, spoil: Spoil) {
    let keeper = Keeper::find(&tramad.path("control.sock.keeper"));
    let keeper = keeper.expect("a socket").expect("a keeper");
    wait_until("the keeper is free", SOON, || keeper.attach(Claim::StandIn).ok());
    let mut kept = keeper.get(key).expect("an answer").expect("an entry");
    spoil(&mut kept);
    let fds: Vec<_> = kept.fds.iter().map(AsFd::as_fd).collect();
    keeper.put(key, &kept.value, &fds).expect("it is kept");
}

#[test]
fn nothing_is_left_when_all_have_ended() {
    let ([host, _server, vm], tramad) = world("", "");
    let gateway = tramad.gateway_after(0);
    tramad.stop();
    ends(gateway);

    let text = format!("{NETWORK}{}", guest_port(&vm, "vm", &VM1));
    let mut tramad = Tramad::start_in(&host, &text);
    let gateway = tramad.gateway_after(0);
    vm.wait_for_ping(GATEWAY[0], SOON);
    let keeper = child(tramad.id(), "trama:keeper");
    tramad.kill_with_helper();
    assert!(exists(gateway), "the keeper has its lifeline");
    kill_process(Pid::from_raw(keeper as i32).expect("a process"), Signal::KILL).expect("kill");
    ends(gateway);
}

#[test]
fn many_gateways_go_on_at_once() {
    let network = |number: u8| {
        format!(
            "\n[[network]]\nname = \"n{number}\"\nmode = \"nat-network\"\n\
             subnet = \"10.9.{number}.0/24\"\n"
        )
    };
    let more: String = (0..40).map(network).collect();
    let ([_host, _server, vm], mut tramad) = world("", &more);
    wait_until("all run", SOON, || (tramad.gateways().len() == 41).then_some(()));
    let before = tramad.gateways();
    tramad.kill_and_follow();
    wait_until("all go on", SOON, || {
        (tramad.log().matches("gateway goes on as process").count() == 41).then_some(())
    });
    vm.wait_for_ping(GATEWAY[0], SOON);
    assert_eq!(tramad.gateways(), before);
    tramad.signal_current(Signal::TERM);
    before.into_iter().for_each(ends);
}
