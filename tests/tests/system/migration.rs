//! Live migration: guests move between QEMU processes on the ports of two switches, in namespaces
//! as two hosts that a tunnel joins, and their connections go on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, SOON, Tramad, wait_until};

use crate::tunnels;

const MAC: &str = "52:54:00:00:00:09";
const ADDRESS: &str = "10.1.0.9";
/// A migration under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of an exchange, and of those between which a migration is seen to go on.
const CHUNK: usize = 16 << 10;
const PROGRESS: u64 = 1 << 20;

/// Two hosts, each with a station and a port `vm`; the guest is at one of them.
struct Setting {
    _hosts: [Netns; 2],
    stations: [Netns; 2],
    switches: [Tramad; 2],
    sockets: tempfile::TempDir,
    /// How often it has migrated.
    moves: usize,
}

impl Setting {
    fn new() -> Setting {
        let hosts = tunnels::hosts();
        let stations = ["sa", "sb"].map(Netns::new);
        let switches = [0, 1].map(|i| {
            let tunnel = format!("remote = \"10.9.0.{}\"\nvni = 77", 2 - i);
            let text = tunnels::lab(i as u8 + 1, &stations[i], &tunnel, 1450)
                + "[[port]]\nname = \"vm\"\nnetwork = \"blue\"\ntype = \"vhost-user\"\n\
                   path = \"{dir}/vm.sock\"\n";
            Tramad::start_in(&hosts[i], &text)
        });
        stations[0].wait_for_ping("10.1.0.2", SOON);
        let sockets = tempfile::tempdir().expect("temporary directory");
        Setting { _hosts: hosts, stations, switches, sockets, moves: 0 }
    }

    fn options(&self, host: usize) -> GuestOptions {
        let nic = Nic::connecting(self.switches[host].path("vm.sock"), MAC);
        GuestOptions::new(["vm-a", "vm-b"][host], [nic])
    }

    /// Boots the guest at the first host, with a server that returns what it is sent.
    fn boot(&self) -> Guest {
        let guest = Guest::start(&self.options(0));
        guest.run("ip link set eth0 mtu 1450");
        guest.address(&format!("{ADDRESS}/24"));
        guest.run("nc -ll -p 7007 -e cat >/dev/null 2>&1 </dev/null &");
        self.stations.iter().for_each(|station| station.wait_for_ping(ADDRESS, SOON));
        guest
    }

    /// Starts a QEMU at a host that waits for the guest.
    fn destination(&mut self, host: usize) -> (Guest, PathBuf) {
        self.moves += 1;
        let socket = self.sockets.path().join(self.moves.to_string());
        let options = GuestOptions { incoming: Some(socket.clone()), ..self.options(host) };
        let guest = Guest::launch(&options);
        wait_until("QEMU waits for the guest", SOON, || socket.exists().then_some(()));
        (guest, socket)
    }

    /// The same, after a migration that was slowed down.
    fn migrate_at_full_speed(&mut self, source: Guest, host: usize) -> Guest {
        source.command("migrate-set-parameters", json!({ "max-bandwidth": 1 << 30 }));
        self.migrate(source, host)
    }

    /// Migrates the guest to a host.
    fn migrate(&mut self, source: Guest, host: usize) -> Guest {
        let (destination, socket) = self.destination(host);
        begin(&source, &socket);
        wait_for(&source, "completed");
        destination
    }
}

/// Begins a migration.
#[track_caller]
fn begin(source: &Guest, socket: &Path) {
    source.command("migrate", json!({ "uri": format!("unix:{}", socket.display()) }));
}

/// Waits until the migration has a status; fails if it ends with another one.
#[track_caller]
fn wait_for(source: &Guest, status: &str) -> Value {
    wait_until(&format!("the migration is {status}"), PATIENCE, || {
        let now = source.command("query-migrate", json!({}));
        let is = |status: &str| now["status"] == *status;
        assert!(
            is(status) || !["failed", "completed"].into_iter().any(is),
            "{now}\n{}",
            source.qemu_log()
        );
        is(status).then_some(now)
    })
}

/// A connection to the guest that exchanges random bytes and compares what comes back.
struct Exchange {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    /// Returns the longest time that a chunk took.
    thread: JoinHandle<Duration>,
}

