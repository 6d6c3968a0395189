//! Loads of trama's own generator, the driver side of vhost-user ports: what testpmd cannot
//! generate. One thread, on the load core, sends and receives.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use trama_bench::generator::{
    Direction, Error, Goal, Group, Limits, Load, Options, Outcome, search,
};
use trama_frame::ethernet::TAG_LEN;
use trama_vhost_net_backend::Role;

use super::{Context, Measured};
use crate::peers::{End, TRUNK_VLAN};
use crate::process::{Result, interrupted};
use crate::usage::{Usage, Window};

/// Payload of a large frame's segments, as of TCP with an MTU of 1500.
const SEGMENT: u16 = 1448;
/// A frame of 64 KiB, the largest that IPv4 allows.
const LARGE_FRAME: usize = 65_549;
/// The search's lowest rate, in frames a second.
const MIN_RATE: f64 = 1000.0;
/// Upper limit of the loss-free search, relative to the throughput under overload, which pauses of
/// the machine may have halved.
const SEARCH_HEADROOM: f64 = 2.0;
/// Time limit until a switch forwards frames.
const START: Duration = Duration::from_secs(20);
/// Time limit of a search, which takes half a minute on a quiet machine.
const SEARCH_LIMIT: Duration = Duration::from_secs(120);
/// Fraction of a trial's time in pauses of the machine above which its loss is disturbed, ...
const PAUSED: f64 = 0.02;
/// ... and the number of disturbed trials in a row at one rate that ends the search.
const MAX_DISTURBED_IN_A_ROW: u32 = 12;

/// Measures the frames a second that arrive when sent as fast as the rings take them.
pub(super) fn unpaced(context: &Context, bytes: usize, direction: Direction) -> Result<Measured> {
    let load = load(context, bytes, direction);
    let (outcome, usage) = connect(context, &load)?.run(context, &load)?;
    Ok(measured(outcome.rate(), &outcome, usage))
}

/// Measures bits a second of frames of 64 KiB, which leave their segmentation to the receiver.
pub(super) fn large_segments(context: &Context) -> Result<Measured> {
    let load = Load { gso: Some(SEGMENT), ..load(context, LARGE_FRAME, Direction::Uni) };
    let (outcome, usage) = connect(context, &load)?.run(context, &load)?;
    Ok(measured(outcome.rate() * LARGE_FRAME as f64 * 8.0, &outcome, usage))
}

/// Measures the highest rate without loss, in frames a second (MLRsearch).
pub(super) fn loss_free(context: &Context, bytes: usize) -> Result<Measured> {
    let load = load(context, bytes, Direction::Both);
    let mut group = connect(context, &load)?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let goals = [Goal::new(0.0), Goal::new(0.005)];
    let found = group.search(context, &load, &goals)?;
    let usage = window.close();
    let rates = found.iter().map(|(rate, _)| *rate);
    let [none, little] = rates.collect::<Vec<_>>()[..] else { return Err("no rates".into()) };
    let value = none.ok_or_else(|| format!("frames are lost even at {MIN_RATE} frames/s"))?;
    let details = little.map(|rate| ("half_percent_loss_fps".to_owned(), rate));
    // The offered load varied: processor time for a frame would mean nothing.
    let usage = Usage { cores: None, waited: None, ..usage };
    let is_generators = found[0].1;
    let ceiling = is_generators.then_some(value);
    Ok(Measured { value, details: details.into_iter().collect(), usage, ceiling })
}

/// Measures the time from a frame's scheduled start to its arrival, in seconds: the 99th percentile
/// of the median 10 ms, at a percentage of the switch's own loss-free rate.
pub(super) fn latency(context: &Context, bytes: usize, percent: u8) -> Result<Measured> {
    let load = load(context, bytes, Direction::Both);
    let mut group = connect(context, &load)?;
    // A coarse search is enough: three trials, bounds within 5 %.
    let goal = Goal::new(0.0);
    let goal = Goal { width: 0.05, duration_sum: 3 * goal.final_trial, ..goal };
    let highest = group.search(context, &load, &[goal])?[0].0;
    let highest = highest.ok_or("no rate without loss was found")?;
    let load = Load { rate: Some(highest * f64::from(percent) / 100.0), ..load };
    let (outcome, usage) = group.run(context, &load)?;
    let at = |percentile| outcome.latency(percentile).map(|nanos| nanos as f64 / 1e9);
    let value = outcome.median_window_p99().ok_or("no 10 ms window received 100 frames")?;
    let mut measured = measured(value as f64 / 1e9, &outcome, usage);
    let percentiles = [("p50_us", 50.0), ("p99_us", 99.0), ("p99.9_us", 99.9), ("max_us", 100.0)];
    for (name, percentile) in percentiles {
        measured.details.extend(at(percentile).map(|seconds| (name.to_owned(), seconds * 1e6)));
    }
    measured.details.insert("windows".into(), outcome.window_p99.len() as f64);
    measured.details.insert("offered_fps".into(), outcome.offered as f64 / outcome.seconds);
    Ok(measured)
}

