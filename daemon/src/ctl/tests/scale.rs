//! What commands cost on hosts of different sizes: each looks up a port in the same time on any.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::{Snapshot, commands, lab};
use crate::config::model::{Config, Port};
use crate::config::text::edit;
use crate::ctl::{parse, run};

/// Ports of a small host, and of one that is larger by [`FACTOR`].
const SMALL: usize = 500;
const FACTOR: usize = 8;
/// A cost that grows with the ports grows by [`FACTOR`], one that grows with their square by 64.
const MOST: u32 = 3 * FACTOR as u32;
/// Runs of each measurement; the least counts, so that a disturbance of one does not.
const RUNS: usize = 5;

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn host(ports: usize) -> Config {
    let mut config = lab();
    let like = config.ports[0].clone();
    config.ports = (0..ports).map(|n| Port { name: format!("vm{n}"), ..like.clone() }).collect();
    config
}

/// Runs `work` on what is prepared of hosts of both sizes, and compares what it costs.
fn check<T>(what: &str, prepare: impl Fn(Config) -> T, work: impl Fn(&T)) {
    let cost = |ports: usize| {
        let prepared = prepare(host(ports));
        let run = |_| {
            let before = processor_time();
            work(&prepared);
            processor_time() - before
        };
        (0..RUNS).map(run).min().unwrap()
    };
    let (small, large) = (cost(SMALL), cost(SMALL * FACTOR));
    assert!(large < small * MOST, "{what}: {small:?} for {SMALL} ports, {large:?} for {FACTOR}×");
}

#[test]
fn commands_on_all_ports_cost_the_same_for_each() {
    let snapshot = Snapshot::default();
    for line in ["show", "list Interface", "list Port", "list Bridge", "set Port vm9 tag=7"] {
        let calls = parse(&commands(line)).unwrap();
        let work = |config: &Config| drop(run(&calls, config.clone(), &snapshot).unwrap());
        check(line, |config| config, work);
    }
}

#[test]
fn a_change_of_one_port_is_written_into_any_file_alike() {
    let prepare = |config: Config| {
        let text = edit("", &Config::default(), &config).unwrap();
        let mut changed = config.clone();
        changed.ports[9].vlan.tag = Some(7);
        (text, config, changed)
    };
    let work = |(text, from, to): &(String, Config, Config)| {
        assert_ne!(edit(text, from, to).unwrap(), *text);
    };
    check("edit", prepare, work);
    // All ports are new.
    let work = |(_, _, to): &(String, Config, Config)| {
        assert!(edit("", &Config::default(), to).unwrap().contains("vm9"));
    };
    check("make", prepare, work);
}