impl Exchange {
    fn start(station: &Netns) -> Exchange {
        let (stop, bytes) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (stop.clone(), bytes.clone());
        let thread = station.inside(move || {
            let mut stream = TcpStream::connect((ADDRESS, 7007)).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
            let noise = tunnels::noise(64 * CHUNK);
            let (mut longest, mut back) = (Duration::ZERO, vec![0; CHUNK]);
            for chunk in noise.chunks_exact(CHUNK).cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                stream.write_all(chunk).expect("write");
                stream.read_exact(&mut back).expect("read");
                assert!(chunk == back, "other bytes came back");
                longest = longest.max(start.elapsed());
                count.fetch_add(CHUNK as u64, Ordering::Relaxed);
            }
            stream.shutdown(Shutdown::Both).expect("close");
            longest
        });
        Exchange { stop, bytes, thread }
    }

    /// Waits until more bytes have come back.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.bytes.load(Ordering::Relaxed);
        wait_until("bytes come back", PATIENCE, || {
            assert!(!self.thread.is_finished(), "the connection has ended");
            (self.bytes.load(Ordering::Relaxed) >= before + PROGRESS).then_some(())
        });
    }

    #[track_caller]
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the exchange")
    }
}

/// Begins a migration that does not end before the bandwidth is raised.
#[track_caller]
fn begin_slowly(source: &Guest, socket: &Path) {
    source.command("migrate-set-parameters", json!({ "max-bandwidth": 1 << 20 }));
    begin(source, socket);
    wait_for(source, "active");
}

#[test]
fn a_guest_whose_migration_ends_early_goes_on_where_it_is() {
    let mut setting = Setting::new();
    let mut guest = setting.boot();
    let exchange = Exchange::start(&setting.stations[1]);
    exchange.goes_on();
    let (destination, socket) = setting.destination(1);
    begin_slowly(&guest, &socket);
    exchange.goes_on();
    guest.command("migrate_cancel", json!({}));
    wait_for(&guest, "cancelled");
    exchange.goes_on();
    drop(destination);
    // The destination dies.
    let (destination, socket) = setting.destination(1);
    begin_slowly(&guest, &socket);
    exchange.goes_on();
    destination.kill();
    wait_for(&guest, "failed");
    exchange.goes_on();
    guest = setting.migrate_at_full_speed(guest, 1);
    exchange.goes_on();
    assert_eq!(guest.run("echo it answers").trim(), "it answers");
    exchange.stop();
}

#[test]
fn a_migration_outlives_the_switches_of_both_hosts() {
    let mut setting = Setting::new();
    let guest = setting.boot();
    let exchange = Exchange::start(&setting.stations[1]);
    exchange.goes_on();
    let (destination, socket) = setting.destination(1);
    begin_slowly(&guest, &socket);
    exchange.goes_on();
    // Both log on, and the second one's frontend waits for its guest.
    setting.switches[0].kill_and_follow();
    exchange.goes_on();
    setting.switches[1].kill_and_follow();
    exchange.goes_on();
    setting.switches[0].upgrade(|it| drop(it.ctl("upgrade")));
    exchange.goes_on();
    guest.command("migrate-set-parameters", json!({ "max-bandwidth": 1 << 30 }));
    wait_for(&guest, "completed");
    drop(guest);
    exchange.goes_on();
    assert_eq!(destination.run("echo it answers").trim(), "it answers");
    exchange.stop();
}

/// `TRAMA_MIGRATIONS=40` makes it long: 20 times there and back.
#[test]
fn a_guest_migrates_between_hosts_and_its_connections_go_on() {
    let count = std::env::var("TRAMA_MIGRATIONS").map_or(2, |count| count.parse().unwrap());
    let mut setting = Setting::new();
    let mut guest = setting.boot();
    let exchanges = setting.stations.each_ref().map(Exchange::start);
    exchanges.iter().for_each(Exchange::goes_on);
    for number in 1..=count {
        guest = setting.migrate(guest, number % 2);
        exchanges.iter().for_each(Exchange::goes_on);
    }
    assert_eq!(guest.run("echo it answers").trim(), "it answers");
    for exchange in exchanges {
        let bytes = exchange.bytes.load(Ordering::Relaxed);
        println!("{count} migrations, {bytes} bytes, longest exchange {:?}", exchange.stop());
    }
}
