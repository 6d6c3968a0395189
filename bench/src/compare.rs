//! Compares two reports: did a figure get worse by more than the variation between rounds?
//!
//! Absolute figures of two runs on a shared machine are not comparable; ratios to a peer of the
//! same run are. So a scenario with peers is compared by its ratios, one without (memory, start) by
//! its values. A change counts if the two confidence intervals do not overlap and the medians
//! differ by more than [`NEGLIGIBLE`].

use std::fmt::Write;

use crate::report::{Report, Row, ScenarioReport};
use crate::scenario::Better;
use crate::stats::Estimate;

/// Relative change below which a difference is not reported, however significant.
const NEGLIGIBLE: f64 = 0.02;
/// Rounds below which the intervals are not meaningful.
const MIN_ROUNDS: usize = 3;

/// The verdict on one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Worse, beyond the noise.
    Worse,
    /// Better, beyond the noise.
    Better,
    /// Not distinguishable.
    Same,
    /// Too few rounds.
    Unknown,
}

/// A figure that both reports contain.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Scenario and peer.
    pub name: String,
    /// The figure in the first report.
    pub before: Estimate,
    /// The figure in the second report.
    pub after: Estimate,
    /// The verdict.
    pub change: Change,
}

/// Compares the figures that both reports contain.
pub(crate) fn compare(a: &Report, b: &Report) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for before in &a.scenarios {
        if let Some(after) = b.scenarios.iter().find(|s| s.is_same_as(before)) {
            compare_scenario(before, after, &mut comparisons);
        }
    }
    comparisons
}

fn compare_scenario(a: &ScenarioReport, b: &ScenarioReport, out: &mut Vec<Comparison>) {
    let figures = |s: &ScenarioReport| match &s.rows[..] {
        [only] => value(&s.label(), only).into_iter().collect::<Vec<_>>(),
        rows => rows.iter().filter_map(|row| ratio(s, row)).collect(),
    };
    let later = figures(b);
    for (name, before, pairs) in figures(a) {
        if let Some((_, after, later_pairs)) = later.iter().find(|(other, ..)| *other == name) {
            let enough = pairs.min(*later_pairs) >= MIN_ROUNDS;
            let change = if enough { judge(before, *after, a.better) } else { Change::Unknown };
            out.push(Comparison { name, before, after: *after, change });
        }
    }
}

fn value(scenario: &str, row: &Row) -> Option<(String, Estimate, usize)> {
    Some((format!("{scenario} {}", row.peer), row.value?, row.rounds.iter().flatten().count()))
}

fn ratio(scenario: &ScenarioReport, row: &Row) -> Option<(String, Estimate, usize)> {
    let ratio = row.ratio.as_ref()?;
    let name = format!("{} {}/{}", scenario.label(), scenario.rows[0].peer, row.peer);
    Some((name, ratio.estimate, ratio.pairs))
}

fn judge(before: Estimate, after: Estimate, better: Better) -> Change {
    let small = (after.median - before.median).abs() <= NEGLIGIBLE * before.median.abs();
    let fell = after.high < before.low;
    let rose = after.low > before.high;
    match (small, fell, rose, better) {
        (true, ..) | (_, false, false, _) => Change::Same,
        (_, true, _, Better::Higher) | (_, _, true, Better::Lower) => Change::Worse,
        _ => Change::Better,
    }
}

/// Returns the comparisons as a table.
pub(crate) fn table(comparisons: &[Comparison]) -> String {
    let mut text = String::new();
    for Comparison { name, before, after, change } in comparisons {
        let word = match change {
            Change::Worse => "WORSE",
            Change::Better => "better",
            Change::Same => "no significant change",
            Change::Unknown => "too few rounds; measure at least 3",
        };
        let show = |e: &Estimate| format!("{:.3} ({:.3} to {:.3})", e.median, e.low, e.high);
        let factor = after.median / before.median;
        let (before, after) = (show(before), show(after));
        let _ = writeln!(text, "{name:<44} {before:>26} -> {after:>26}  x{factor:.2}  {word}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    const PEER: [f64; 5] = [1.0; 5];

    fn change(better: Better, before: &[f64], after: &[f64]) -> Change {
        let (a, b) = (report(better, before, &PEER), report(better, after, &PEER));
        let comparisons = compare(&a, &b);
        assert_eq!(comparisons.len(), 1);
        comparisons[0].change
    }

    #[test]
    fn a_fall_beyond_the_rounds_spread_is_worse_for_rates_and_better_for_times() {
        let (before, after) = ([2.0, 2.1, 2.2, 2.0, 2.1], [1.5, 1.6, 1.7, 1.5, 1.6]);
        assert_eq!(change(Better::Higher, &before, &after), Change::Worse);
        assert_eq!(change(Better::Lower, &before, &after), Change::Better);
        assert_eq!(change(Better::Higher, &after, &before), Change::Better);
        assert_eq!(change(Better::Lower, &after, &before), Change::Worse);
    }

    #[test]
    fn intervals_that_meet_are_the_same() {
        let (before, after) = ([1.0, 2.0, 3.0, 2.0, 2.0], [0.9, 1.4, 1.1, 1.2, 1.3]);
        assert_eq!(change(Better::Higher, &before, &after), Change::Same);
    }

    #[test]
    fn a_significant_but_negligible_change_is_the_same() {
        assert_eq!(change(Better::Higher, &[1.0; 5], &[0.99; 5]), Change::Same);
        assert_eq!(change(Better::Higher, &[1.0; 5], &[0.97; 5]), Change::Worse);
    }

    #[test]
    fn two_rounds_prove_nothing() {
        assert_eq!(change(Better::Higher, &[2.0, 2.0], &[1.0, 1.0]), Change::Unknown);
    }

    #[test]
    fn a_scenario_without_a_peer_is_compared_by_its_values() {
        let alone = |values: &[f64]| {
            let mut report = report(Better::Lower, values, &PEER);
            report.scenarios[0].rows.truncate(1);
            report
        };
        let comparisons = compare(&alone(&[5.0; 3]), &alone(&[9.0; 3]));
        assert_eq!(comparisons[0].change, Change::Worse);
        assert!(table(&comparisons).contains("WORSE"));
    }

    #[test]
    fn figures_of_only_one_report_are_left_out() {
        let a = report(Better::Lower, &PEER, &PEER);
        let mut b = report(Better::Lower, &PEER, &PEER);
        b.scenarios[0].name = "other".into();
        assert!(compare(&a, &b).is_empty());
    }
}
