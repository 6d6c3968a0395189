//! Executes scenarios: every round measures each entrant once, in turn, and the ceiling.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cores::{LOAD_CORE, SWITCH_CORE};
use crate::distance::round_trip;
use crate::host::Hugepages;
use crate::load::{Context, Load, Measured, silent_drivers};
use crate::machine::Machine;
use crate::peers::{Peer, Port, Setup, Variant};
use crate::process::{Result, interrupted, pause};
use crate::program::Program;
use crate::report::{Method, Report, Row, Sample, ScenarioReport, are_far};
use crate::scenario::{Entrant, Scenario};

/// 2 MiB pages for the generator (512 MiB), a DPDK switch (512 MiB) and their rings.
const HUGEPAGES: usize = 768;
/// Consecutive failures after which an entrant is skipped.
const FAILURES: usize = 2;

/// How long to wait until the cores are near each other, and how often to check.
const PATIENCE: Duration = Duration::from_secs(10);
const RECHECK: Duration = Duration::from_millis(500);

/// The parameters of a run.
pub(crate) struct Plan {
    /// What is measured.
    pub scenarios: Vec<&'static Scenario>,
    /// The labels of the entrants to measure; empty for all.
    pub entrants: Vec<String>,
    /// Number of rounds.
    pub rounds: u16,
    /// Seconds of each measurement.
    pub seconds: u64,
    /// The folder of `tramad`.
    pub bin: PathBuf,
    /// A core that shares no cache with the load core.
    pub far_core: Option<usize>,
}

impl Plan {
    fn entrants_of(&self, scenario: &Scenario) -> impl Iterator<Item = &'static Entrant> {
        let wanted = |e: &&Entrant| self.entrants.is_empty() || self.has(e);
        scenario.entrants.iter().filter(wanted).collect::<Vec<_>>().into_iter()
    }

    fn has(&self, entrant: &Entrant) -> bool {
        self.entrants.iter().any(|name| name == entrant.label)
    }

    /// Returns the switch's cores to measure with: one near the load core and, for loads that share
    /// memory with the switch, a far one, if the machine has one.
    fn cores_of(&self, scenario: &Scenario) -> Vec<usize> {
        let far = self.far_core.filter(|_| scenario.ports.contains(&Port::Vhost));
        [SWITCH_CORE].into_iter().chain(far).collect()
    }

    /// Returns the number of measurements.
    fn steps(&self) -> u64 {
        let of = |s: &&Scenario| {
            let each = self.entrants_of(s).count() + usize::from(s.ceiling.is_some());
            each * self.cores_of(s).len()
        };
        self.scenarios.iter().map(of).sum::<usize>() as u64 * u64::from(self.rounds)
    }
}

/// A run in progress.
struct Run<'a> {
    plan: &'a Plan,
    dir: &'a Path,
    /// The mount point of the hugepages, or why there are none.
    huge: Result<String>,
    /// The shortest round trip between the two cores so far, in nanoseconds.
    nearest: Cell<Option<f64>>,
    bar: ProgressBar,
}

/// One switch under one load.
#[derive(Clone, Copy)]
struct Task {
    peer: &'static Peer,
    variant: Variant,
    ports: &'static [Port],
    /// The switch's core.
    core: usize,
    scenario: &'static Scenario,
}

/// Runs the plan. Failures are recorded in the report, and the rest continues.
pub(crate) fn run(plan: &Plan, dir: &Path) -> Report {
    let programs = plan.scenarios.iter().flat_map(|s| {
        let peers = s.entrants.iter().flat_map(|entrant| entrant.peer.programs);
        s.load.programs().iter().chain(peers)
    });
    let machine = Machine::here(&plan.bin, programs);
    let method = Method::new(plan.rounds, plan.seconds, SWITCH_CORE, LOAD_CORE);
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let mut report = Report::new(now, machine, method);
    let needs = |s: &&Scenario| plan.entrants_of(s).any(|e| s.load.hugepages() || e.peer.hugepages);
    let pages = match plan.scenarios.iter().any(needs) {
        true => Hugepages::reserve(HUGEPAGES, dir),
        false => Err("no hugepages were reserved".into()),
    };
    let huge = pages.as_ref().map(Hugepages::mount).map_err(Clone::clone);
    let run = Run { plan, dir, huge, nearest: Cell::new(None), bar: progress(plan.steps()) };
    for scenario in &plan.scenarios {
        if !interrupted() {
            report.scenarios.push(run.scenario(scenario));
        }
    }
    report.core_round_trip_ns = run.nearest.get();
    let measured = plan.scenarios.iter().zip(std::mem::take(&mut report.scenarios));
    for (scenario, measured) in measured {
        let targets: Vec<_> = plan.entrants_of(scenario).skip(1).map(|e| e.target).collect();
        for mut part in measured.split_by_distance(report.core_round_trip_ns) {
            part.derive(&targets);
            report.scenarios.push(part);
        }
    }
    if interrupted() {
        report.problems.push("the scenarios after the interrupt".into());
    }
    run.bar.finish_and_clear();
    report
}

/// Returns a progress bar on a terminal, a hidden one elsewhere.
fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} eta {eta} {msg}") {
        bar.set_style(style);
    }
    bar
}