/// Lets the switch learn `stations` addresses on each of its ports. The ports stay connected until
/// the value is dropped.
pub(super) fn learn_stations(context: &Context, stations: u32) -> Result<ConnectedPorts> {
    let load =
        Load { sources: stations, destinations: stations, ..load(context, 60, Direction::Both) };
    connect(context, &load)
}

/// Connects drivers that set up their rings and stay silent until the value is dropped.
pub(crate) fn silent_drivers(sockets: &[PathBuf]) -> Result<Option<Group>> {
    if sockets.is_empty() {
        return Ok(None);
    }
    Group::connect(sockets, Options { queue_size: 256, ..Options::default() })
        .map(Some)
        .map_err(describe)
}

/// Returns the load for the context's variant: with many addresses, with tags on all ports but the
/// first, or with the frame sizes after tagging.
fn load(context: &Context, bytes: usize, direction: Direction) -> Load {
    let stations = (context.variant.macs / 2).max(1);
    let ports = 0..context.switch.ends.len();
    let tags = |port| (context.variant.vlan && port > 0).then_some(TRUNK_VLAN);
    let size = |port| match port {
        _ if !context.variant.vlan_frame_sizes => bytes,
        0 => bytes + TAG_LEN,
        _ => bytes - TAG_LEN,
    };
    Load {
        duration: Duration::from_secs(context.seconds),
        vlans: ports.clone().map(tags).collect(),
        sizes: ports.map(size).collect(),
        sources: stations,
        destinations: stations,
        ..Load::new(bytes, direction)
    }
}

/// Ports connected to the switch under test, which has learned them.
pub(super) struct ConnectedPorts(Group);

fn connect(context: &Context, load: &Load) -> Result<ConnectedPorts> {
    let (mut sockets, mut role) = (Vec::new(), Role::Server);
    for end in &context.switch.ends {
        let End::Vhost { socket, backend_role } = end else {
            return Err("this load supports vhost-user ports only".into());
        };
        sockets.push(socket);
        role = *backend_role;
    }
    let options = Options {
        largest_frame: load.largest().max(1522),
        offloads: load.gso.is_some(),
        backend_role: role,
        ..Options::default()
    };
    let mut group = Group::connect(&sockets, options).map_err(describe)?;
    let end = Instant::now() + START;
    loop {
        match group.learn(load) {
            // A switch that polls a new port's ring only after a while keeps its frames.
            Err(Error::NotForwarded(_)) if Instant::now() < end && !interrupted() => {}
            learnt => return learnt.map(|()| ConnectedPorts(group)).map_err(describe),
        }
    }
}

impl ConnectedPorts {
    fn run(&mut self, context: &Context, load: &Load) -> Result<(Outcome, Usage)> {
        let pids = context.switch.pids();
        let window = Window::open(&pids);
        let outcome = self.0.run(load).map_err(describe)?;
        Ok((outcome, window.close()))
    }

    /// Returns for each goal the rate that keeps it, and whether the generator was the limit.
    fn search(
        &mut self,
        context: &Context,
        load: &Load,
        goals: &[Goal],
    ) -> Result<Vec<(Option<f64>, bool)>> {
        let most = self.run(context, load)?.0.rate();
        let limits = Limits { min: MIN_RATE, max: (most * SEARCH_HEADROOM).max(2.0 * MIN_RATE) };
        let (end, mut noise) = (Instant::now() + SEARCH_LIMIT, Noise::default());
        let results = search(goals, limits, |rate, duration| {
            let load = Load { rate: Some(rate), duration, ..load.clone() };
            for _ in 0..MAX_DISTURBED_IN_A_ROW {
                if interrupted() {
                    return Err("interrupted".to_owned());
                }
                if Instant::now() > end {
                    return Err(format!(
                        "no loss-free rate was found in {SEARCH_LIMIT:?}; {noise}"
                    ));
                }
                let (outcome, usage) = self.run(context, &load)?;
                if !noise.is_disturbed(&outcome, &usage, &load) {
                    return Ok(outcome.loss_ratio());
                }
            }
            Err(format!("this machine is too noisy to find a loss-free rate; {noise}"))
        })?;
        Ok(results.iter().map(|r| (r.throughput, r.upper.is_none())).collect())
    }
}

