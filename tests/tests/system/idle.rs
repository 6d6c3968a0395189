//! Costs of an idle daemon: silent ports cause no wake-ups and take little memory.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use trama_test_kit::{Card, connect};
use trama_tests::{Tramad, wait_until};
use trama_vhost_net_backend::features;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts a daemon on two workers with this many vhost-user ports on two networks.
fn tramad(ports: usize) -> Tramad {
    let mut text = "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\
                    workers = 2\n[[network]]\nname = \"even\"\n[[network]]\nname = \"odd\"\n"
        .to_owned();
    for port in 0..ports {
        let network = ["even", "odd"][port % 2];
        text += &format!(
            "[[port]]\nname = \"p{port}\"\nnetwork = \"{network}\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/p{port}.sock\"\n"
        );
    }
    Tramad::start(&text)
}

/// Returns a broadcast as of a guest that has just started: its address is learned.
fn hello(station: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; 60];
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, (station >> 8) as u8, station as u8]);
    bytes
}

/// Attaches a guest to each port and sends a frame from each.
fn attach(tramad: &Tramad, ports: std::ops::Range<usize>) -> Vec<Card> {
    let plug = |port: usize| {
        let stream = connect(&tramad.path(&format!("p{port}.sock")));
        let mut card = Card::plug(stream, features::ALL, 1);
        card.send(0, &hello(port));
        card
    };
    ports.map(plug).collect()
}

/// Returns for each thread whether it sleeps, and how often it has gone to sleep so far.
fn sleeps(tramad: &Tramad) -> BTreeMap<String, (bool, u64)> {
    let threads = fs::read_dir(format!("/proc/{}/task", tramad.id())).unwrap();
    let of_thread = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).unwrap();
        let name = status.lines().next().unwrap_or_default().to_owned();
        let voluntary = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        let sleeps = status.lines().any(|line| line.starts_with("State:\tS"));
        let count = voluntary.unwrap().trim().parse().unwrap();
        (format!("{name} {}", path.display()), (sleeps, count))
    };
    threads.map(|thread| of_thread(thread.unwrap().path())).collect()
}

#[test]
fn a_hundred_silent_guests_wake_nobody() {
    let tramad = tramad(100);
    let cards = attach(&tramad, 0..100);
    let mut before = BTreeMap::new();
    // A thread that waits for a processor does not sleep, however long it makes no progress.
    wait_until("all threads are asleep", LIMIT, || {
        // The test measures the cost of time passing. Drops are told as events a second later, and
        // looked for once more after another one.
        std::thread::sleep(Duration::from_millis(1500));
        let now = sleeps(&tramad);
        let settled = now == before && now.values().all(|(sleeps, _)| *sleeps);
        before = now;
        settled.then_some(())
    });
    assert!(before.len() > 100, "{} threads", before.len());
    std::thread::sleep(Duration::from_secs(2));
    let after = sleeps(&tramad);
    assert_eq!(after, before, "somebody woke although nothing happened");
    assert_eq!(cards.len(), 100);
    drop(cards);
    tramad.stop();
}

/// Returns the bytes of the daemon's own memory, without shared program text and guests' memory.
fn memory(tramad: &Tramad) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps", tramad.id())).unwrap();
    let (mut total, mut counts) = (0, true);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            counts = !line.contains("memfd:");
        } else if first == "Pss:" && counts {
            let kib: u64 = words.next().and_then(|value| value.parse().ok()).unwrap();
            total += kib * 1024;
        }
    }
    total
}

/// Returns the memory of a daemon after guests on this many ports have been attached and learned.
fn memory_with(ports: usize) -> u64 {
    let tramad = tramad(ports);
    let cards = attach(&tramad, 0..ports);
    wait_until("all are heard", LIMIT, || {
        let heard = |network| tramad.ctl(&format!("fdb/show {network}")).lines().count() - 1;
        (heard("even") + heard("odd") == ports).then_some(())
    });
    let memory = memory(&tramad);
    drop(cards);
    tramad.stop();
    memory
}

/// The limits are those of the release build; this build has larger code.
#[test]
fn a_daemon_and_its_ports_take_little_memory() {
    let few = memory_with(2);
    let each = memory_with(102).saturating_sub(few) / 100;
    println!("with 2 ports: {few} bytes; for each further one: {each}");
    assert!(few < 12 << 20, "{few} bytes with 2 ports");
    assert!(each < 96 << 10, "{each} bytes for each further port");
}
