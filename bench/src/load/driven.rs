//! Our own generator, the driver side of vhost-user ports: what testpmd cannot do. One thread, on
//! the load core, sends and receives.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use trama_bench::generator::{
    Direction, Error, Goal, Group, Limits, Load, Options, Outcome, search,
};
use trama_frame::ethernet::TAG_LEN;

use super::{Context, Measured};
use crate::peers::{End, TRUNK_VLAN};
use crate::process::{Result, interrupted};
use crate::usage::{Usage, Window};

/// Payload of a large frame's segments, as TCP has it with an MTU of 1500.
const SEGMENT: u16 = 1448;
/// A frame of 64 KiB, as large as IPv4 lets it be.
const LARGE_FRAME: usize = 65_549;
/// The search's lowest rate, in frames a second.
const SLOWEST: f64 = 1000.0;
/// How far above what comes through of an overload the loss-free rate is looked for: the machine's
/// pauses may have halved that.
const ROOM: f64 = 2.0;
/// How long a switch may take until it carries frames.
const START: Duration = Duration::from_secs(20);
/// A search ends in half a minute where the machine is quiet; where it is not, it takes longer.
const SEARCH_LIMIT: Duration = Duration::from_secs(120);
/// A trial is spoilt when a loss came with pauses of the machine of such a part of its time, ...
const PAUSED: f64 = 0.02;
/// ... and after so many in a row at one rate there will not be a good one.
const SPOILT_IN_A_ROW: u32 = 12;

/// As fast as the rings take it. The figure is frames a second that arrive.
pub fn flat_out(context: &Context, bytes: usize, direction: Direction) -> Result<Measured> {
    let load = load(context, bytes, direction);
    let (outcome, usage) = connect(context, &load)?.run(context, &load)?;
    Ok(measured(outcome.rate(), &outcome, usage))
}

/// Frames of 64 KiB that leave their segmentation to who needs it. The figure is bits a second.
pub fn large_segments(context: &Context) -> Result<Measured> {
    let load = Load { gso: Some(SEGMENT), ..load(context, LARGE_FRAME, Direction::Uni) };
    let (outcome, usage) = connect(context, &load)?.run(context, &load)?;
    Ok(measured(outcome.rate() * LARGE_FRAME as f64 * 8.0, &outcome, usage))
}

/// The figure is the highest rate without loss, in frames a second (MLRsearch).
pub fn loss_free(context: &Context, bytes: usize) -> Result<Measured> {
    let load = load(context, bytes, Direction::Both);
    let mut group = connect(context, &load)?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let goals = [Goal::new(0.0), Goal::new(0.005)];
    let found = group.search(context, &load, &goals)?;
    let usage = window.close();
    let rates = found.iter().map(|(rate, _)| *rate);
    let [none, little] = rates.collect::<Vec<_>>()[..] else { return Err("no rates".into()) };
    let value = none.ok_or_else(|| format!("even {SLOWEST} frames a second are not all there"))?;
    let details = little.map(|rate| ("half_percent_loss_fps".to_owned(), rate));
    // The switch was offered more and less: processor time for a frame would mean nothing.
    let usage = Usage { cores: None, waited: None, ..usage };
    let is_generators = found[0].1;
    let ceiling = is_generators.then_some(value);
    Ok(Measured { value, details: details.into_iter().collect(), usage, ceiling })
}

/// The figure is the 99th percentile, in the median 10 ms, of the time from a frame's scheduled
/// start to its arrival, in seconds, at a share of the switch's own loss-free rate.
pub fn latency(context: &Context, bytes: usize, percent: u8) -> Result<Measured> {
    let load = load(context, bytes, Direction::Both);
    let mut group = connect(context, &load)?;
    // Roughly is enough here: three trials, bounds within 5 %.
    let goal = Goal::new(0.0);
    let goal = Goal { width: 0.05, duration_sum: 3 * goal.final_trial, ..goal };
    let highest = group.search(context, &load, &[goal])?[0].0;
    let highest = highest.ok_or("no rate without loss was found")?;
    let load = Load { rate: Some(highest * f64::from(percent) / 100.0), ..load };
    let (outcome, usage) = group.run(context, &load)?;
    let at = |percentile| outcome.latency(percentile).map(|nanos| nanos as f64 / 1e9);
    let value = outcome.median_window_p99().ok_or("in no 10 ms did 100 frames arrive")?;
    let mut measured = measured(value as f64 / 1e9, &outcome, usage);
    let percentiles = [("p50_us", 50.0), ("p99_us", 99.0), ("p99.9_us", 99.9), ("max_us", 100.0)];
    for (name, percentile) in percentiles {
        measured.details.extend(at(percentile).map(|seconds| (name.to_owned(), seconds * 1e6)));
    }
    measured.details.insert("windows".into(), outcome.window_p99.len() as f64);
    measured.details.insert("offered_fps".into(), outcome.offered as f64 / outcome.seconds);
    Ok(measured)
}

/// Has the switch learn `stations` addresses on each of its ports, which it may forget when the
/// value is dropped.
pub fn teach(context: &Context, stations: u32) -> Result<Plugged> {
    let load =
        Load { sources: stations, destinations: stations, ..load(context, 60, Direction::Both) };
    connect(context, &load)
}

/// Drivers that have set up their rings and are then silent for as long as the value lives.
pub fn silent_drivers(sockets: &[PathBuf]) -> Result<Option<Group>> {
    if sockets.is_empty() {
        return Ok(None);
    }
    Group::connect(sockets, Options { queue_size: 256, ..Options::default() })
        .map(Some)
        .map_err(told)
}

