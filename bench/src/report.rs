//! The report, written as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::process::Result;
use crate::scenario::Better;
use crate::stats::{Estimate, estimate, median};

/// Version of the format; raised by a change that older programs would misread.
const FORMAT: u32 = 1;
/// A figure within this fraction of the generator's ceiling is generator-bound.
const BOUND: f64 = 0.2;
/// Steal time, as a fraction of a core, above which a round is left out of ratios.
pub(crate) const STEAL_LIMIT: f64 = 0.02;
/// Cores count as far when their round trip is this many times the shortest.
const FAR_FACTOR: f64 = 3.0;

/// The results of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Version of the format.
    pub format: u32,
    /// When the run began.
    pub date: String,
    /// Where it ran.
    pub machine: Machine,
    /// How it measured.
    pub method: Method,
    /// The shortest round trip of a cache line between the two cores, in nanoseconds.
    #[serde(default)]
    pub core_round_trip_ns: Option<f64>,
    /// Requests that could not be carried out, as sentences.
    pub problems: Vec<String>,
    /// What was measured.
    pub scenarios: Vec<ScenarioReport>,
}

/// The parameters of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Method {
    /// Number of rounds; each measures every entrant once.
    pub rounds: u16,
    /// Seconds of each measurement.
    pub seconds: u64,
    /// The switch's core.
    pub switch_core: usize,
    /// The core of generator and sink.
    pub load_core: usize,
    /// Rounds with more steal time than this fraction are left out of ratios.
    pub steal_limit: f64,
    /// Figures within this fraction of the ceiling are generator-bound.
    pub bound: f64,
}

impl Method {
    /// Returns the parameters of a run of this program.
    pub(crate) fn new(rounds: u16, seconds: u64, switch_core: usize, load_core: usize) -> Self {
        Self { rounds, seconds, switch_core, load_core, steal_limit: STEAL_LIMIT, bound: BOUND }
    }
}

/// One scenario's figures.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ScenarioReport {
    /// Its name on the command line.
    pub name: String,
    /// A description.
    pub title: String,
    /// The unit of all its values.
    pub unit: String,
    /// Which direction is better.
    pub better: Better,
    /// Target for the first row's median.
    pub target: Option<f64>,
    /// Whether ratios are to the best round of each other row.
    #[serde(default)]
    pub against_best: bool,
    /// Whether these are the rounds with far cores.
    #[serde(default, alias = "cores_apart")]
    pub far_cores: bool,
    /// The generator without a switch, where it can be measured.
    pub ceiling: Option<Row>,
    /// The entrants; trama comes first.
    pub rows: Vec<Row>,
}

/// One entrant's figures.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its name.
    pub peer: String,
    /// One entry for each round; `None` if the measurement failed.
    pub rounds: Vec<Option<Sample>>,
    /// Why measurements failed, each sentence once.
    pub errors: Vec<String>,
    /// The median with its interval.
    pub value: Option<Estimate>,
    /// Median processor time of the switch's processes, in nanoseconds for each frame.
    pub cpu_nanos_per_frame: Option<f64>,
    /// Median of the cores that the switch's processes kept busy.
    pub cpu_cores: Option<f64>,
    /// Median of the fraction of time that they waited for a core.
    pub cpu_waited: Option<f64>,
    /// Whether the figure is limited by the generator and not by this switch.
    pub generator_bound: bool,
    /// The first row's figure divided by this one's.
    pub ratio: Option<Ratio>,
}

/// One measurement.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// The figure, in the scenario's unit.
    pub value: f64,
    /// Details, by name with unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, f64>,
    /// Cores that the switch's processes kept busy.
    pub cpu_cores: Option<f64>,
    /// Processor time for each frame, in nanoseconds.
    pub cpu_nanos_per_frame: Option<f64>,
    /// The fraction of time that the switch's processes waited for a core.
    pub cpu_waited: Option<f64>,
    /// The largest fraction of steal time of any core.
    pub steal: f64,
    /// The round trip of a cache line between the two cores, in nanoseconds: the longer of those
    /// before and after the measurement.
    #[serde(default)]
    pub core_round_trip_ns: Option<f64>,
    /// Whether that is too long to compare the figure with those of near cores.
    #[serde(default, alias = "cores_apart")]
    pub far_cores: bool,
    /// The generator's ceiling in this round, in the scenario's unit.
    pub ceiling: Option<f64>,
}