/// Trials disturbed by the machine, which say nothing about the switch.
#[derive(Default)]
struct Noise {
    trials: u32,
    /// Their total duration, and how much of it the switch and the generator waited for their cores
    /// or the hypervisor took one.
    seconds: f64,
    switch: f64,
    generator: f64,
    stolen: f64,
}

impl Noise {
    /// Returns whether pauses of the machine may explain this loss: they were long, and no more is
    /// missing than was due meanwhile. Counts such a trial.
    fn is_disturbed(&mut self, outcome: &Outcome, usage: &Usage, load: &Load) -> bool {
        let (switch, stolen) =
            (usage.waited.unwrap_or_default() * usage.seconds, usage.steal * usage.seconds);
        let pause = switch + outcome.paused + stolen;
        let due = pause * load.rate.unwrap_or_default();
        let disturbed = pause > PAUSED * load.duration.as_secs_f64()
            && (1.0..=due).contains(&(outcome.lost as f64));
        if disturbed {
            self.trials += 1;
            self.seconds += usage.seconds;
            self.switch += switch;
            self.generator += outcome.paused;
            self.stolen += stolen;
        }
        disturbed
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let percent = |part: f64| 100.0 * part / self.seconds.max(f64::MIN_POSITIVE);
        write!(
            f,
            "{} trials were disturbed by other load: in {:.1} s the switch waited {:.1} % of the time for \
             its core, the generator {:.1} %, and the hypervisor took {:.1} %",
            self.trials,
            self.seconds,
            percent(self.switch),
            percent(self.generator),
            percent(self.stolen)
        )
    }
}

fn measured(value: f64, outcome: &Outcome, usage: Usage) -> Measured {
    let details = [
        ("loss_ratio", outcome.loss_ratio()),
        ("reordered", outcome.reordered as f64),
        ("duplicates", outcome.duplicates as f64),
        ("strays", outcome.strays as f64),
    ];
    let details = details.map(|(name, value)| (name.to_owned(), value)).into();
    Measured { value, details, usage, ceiling: None }
}

fn describe(error: Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_disturbed_by_long_pauses_that_may_explain_its_whole_loss() {
        let load = Load {
            rate: Some(1e6),
            duration: Duration::from_millis(100),
            ..Load::new(60, Direction::Both)
        };
        let outcome = |lost, paused| Outcome {
            offered: 100_000,
            sent: 100_000,
            expected: 100_000,
            received: 100_000 - lost,
            lost,
            duplicates: 0,
            reordered: 0,
            strays: 0,
            late: 0,
            paused,
            seconds: 0.1,
            latency: None,
            window_p99: Vec::new(),
        };
        // 3 ms of waiting for a core.
        let usage = Usage { seconds: 0.3, waited: Some(0.01), ..Usage::default() };
        let mut noise = Noise::default();
        let mut disturbs =
            |lost, paused, usage: Usage| noise.is_disturbed(&outcome(lost, paused), &usage, &load);
        assert!(disturbs(2_900, 0.0, usage));
        assert!(!disturbs(3_100, 0.0, usage), "more is missing than was due");
        assert!(disturbs(3_100, 0.001, usage), "the generator stood still too");
        assert!(!disturbs(0, 0.0, usage), "nothing is missing");
        assert!(!disturbs(10, 0.001, Usage::default()), "1 % of the time is no excuse");
        let stolen = Usage { seconds: 0.3, steal: 0.1, ..Usage::default() };
        assert!(disturbs(20_000, 0.0, stolen));
        assert_eq!(noise.trials, 3);
        let text = noise.to_string();
        assert!(
            text.starts_with("3 trials") && text.contains("in 0.9 s the switch waited 0.7 %"),
            "{text}"
        );
    }
}