/// The load that the context's twist asks for: with addresses, and with tags on all ports but the
/// first, or with the lengths that frames then arrive with.
fn load(context: &Context, bytes: usize, direction: Direction) -> Load {
    let stations = (context.twist.macs / 2).max(1);
    let ports = 0..context.switch.ends.len();
    let tags = |port| (context.twist.vlan && port > 0).then_some(TRUNK_VLAN);
    let size = |port| match port {
        _ if !context.twist.lengths_of_vlan => bytes,
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

/// Ports on the switch under test that it knows.
pub struct Plugged(Group);

fn connect(context: &Context, load: &Load) -> Result<Plugged> {
    let (mut sockets, mut listens) = (Vec::new(), false);
    for end in &context.switch.ends {
        let End::Vhost { socket, frontend_listens } = end else {
            return Err("this generator joins vhost-user ports only".into());
        };
        sockets.push(socket);
        listens = *frontend_listens;
    }
    let options = Options {
        largest_frame: load.largest().max(1522),
        offloads: load.gso.is_some(),
        server_role: listens,
        ..Options::default()
    };
    let mut group = Group::connect(&sockets, options).map_err(told)?;
    let end = Instant::now() + START;
    loop {
        match group.learn(load) {
            // A switch that takes its time to look at a new port's ring holds what is in it.
            Err(Error::NotCarried(_)) if Instant::now() < end && !interrupted() => {}
            learnt => return learnt.map(|()| Plugged(group)).map_err(told),
        }
    }
}

impl Plugged {
    fn run(&mut self, context: &Context, load: &Load) -> Result<(Outcome, Usage)> {
        let pids = context.switch.pids();
        let window = Window::open(&pids);
        let outcome = self.0.run(load).map_err(told)?;
        Ok((outcome, window.close()))
    }

    /// For each goal the rate that keeps it, and whether the generator could do no more.
    fn search(
        &mut self,
        context: &Context,
        load: &Load,
        goals: &[Goal],
    ) -> Result<Vec<(Option<f64>, bool)>> {
        let most = self.run(context, load)?.0.rate();
        let limits = Limits { min: SLOWEST, max: (most * ROOM).max(2.0 * SLOWEST) };
        let (end, mut noise) = (Instant::now() + SEARCH_LIMIT, Noise::default());
        let results = search(goals, limits, |rate, duration| {
            let load = Load { rate: Some(rate), duration, ..load.clone() };
            for _ in 0..SPOILT_IN_A_ROW {
                if interrupted() {
                    return Err("interrupted".to_owned());
                }
                if Instant::now() > end {
                    return Err(format!(
                        "no loss-free rate was found in {SEARCH_LIMIT:?}; {noise}"
                    ));
                }
                let (outcome, usage) = self.run(context, &load)?;
                if !noise.has_spoilt(&outcome, &usage, &load) {
                    return Ok(outcome.loss_ratio());
                }
            }
            Err(format!("this machine is too noisy to find a loss-free rate; {noise}"))
        })?;
        Ok(results.iter().map(|r| (r.throughput, r.upper.is_none())).collect())
    }
}

/// Trials that the machine spoilt, which say nothing of the switch.
#[derive(Default)]
struct Noise {
    trials: u32,
    /// How long they took, and for how long of it the switch and the generator waited for their
    /// cores and the hypervisor took one of them.
    seconds: f64,
    switch: f64,
    generator: f64,
    stolen: f64,
}

impl Noise {
    /// Whether pauses of the machine may be all that there is behind this loss: they were long, and
    /// no more is missing than was due meanwhile. Then it is counted here.
    fn has_spoilt(&mut self, outcome: &Outcome, usage: &Usage, load: &Load) -> bool {
        let (switch, stolen) =
            (usage.waited.unwrap_or_default() * usage.seconds, usage.steal * usage.seconds);
        let pause = switch + outcome.paused + stolen;
        let due = pause * load.rate.unwrap_or_default();
        let is_spoilt = pause > PAUSED * load.duration.as_secs_f64()
            && (1.0..=due).contains(&(outcome.lost as f64));
        if is_spoilt {
            self.trials += 1;
            self.seconds += usage.seconds;
            self.switch += switch;
            self.generator += outcome.paused;
            self.stolen += stolen;
        }
        is_spoilt
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let percent = |part: f64| 100.0 * part / self.seconds.max(f64::MIN_POSITIVE);
        write!(
            f,
            "{} trials lost no more than was due while others had the processor: in {:.1} s the switch \
             waited {:.1} % of the time for its core, the generator {:.1} %, the hypervisor took {:.1} %",
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

fn told(error: Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_spoilt_by_long_pauses_that_may_have_cost_all_that_is_missing() {
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
        // 3 ms for want of a core.
        let usage = Usage { seconds: 0.3, waited: Some(0.01), ..Usage::default() };
        let mut noise = Noise::default();
        let mut spoils =
            |lost, paused, usage: Usage| noise.has_spoilt(&outcome(lost, paused), &usage, &load);
        assert!(spoils(2_900, 0.0, usage));
        assert!(!spoils(3_100, 0.0, usage), "more is missing than was due");
        assert!(spoils(3_100, 0.001, usage), "the generator stood still too");
        assert!(!spoils(0, 0.0, usage), "nothing is missing");
        assert!(!spoils(10, 0.001, Usage::default()), "1 % of the time is no excuse");
        let stolen = Usage { seconds: 0.3, steal: 0.1, ..Usage::default() };
        assert!(spoils(20_000, 0.0, stolen));
        assert_eq!(noise.trials, 3);
        let text = noise.to_string();
        assert!(
            text.starts_with("3 trials") && text.contains("in 0.9 s the switch waited 0.7 %"),
            "{text}"
        );
    }
}