/// The ratio of the first entrant to another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// The median of the rounds' ratios with its interval.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Number of rounds with a ratio.
    pub pairs: usize,
    /// Number of rounds left out because of steal time.
    pub discarded: usize,
    /// How the true ratio relates to the estimate.
    #[serde(alias = "says")]
    pub bound: Bound,
    /// The target.
    pub target: Option<f64>,
}

/// How a ratio bounds the true one, as its figures may be generator-bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    /// Both figures are the switches' own.
    #[serde(alias = "exactly")]
    Exact,
    /// trama's figure is generator-bound: trama is at least this good.
    AtLeastAsGood,
    /// The peer's figure is generator-bound: trama is at most this good.
    AtMostAsGood,
    /// Both figures are generator-bound.
    #[serde(alias = "nothing")]
    Unknown,
}

impl Report {
    /// A report without scenarios.
    pub(crate) fn new(date: String, machine: Machine, method: Method) -> Self {
        Self {
            format: FORMAT,
            date,
            machine,
            method,
            core_round_trip_ns: None,
            problems: Vec::new(),
            scenarios: Vec::new(),
        }
    }

    /// Reads a report from a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let at = |e: String| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| at(e.to_string()))?;
        let report: Self = serde_json::from_str(&text)
            .map_err(|e| at(format!("not a report of trama-bench: {e}")))?;
        if report.format != FORMAT {
            let message = format!("report format {}; this version reads {FORMAT}", report.format);
            return Err(at(message + "; measure again"));
        }
        Ok(report)
    }

    /// Writes the report to a file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let at = |e: String| format!("{}: {e}", path.display());
        let text = serde_json::to_string_pretty(self).map_err(|e| at(e.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|e| at(e.to_string()))
    }

    /// Returns whether every request was measured.
    pub(crate) fn is_complete(&self) -> bool {
        let rows = self.scenarios.iter().flat_map(|s| s.rows.iter().chain(&s.ceiling));
        self.problems.is_empty() && rows.into_iter().all(|row| row.errors.is_empty())
    }
}

/// Creates the folder and checks that a report can be written there.
pub(crate) fn check_output(path: &Path) -> Result<()> {
    let at = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(at)?;
    }
    std::fs::File::options().append(true).create(true).open(path).map(|_| ()).map_err(at)
}

impl ScenarioReport {
    /// Splits the rounds into reports with near cores and with far ones, whose figures are not
    /// comparable. `nearest` is the shortest round trip between the cores in nanoseconds. The
    /// first report has the errors.
    pub(crate) fn split_by_distance(mut self, nearest: Option<f64>) -> Vec<ScenarioReport> {
        let rows = self.rows.iter_mut().chain(&mut self.ceiling);
        let (mut near, mut far) = (false, false);
        for sample in rows.flat_map(|row| row.rounds.iter_mut().flatten()) {
            sample.far_cores = are_far(sample.core_round_trip_ns, nearest);
            *(if sample.far_cores { &mut far } else { &mut near }) = true;
        }
        match (near, far) {
            (_, false) => vec![self],
            (false, true) => vec![ScenarioReport { far_cores: true, ..self }],
            (true, true) => {
                let far = ScenarioReport {
                    far_cores: true,
                    rows: self.rows.iter_mut().map(Row::split_far).collect(),
                    ceiling: self.ceiling.as_mut().map(Row::split_far),
                    name: self.name.clone(),
                    title: self.title.clone(),
                    unit: self.unit.clone(),
                    ..self
                };
                vec![self, far]
            }
        }
    }

    /// Returns the name, marked if the cores were far from each other.
    pub(crate) fn label(&self) -> String {
        format!("{}{}", self.name, if self.far_cores { "-far-cores" } else { "" })
    }

    /// Returns whether the figures of both are comparable.
    pub(crate) fn is_same_as(&self, other: &ScenarioReport) -> bool {
        (&self.name, self.far_cores) == (&other.name, other.far_cores)
    }