impl Run<'_> {
    /// Measures each entrant once for each round and core of the switch.
    fn scenario(&self, scenario: &'static Scenario) -> ScenarioReport {
        let entrants: Vec<_> = self.plan.entrants_of(scenario).collect();
        let mut rows: Vec<Row> = entrants.iter().map(|e| Row::new(e.label)).collect();
        let task = |e: &Entrant, core| Task {
            peer: e.peer,
            variant: e.variant,
            ports: scenario.ports_of(e),
            core,
            scenario,
        };
        let mut ceiling = scenario.ceiling.map(|peer| (peer, Row::new(peer.name)));
        let cores = self.plan.cores_of(scenario);
        let rounds =
            (1..=self.plan.rounds).flat_map(|round| cores.iter().map(move |c| (round, *c)));
        for (round, core) in rounds {
            for (row, entrant) in rows.iter_mut().zip(&entrants) {
                self.round(row, round, task(entrant, core));
            }
            if let Some((peer, row)) = &mut ceiling {
                let (variant, ports) = (Variant::default(), scenario.ports);
                self.round(row, round, Task { peer, variant, ports, core, scenario });
            }
        }
        ScenarioReport {
            name: scenario.name.into(),
            title: scenario.title.into(),
            unit: scenario.unit.name.into(),
            better: scenario.unit.better,
            target: scenario.target,
            against_best: scenario.against_best,
            far_cores: false,
            ceiling: ceiling.map(|(_, row)| row),
            rows,
        }
    }

    /// Measures once, unless the entrant is known to fail.
    fn round(&self, row: &mut Row, round: u16, task: Task) {
        self.bar.set_message(format!("{} round {round}: {}", task.scenario.name, row.peer));
        let failed = row.rounds.iter().rev().take_while(|sample| sample.is_none()).count();
        if failed < FAILURES && !interrupted() {
            row.push(
                self.check_prerequisites(task).and_then(|()| self.measure_catching_panics(task)),
            );
        } else {
            row.rounds.push(None);
        }
        self.bar.inc(1);
    }

    /// Checks the prerequisites of the task.
    fn check_prerequisites(&self, task: Task) -> Result<()> {
        let needed = task.peer.programs.iter().chain(task.scenario.load.programs());
        let missing = |program: &&Program| !program.is_installed();
        if let Some(Program { name, package }) = needed.into_iter().find(missing) {
            return Err(format!(
                "{name} is missing; install the package {package}, or run scripts/install.sh bench"
            ));
        }
        Ok(())
    }

    /// As [`Run::measure`], with panics of the system tests' support code as errors.
    fn measure_catching_panics(&self, task: Task) -> Result<Sample> {
        catch_unwind(AssertUnwindSafe(|| self.measure(task))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("the measurement failed").trim().replace('\n', " | "))
        })
    }

    fn measure(&self, task: Task) -> Result<Sample> {
        let Task { peer, variant, ports, core, scenario } = task;
        let load: Load = scenario.load;
        let huge = match &self.huge {
            Ok(mount) => mount,
            Err(error) if peer.hugepages || load.hugepages() => return Err(error.clone()),
            Err(_) => "",
        };
        let before = self.wait_for_near_cores(core);
        let place = tempfile::tempdir_in(self.dir).map_err(|e| format!("temporary folder: {e}"))?;
        let (bin, dir) = (self.plan.bin.as_path(), place.path());
        let switch =
            (peer.start)(&Setup { bin, dir, huge, core, ports, mtu: scenario.mtu, variant })?;
        let _drivers = silent_drivers(&switch.silent)?;
        let seconds = self.plan.seconds;
        let context = Context { switch: &switch, core, variant, bin, dir, huge, seconds };
        let measured = load.measure(&context)?;
        let round_trips = before.into_iter().chain(round_trip(core));
        Ok(Sample {
            core_round_trip_ns: round_trips.reduce(f64::max),
            ..sample(scenario, measured)
        })
    }

    /// Waits a while until the cores are as near to each other as they have been in this run;
    /// returns their round trip.
    fn wait_for_near_cores(&self, core: usize) -> Option<f64> {
        if core != SWITCH_CORE {
            return round_trip(core);
        }

        let end = Instant::now() + PATIENCE;
        loop {
            let round_trip_ns = round_trip(SWITCH_CORE);
            self.nearest.set(self.nearest.get().into_iter().chain(round_trip_ns).reduce(f64::min));
            if !are_far(round_trip_ns, self.nearest.get())
                || Instant::now() > end
                || pause(RECHECK).is_err()
            {
                return round_trip_ns;
            }
        }
    }
}

/// Converts a measurement to the scenario's unit.
fn sample(scenario: &Scenario, measured: Measured) -> Sample {
    let unit = &scenario.unit;
    let cores = measured.usage.cores;
    let frames = if unit.frames { measured.value } else { 0.0 };
    Sample {
        value: measured.value / unit.scale,
        details: measured.details,
        cpu_cores: cores,
        cpu_nanos_per_frame: cores.filter(|_| frames > 0.0).map(|cores| cores * 1e9 / frames),
        cpu_waited: measured.usage.waited,
        steal: measured.usage.steal,
        ceiling: measured.ceiling.map(|ceiling| ceiling / unit.scale),
        ..Sample::default()
    }
}
