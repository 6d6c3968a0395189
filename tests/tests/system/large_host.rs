//! A host with a thousand networks and five thousand guests.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use trama_tests::process::{child, processor_time};
use trama_tests::tramad::binary;
use trama_tests::{SOON, Tramad, wait_until};

const NETWORKS: usize = 1000;
const PORTS: usize = 5000;
/// Descriptors of an idle vhost-user port: socket, event of its session, event of its faults.
const DESCRIPTORS: u64 = 3;
/// Seconds of processor time that the start may take, of all threads of daemon and helper together.
/// The checks of a debug build take a third more.
const MOST: f64 = if cfg!(debug_assertions) { 4.0 } else { 3.0 };
/// Time between two commands, each of which takes part of it.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest time in which a command is answered meanwhile: what is waited for at a start, a step of
/// the start, and the machine's other work.
const ANSWER: Duration = Duration::from_secs(1);

#[test]
fn a_large_host_starts_in_three_seconds_of_one_core() {
    let needed = DESCRIPTORS * PORTS as u64 + 1000;
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if limit < needed {
        println!("left out: the limit of open files is {limit}, and the ports take {needed}");
        return;
    }
    // As /run: ext4 looks long for an inode for each socket, if many were removed lately.
    let sockets = std::env::var_os("TRAMA_TMPFS").unwrap_or("/dev/shm".into());
    let sockets = tempfile::tempdir_in(sockets).expect("a folder");
    let socket = |port: usize| sockets.path().join(format!("p{port}.sock"));
    let mut text = String::new();
    for network in 0..NETWORKS {
        text += &format!("[[network]]\nname = \"n{network}\"\n");
    }
    for port in 0..PORTS {
        text += &format!(
            "[[port]]\nname = \"p{port}\"\nnetwork = \"n{}\"\ntype = \"vhost-user\"\n\
             path = \"{}\"\n",
            port % NETWORKS,
            socket(port).display()
        );
    }
    let started = Instant::now();
    let mut tramad = Tramad::begin(&text);
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
    let (wall, daemon) = (started.elapsed(), tramad.id());
    let helper = child(daemon, "trama:helper");
    let spent = [daemon, helper].map(processor_time).iter().sum::<f64>() / 1e9;
    // The last one may have been answered after the start.
    answers.pop();
    let slowest = answers.iter().max().expect("an answer during the start");
    println!("{} commands answered meanwhile, the slowest after {slowest:.2?}", answers.len());
    assert!(*slowest <= ANSWER, "a command was answered after {slowest:.2?}");
    println!("{NETWORKS} networks, {PORTS} ports: {spent:.2} s of processor time, {wall:.2?}");
    assert!(!tramad.log().contains("is not running"), "{}", tramad.log());
    assert!(spent < MOST, "the start took {spent:.2} s of processor time");
    assert_eq!(tramad.ctl("list-br").lines().count(), NETWORKS);
    // A change that comes during the start is made after it.
    assert!(change.wait().expect("its end").success());
    wait_until("the socket is removed", SOON, || (!socket(9).exists()).then_some(()));
    assert!(socket(PORTS - 1).exists());

    // It takes changes as a small one does.
    let before = processor_time(tramad.id());
    tramad.ctl("link p7 down");
    wait_until("the socket is removed", SOON, || (!socket(7).exists()).then_some(()));
    let spent = (processor_time(tramad.id()) - before) / 1e9;
    println!("a change: {spent:.2} s of processor time");
    assert!(spent < MOST / 4.0, "a change took {spent:.2} s of processor time");
    tramad.stop();
}