    /// Derives medians, ratios and generator-bound marks from the samples.
    pub(crate) fn derive(&mut self, targets: &[Option<f64>]) {
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.derive(None);
        }
        let ceiling = self.ceiling.as_ref().and_then(|row| row.value).map(|value| value.median);
        for row in &mut self.rows {
            row.derive(ceiling.map(|limit| (limit, self.better)));
            row.generator_bound |= row.is_bound_by_its_own_ceiling(self.better);
        }
        let Some((first, others)) = self.rows.split_first_mut() else { return };
        for (row, &target) in others.iter_mut().zip(targets) {
            row.ratio = ratio(first, row, target, self.against_best.then_some(self.better));
        }
    }
}

impl Row {
    /// A row without samples.
    pub(crate) fn new(peer: &str) -> Self {
        Self { peer: peer.to_owned(), ..Self::default() }
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, sample: Result<Sample>) {
        match sample {
            Ok(sample) => self.rounds.push(Some(sample)),
            Err(error) => {
                self.rounds.push(None);
                if !self.errors.contains(&error) {
                    self.errors.push(error);
                }
            }
        }
    }

    /// Returns the successful samples.
    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.rounds.iter().flatten()
    }

    /// Moves the rounds with far cores into a row of their own.
    fn split_far(&mut self) -> Row {
        let far = |round: &mut Option<Sample>| round.take_if(|sample| sample.far_cores);
        Row { rounds: self.rounds.iter_mut().map(far).collect(), ..Row::new(&self.peer) }
    }

    fn derive(&mut self, ceiling: Option<(f64, Better)>) {
        let all = |pick: fn(&Sample) -> Option<f64>| self.samples().filter_map(pick).collect();
        let values: Vec<f64> = all(|s| Some(s.value));
        let cores: Vec<f64> = all(|s| s.cpu_cores);
        let waited: Vec<f64> = all(|s| s.cpu_waited);
        let nanos: Vec<f64> = all(|s| s.cpu_nanos_per_frame);
        self.value = estimate(&values);
        self.cpu_cores = median(&cores);
        self.cpu_waited = median(&waited);
        self.cpu_nanos_per_frame = median(&nanos);
        self.generator_bound = match (self.value, ceiling) {
            (Some(value), Some((limit, better))) => is_bound(value.median, limit, better),
            _ => false,
        };
    }

    fn is_bound_by_its_own_ceiling(&self, better: Better) -> bool {
        let bound = |s: &Sample| s.ceiling.is_some_and(|limit| is_bound(s.value, limit, better));
        let all = self.samples().count();
        all > 0 && self.samples().filter(|s| bound(s)).count() * 2 > all
    }
}

impl Sample {
    /// Returns whether the steal time was over the limit.
    fn is_stolen(&self) -> bool {
        self.steal > STEAL_LIMIT
    }
}

/// Returns whether cores with this round trip are far from each other, given the shortest.
pub(crate) fn are_far(round_trip: Option<f64>, nearest: Option<f64>) -> bool {
    round_trip.zip(nearest).is_some_and(|(round_trip, nearest)| round_trip > nearest * FAR_FACTOR)
}

/// Returns whether a value is so close to the generator's ceiling that it says nothing about the
/// switch.
fn is_bound(value: f64, ceiling: f64, better: Better) -> bool {
    match better {
        Better::Higher => value >= ceiling * (1.0 - BOUND),
        Better::Lower => value <= ceiling / (1.0 - BOUND),
    }
}

/// Returns the best value of a row's rounds without steal time.
fn best(row: &Row, better: Better) -> Option<f64> {
    let values = row.samples().filter(|s| !s.is_stolen()).map(|s| s.value);
    match better {
        Better::Higher => values.reduce(f64::max),
        Better::Lower => values.reduce(f64::min),
    }
}

