//! The report as a table.

use std::fmt::Write;

use crate::report::{Bound, Ratio, Report, Row, ScenarioReport};
use crate::scenario::Better;
use crate::stats::Estimate;

/// Fraction of time waiting for a core above which other work has disturbed the switch.
const DISTURBED: f64 = 0.05;

/// Returns the report as a table.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    for scenario in &report.scenarios {
        table_of(scenario, &mut text);
    }
    for problem in &report.problems {
        let _ = writeln!(text, "\nnot measured: {problem}");
    }
    text
}

fn table_of(scenario: &ScenarioReport, text: &mut String) {
    let (name, title, unit) = (&scenario.name, &scenario.title, &scenario.unit);
    let far = if scenario.far_cores { ", far cores" } else { "" };
    let _ = writeln!(text, "\n{name}: {title}{far} ({unit})");
    let first = scenario.rows.first().map_or("", |row| &row.peer);
    let has_value = scenario.rows.first().is_some_and(|row| row.value.is_some());
    for row in &scenario.rows {
        let figure = row.value.map_or("-".into(), |value| number(value.median));
        let cost = match (row.cpu_nanos_per_frame, row.cpu_cores) {
            (Some(nanos), _) => format!("{nanos:.0} ns/frame"),
            (None, Some(cores)) => format!("{:.0} % core", cores * 100.0),
            _ => String::new(),
        };
        let mut notes = Vec::new();
        match &row.ratio {
            Some(ratio) => notes.push(sentence(first, row, ratio, scenario)),
            None if row.peer != first && row.value.is_some() && has_value => {
                notes.push("no ratio: every round was disturbed".into());
            }
            None => {}
        }
        if row.generator_bound {
            notes.push("generator-bound: the limit is the generator, not the switch".into());
        }
        if let Some(share) = row.cpu_waited.filter(|&share| share > DISTURBED) {
            notes.push(format!("waited for its core {:.0} % of the time", share * 100.0));
        }
        if let (Some(target), Some(value), true) = (scenario.target, row.value, row.peer == first) {
            notes.push(verdict(value.median, target, scenario.better));
        }
        let line = format!("  {:<18} {figure:>9}  {cost:>13}  {}", row.peer, notes.join("; "));
        let _ = writeln!(text, "{}", line.trim_end());
        for error in &row.errors {
            let _ = writeln!(text, "    could not be measured: {error}");
        }
    }
    if let Some(row) = &scenario.ceiling {
        let figure = row.value.map_or("-".into(), |value| number(value.median));
        let _ = writeln!(text, "  {:<18} {figure:>9}  the generator's ceiling", row.peer);
        for error in &row.errors {
            let _ = writeln!(text, "    could not be measured: {error}");
        }
    }
}

fn sentence(first: &str, row: &Row, ratio: &Ratio, scenario: &ScenarioReport) -> String {
    let better = scenario.better;
    if ratio.bound == Bound::Unknown {
        return format!("{first}/{}: no ratio, both are generator-bound", row.peer);
    }
    let at_least = (ratio.bound == Bound::AtLeastAsGood) == (better == Better::Higher);
    let sign = match ratio.bound {
        Bound::Exact => "",
        _ if at_least => ">= ",
        _ => "<= ",
    };
    let Estimate { median, low, high, confidence } = ratio.estimate;
    let which = if scenario.against_best { "'s best" } else { "" };
    let mut text = format!(
        "{first}/{}{which}: {sign}{median:.2} ({low:.2} to {high:.2}, {:.0} %)",
        row.peer,
        confidence * 100.0
    );
    if ratio.discarded > 0 {
        let _ = write!(text, ", disturbed rounds left out: {}", ratio.discarded);
    }
    if let Some(target) = ratio.target {
        let _ = write!(text, ", {}", verdict(median, target, better));
    }
    text
}

fn verdict(value: f64, target: f64, better: Better) -> String {
    let (word, reached) = match better {
        Better::Higher => ("at least", value >= target),
        Better::Lower => ("at most", value <= target),
    };
    format!("target {word} {target}: {}", if reached { "met" } else { "MISSED" })
}

/// Formats with about three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn targets_are_judged_in_the_right_direction() {
        assert!(verdict(1.6, 1.5, Better::Higher).ends_with("met"));
        assert!(verdict(1.6, 1.5, Better::Lower).ends_with("MISSED"));
        assert!(table(&report(Better::Higher, &[1.4], &[1.0])).contains("MISSED"));
    }
}
