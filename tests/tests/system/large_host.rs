//! A host with a thousand networks and five thousand guests.

use std::time::Instant;

use rustix::process::{Resource, getrlimit};
use trama_tests::process::processor_time;
use trama_tests::{SOON, Tramad, wait_until};

const NETWORKS: usize = 1000;
const PORTS: usize = 5000;
/// Descriptors of an idle vhost-user port: socket, event of its session, event of its faults.
const DESCRIPTORS: u64 = 3;
/// Seconds of processor time that the start may take, of all threads together.
const MOST: f64 = 3.0;

#[test]
fn a_large_host_starts_in_three_seconds_of_one_core() {
    let needed = DESCRIPTORS * PORTS as u64 + 1000;
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if limit < needed {
        println!("left out: the limit of open files is {limit}, and the ports take {needed}");
        return;
    }
    let mut text = String::new();
    for network in 0..NETWORKS {
        text += &format!("[[network]]\nname = \"n{network}\"\n");
    }
    for port in 0..PORTS {
        text += &format!(
            "[[port]]\nname = \"p{port}\"\nnetwork = \"n{}\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/p{port}.sock\"\n",
            port % NETWORKS
        );
    }
    let started = Instant::now();
    let tramad = Tramad::start(&text);
    let (wall, spent) = (started.elapsed(), processor_time(tramad.id()) / 1e9);
    println!("{NETWORKS} networks, {PORTS} ports: {spent:.2} s of processor time, {wall:.2?}");
    assert!(!tramad.log().contains("is not running"), "{}", tramad.log());
    assert!(spent < MOST, "the start took {spent:.2} s of processor time");
    assert_eq!(tramad.ctl("list-br").lines().count(), NETWORKS);
    assert!(tramad.path(&format!("p{}.sock", PORTS - 1)).exists());

    // It takes changes as a small one does.
    let before = processor_time(tramad.id());
    tramad.ctl("link p7 down");
    wait_until("the socket is removed", SOON, || (!tramad.path("p7.sock").exists()).then_some(()));
    let spent = (processor_time(tramad.id()) - before) / 1e9;
    println!("a change: {spent:.2} s of processor time");
    assert!(spent < MOST / 4.0, "a change took {spent:.2} s of processor time");
    tramad.stop();
}