/// Returns the ratio, round by round or of each of trama's rounds to the peer's best.
fn ratio(
    first: &Row,
    other: &Row,
    target: Option<f64>,
    against_best: Option<Better>,
) -> Option<Ratio> {
    let best = against_best.and_then(|better| best(other, better));
    let pairs: Vec<(&Sample, &Sample)> = first
        .rounds
        .iter()
        .zip(&other.rounds)
        .filter_map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)))
        .filter(|(_, b)| b.value > 0.0)
        .collect();
    let undisturbed = pairs.iter().filter(|(a, b)| !a.is_stolen() && !b.is_stolen());
    let kept: Vec<f64> = undisturbed.map(|(a, b)| a.value / best.unwrap_or(b.value)).collect();
    let bound = match (first.generator_bound, other.generator_bound) {
        (false, false) => Bound::Exact,
        (true, false) => Bound::AtLeastAsGood,
        (false, true) => Bound::AtMostAsGood,
        (true, true) => Bound::Unknown,
    };
    let discarded = pairs.len() - kept.len();
    Some(Ratio { estimate: estimate(&kept)?, pairs: kept.len(), discarded, bound, target })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::table::table;

    fn row(peer: &str, values: &[f64]) -> Row {
        let mut row = Row::new(peer);
        values.iter().for_each(|&value| row.push(Ok(Sample { value, ..Sample::default() })));
        row
    }

    /// Returns a report with one scenario of two rows, trama first.
    pub(crate) fn report(better: Better, first: &[f64], other: &[f64]) -> Report {
        let method = Method::new(first.len() as u16, 1, 0, 1);
        let mut report = Report::new("2026-01-01T00:00:00Z".into(), Machine::default(), method);
        let mut scenario = ScenarioReport {
            name: "s".into(),
            title: "a scenario".into(),
            unit: "Mpps".into(),
            better,
            target: None,
            against_best: false,
            far_cores: false,
            ceiling: None,
            rows: vec![row("trama", first), row("other", other)],
        };
        scenario.derive(&[Some(1.5)]);
        report.scenarios.push(scenario);
        report
    }

    #[test]
    fn ratios_to_the_best_round_on_request() {
        let mut scenario =
            report(Better::Higher, &[3.0, 4.0, 5.0], &[1.0, 2.0, 0.5]).scenarios.remove(0);
        let median = |s: &ScenarioReport| s.rows[1].ratio.as_ref().map(|r| r.estimate.median);
        assert_eq!(median(&scenario), Some(3.0));
        scenario.against_best = true;
        scenario.derive(&[Some(1.5)]);
        assert_eq!(median(&scenario), Some(2.0));
        scenario.better = Better::Lower;
        scenario.derive(&[Some(1.5)]);
        assert_eq!(median(&scenario), Some(8.0));
    }

    #[test]
    fn ratios_skip_failed_rounds_and_discard_rounds_with_steal_time() {
        let mut report = report(Better::Higher, &[2.0, 9.0, 4.0, 8.0], &[1.0, 3.0, 1.0, 0.0]);
        let scenario = &mut report.scenarios[0];
        scenario.rows[0].rounds[1] = None;
        scenario.rows[1].rounds[2].as_mut().unwrap().steal = 0.5;
        scenario.derive(&[None]);
        let ratio = scenario.rows[1].ratio.as_ref().unwrap();
        assert_eq!((ratio.estimate.median, ratio.pairs, ratio.discarded), (2.0, 1, 1));
    }

    #[test]
    fn rounds_with_far_cores_are_reported_separately() {
        let mut measured = report(Better::Higher, &[20.0, 7.0, 21.0], &[10.0, 4.0, 4.0]);
        let round_trips = [[100.0, 490.0, 95.0], [150.0, 480.0, 480.0]];
        let scenario = &mut measured.scenarios[0];
        scenario.ceiling = Some(row("direct", &[100.0; 3]));
        let rows = scenario.rows.iter_mut().chain(&mut scenario.ceiling);
        for (row, round_trips) in rows.zip(round_trips.iter().chain([&round_trips[0]])) {
            for (sample, round_trip) in row.rounds.iter_mut().flatten().zip(round_trips) {
                sample.core_round_trip_ns = Some(*round_trip);
            }
        }
        scenario.rows[1].errors.push("it broke".into());
        let concluded = |nearest| {
            let scenario = report_of(&measured);
            let mut parts = scenario.split_by_distance(Some(nearest));
            parts.iter_mut().for_each(|part| part.derive(&[None]));
            let figures = |part: &ScenarioReport| {
                let ratio = part.rows[1].ratio.as_ref().map(|r| (r.estimate.median, r.pairs));
                (part.label(), part.rows[0].value.unwrap().median, ratio)
            };
            let errors = |part: &ScenarioReport| part.rows[1].errors.len();
            (
                parts.iter().map(figures).collect::<Vec<_>>(),
                parts.iter().map(errors).collect::<Vec<_>>(),
            )
        };
        let (figures, errors) = concluded(95.0);
        let near = ("s".to_owned(), 20.5, Some((2.0, 1)));
        assert_eq!(figures, [near, ("s-far-cores".to_owned(), 7.0, Some((1.75, 1)))]);
        assert_eq!(errors, [1, 0]);
        // All rounds with far cores; then all with near cores.
        assert_eq!(concluded(30.0).0, [("s-far-cores".to_owned(), 20.0, Some((2.0, 3)))]);
        assert_eq!(concluded(300.0).0, [("s".to_owned(), 20.0, Some((2.0, 3)))]);
    }

    /// Returns a deep copy of the report's only scenario, by writing and reading it.
    fn report_of(report: &Report) -> ScenarioReport {
        let text = serde_json::to_string(&report.scenarios[0]).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_figure_near_the_ceiling_is_generator_bound() {
        let mut report = report(Better::Higher, &[8.5, 8.5, 8.5], &[7.5, 7.5, 7.5]);
        let scenario = &mut report.scenarios[0];
        scenario.ceiling = Some(row("direct", &[10.0, 10.0, 10.0]));
        scenario.derive(&[None]);
        assert!(scenario.rows[0].generator_bound && !scenario.rows[1].generator_bound);
        assert_eq!(scenario.rows[1].ratio.as_ref().unwrap().bound, Bound::AtLeastAsGood);
        let text = table(&report);
        assert!(text.contains("generator-bound") && text.contains(">= 1.13"), "{text}");
    }

    #[test]
    fn a_time_near_the_floor_is_generator_bound() {
        assert!(is_bound(11.0, 10.0, Better::Lower));
        assert!(!is_bound(13.0, 10.0, Better::Lower));
        assert!(!is_bound(7.9, 10.0, Better::Higher));
    }

    #[test]
    fn a_load_that_knows_its_ceiling_is_believed() {
        let mut report = report(Better::Higher, &[8.5, 8.5, 1.0], &[1.0, 1.0, 1.0]);
        let scenario = &mut report.scenarios[0];
        for sample in scenario.rows[0].rounds.iter_mut().flatten() {
            sample.ceiling = Some(9.0);
        }
        scenario.derive(&[None]);
        assert!(scenario.rows[0].generator_bound, "two of three rounds were bound");
    }

    #[test]
    fn a_report_survives_being_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/r.json");
        let mut written = report(Better::Lower, &[1.0, 2.0], &[3.0, 4.0]);
        written.scenarios[0].rows[0].push(Err("it broke".into()));
        check_output(&path).unwrap();
        written.write(&path).unwrap();
        let read = Report::read(&path).unwrap();
        assert_eq!(table(&read), table(&written));
        assert!(!read.is_complete() && table(&read).contains("could not be measured: it broke"));
    }

    #[test]
    fn a_report_with_the_former_names_is_read() {
        let text = serde_json::to_string(&report(Better::Higher, &[1.0], &[1.0])).unwrap();
        let former = text.replace(r#""bound":"exact""#, r#""says":"exactly""#);
        assert!(former != text);
        let read: Report =
            serde_json::from_str(&former.replace("far_cores", "cores_apart")).unwrap();
        assert_eq!(read.scenarios[0].rows[1].ratio.as_ref().unwrap().bound, Bound::Exact);
    }

    #[test]
    fn files_that_are_no_report_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        std::fs::write(&path, "[]").unwrap();
        assert!(check_output(&path.join("r2.json")).unwrap_err().contains("r.json/r2.json"));
        assert!(Report::read(&path).unwrap_err().contains("r.json: not a report"));
        let mut other = report(Better::Higher, &[1.0], &[1.0]);
        other.format = 99;
        other.write(&path).unwrap();
        assert!(Report::read(&path).unwrap_err().contains("format 99"));
    }
}
