//! Work on a configuration grows with its size, not with the square of it.
//!
//! Four times as many networks and ports may take a little more than four times as long; with a
//! loop over all of them for each of them it would be sixteen times. What is measured is the time
//! that this thread ran, so other load on the host does not count.

use std::time::Duration;

use crate::config::model::Config;
use crate::config::parse;
use crate::plan::{plan, plan_start};
use crate::spread::Spread;

/// Four times the size must take less than this many times as long.
const MOST: u32 = 9;

/// A configuration with this many networks, a quarter of them of mode `nat`, and five ports each.
fn large(networks: usize) -> String {
    let mut text = String::new();
    for network in 0..networks {
        let mode = if network % 4 == 0 { "nat" } else { "internal" };
        text.push_str(&format!("[[network]]\nname = \"n{network}\"\nmode = \"{mode}\"\n"));
        for port in 0..5 {
            text.push_str(&format!(
                "[[port]]\nname = \"n{network}-{port}\"\nnetwork = \"n{network}\"\n\
                 type = \"vhost-user\"\n"
            ));
        }
    }
    text
}

/// Returns how long this thread has run so far.
fn ran() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Returns the time that `work` takes. It is repeated, as the system counts in ticks.
fn time(mut work: impl FnMut()) -> Duration {
    let before = ran();
    for times in 1.. {
        work();
        let took = ran() - before;
        if took > Duration::from_millis(200) {
            return took / times;
        }
    }
    unreachable!("work that takes no time is never done");
}

#[track_caller]
fn grows_with_size(what: &str, work: impl Fn(&str, &Config)) {
    let [small, large] = [200, 800].map(|networks| {
        let text = large(networks);
        let config = parse(&text, "").unwrap();
        time(|| work(&text, &config))
    });
    println!("{what}: {small:?}, four times the size {large:?}");
    assert!(large < small * MOST, "{what}: {small:?}, four times the size {large:?}");
}

#[test]
fn reading_and_checking_grow_with_the_size() {
    grows_with_size("read", |text, _| drop(parse(text, "").unwrap()));
}

#[test]
fn the_plan_of_a_start_grows_with_the_size() {
    grows_with_size("plan of a start", |_, config| drop(plan_start(config)));
}

#[test]
fn the_plan_of_a_change_grows_with_the_size() {
    grows_with_size("plan of a change", |_, config| {
        let mut wanted = config.clone();
        wanted.ports.iter_mut().for_each(|port| port.cable = false);
        assert_eq!(plan(config, &wanted).len(), config.ports.len());
    });
}

#[test]
fn spreading_networks_over_workers_grows_with_the_size() {
    grows_with_size("spread", |_, config| {
        let mut spread = Spread::new(8, config, std::iter::empty());
        for network in &config.networks {
            let worker = spread.least_loaded();
            spread.add(&network.name, worker);
        }
    });
}
