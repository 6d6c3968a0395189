//! A host with a thousand networks and five thousand guests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use trama_tests::process::{child, processor_time};
use trama_tests::tramad::binary;
use trama_tests::{SOON, Tramad, wait_until};

const NETWORKS: usize = 1000;
const PORTS: usize = 5000;
/// The host that it is compared with has one of this many networks and ports.
const PART: usize = 5;
/// Descriptors of an idle vhost-user port: socket, event of its session, event of its faults.
const DESCRIPTORS: u64 = 3;
/// Times the processor time for a port of the small host that a port may take. If work for a port
/// grew with their number, it would be [`PART`].
const GROWTH: f64 = 2.0;
/// Part of the start in which each command must be answered meanwhile.
const ANSWER: f64 = 0.33;
/// Part of the start's processor time that a change may take.
const CHANGE: f64 = 0.25;
/// Time between two commands, each of which takes part of the start.
const PAUSE: Duration = Duration::from_millis(200);

/// Returns the configuration of vhost-user ports with sockets in a folder, spread over networks.
fn configuration(networks: usize, ports: usize, sockets: &Path) -> String {
    let mut text = String::new();
    for network in 0..networks {
        text += &format!("[[network]]\nname = \"n{network}\"\n");
    }
    for port in 0..ports {
        text += &format!(
            "[[port]]\nname = \"p{port}\"\nnetwork = \"n{}\"\ntype = \"vhost-user\"\n\
             path = \"{}\"\n",
            port % networks,
            socket(sockets, port).display()
        );
    }
    text
}

fn socket(folder: &Path, port: usize) -> PathBuf {
    folder.join(format!("p{port}.sock"))
}

/// Returns the seconds of processor time that the daemon and its helper have taken.
fn spent(tramad: &Tramad) -> f64 {
    let daemon = tramad.id();
    [daemon, child(daemon, "trama:helper")].map(processor_time).iter().sum::<f64>() / 1e9
}

#[test]
fn a_large_host_starts_in_proportion_to_its_ports_and_answers_meanwhile() {
    let needed = DESCRIPTORS * PORTS as u64 + 1000;
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if limit < needed {
        println!("left out: the limit of open files is {limit}, and the ports take {needed}");
        return;
    }
    // As /run: ext4 looks long for an inode for each socket, if many were removed lately.
    let sockets = std::env::var_os("TRAMA_TMPFS").unwrap_or("/dev/shm".into());
    let sockets = tempfile::tempdir_in(sockets).expect("a folder");
    let small = Tramad::start(&configuration(NETWORKS / PART, PORTS / PART, sockets.path()));
    let of_a_part = spent(&small);
    small.stop();

    let started = Instant::now();
    let mut tramad = Tramad::begin(&configuration(NETWORKS, PORTS, sockets.path()));
    wait_until("the control socket", SOON, || tramad.path("control.sock").exists().then_some(()));
    let mut change = Command::new(binary("tramactl"));
    change.arg("--socket").arg(tramad.path("control.sock")).args(["link", "p9", "down"]);
    let mut change = change.spawn().expect("run tramactl");
    let mut answers = Vec::new();
    while !tramad.log().contains("ready after") {
        assert!(started.elapsed() < SOON && tramad.is_running(), "{}", tramad.log());
        let asked = Instant::now();
        assert_eq!(tramad.ctl("list-ports n7").lines().count(), PORTS / NETWORKS);
        answers.push(asked.elapsed());
        std::thread::sleep(PAUSE);
    }
    let (wall, start) = (started.elapsed(), spent(&tramad));
    // The last one may have been answered after the start.
    answers.pop();
    let slowest = answers.iter().max().expect("an answer during the start");
    println!("{} commands answered meanwhile, the slowest after {slowest:.2?}", answers.len());
    println!("{NETWORKS} networks, {PORTS} ports: {start:.2} s of processor time, {wall:.2?}");
    println!("one of {PART} parts of them: {of_a_part:.2} s of processor time");
    assert!(*slowest <= wall.mul_f64(ANSWER), "a command was answered after {slowest:.2?}");
    assert!(!tramad.log().contains("is not running"), "{}", tramad.log());
    let growth = start / of_a_part / PART as f64;
    assert!(growth < GROWTH, "a port took {growth:.2} times the processor time");
    assert_eq!(tramad.ctl("list-br").lines().count(), NETWORKS);
    // A change that comes during the start is made after it.
    assert!(change.wait().expect("its end").success());
    let is_gone = |port| (!socket(sockets.path(), port).exists()).then_some(());
    wait_until("the socket is removed", SOON, || is_gone(9));
    assert!(socket(sockets.path(), PORTS - 1).exists());

    // It takes changes as a small one does.
    let before = spent(&tramad);
    tramad.ctl("link p7 down");
    wait_until("the socket is removed", SOON, || is_gone(7));
    let change = spent(&tramad) - before;
    println!("a change: {change:.2} s of processor time");
    assert!(change < start * CHANGE, "a change took {change:.2} s of processor time");
    tramad.stop();
}
