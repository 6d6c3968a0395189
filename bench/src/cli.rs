//! The command line.
//!
//! Exit status: 0 success; 1 a measurement failed or `compare` found a regression; 2 the command
//! line is wrong or nothing could be done.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::helper::Helper;
use crate::process::{self, Result};
use crate::report::Report;
use crate::run::Plan;
use crate::scenario::{self, Scenario};
use crate::{compare, cores, host, machine, peers, plot, report, run, table};

/// Defaults of `run`.
const ROUNDS: u16 = 3;
const SECONDS: u64 = 2;

/// Benchmarks trama against its peers, round by round, and prints medians and ratios
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run measurements (needs root for namespaces and hugepages)
    Run(RunOptions),
    /// List scenarios and peers
    List,
    /// Compare two reports; exit with status 1 if a figure got worse
    Compare {
        /// The earlier report
        before: PathBuf,
        /// The later report
        after: PathBuf,
    },
    /// Plot a report as SVG and PNG
    Plot {
        /// Report to plot
        report: PathBuf,
        /// Folder for the plots
        #[arg(long)]
        out: PathBuf,
    },
    #[command(flatten)]
    Helper(Helper),
}

#[derive(clap::Args)]
struct RunOptions {
    /// Scenarios or groups as named by `list` (default: all)
    scenarios: Vec<String>,
    /// Measure only these peers, named as in `list` and separated by commas
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Number of rounds; each measures every peer once
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Duration of each measurement in seconds, without its start and end
    #[arg(long, default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Write the report to this file as JSON
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write plots as SVG and PNG to this folder
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Folder of `tramad` and `tramactl` (default: the folder of this program)
    #[arg(long)]
    bin: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn main(options: Options) -> ExitCode {
    let done = match options.command {
        Command::Run(options) => measure(&options),
        Command::List => {
            print!("{}", list());
            Ok(true)
        }
        Command::Compare { before, after } => compare(&before, &after),
        Command::Plot { report, out } => Report::read(&report).and_then(|r| write_plots(&r, &out)),
        Command::Helper(helper) => helper.run().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("trama-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure(options: &RunOptions) -> Result<bool> {
    let (mut scenarios, mut problems) = select(&options.scenarios);
    problems.extend(unknown_peers(&options.peers, &scenarios));
    scenarios.retain(|scenario| has_entrant(scenario, &options.peers));
    if !host::is_isolated() {
        // Printed at once: the rest may take an hour.
        problems.iter().for_each(|problem| eprintln!("trama-bench: {problem}"));
    }
    if scenarios.is_empty() {
        return Err("no scenario left to measure".into());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("namespaces and hugepages need root; run as root".into());
    }
    if !host::is_isolated() {
        machine::require([cores::SWITCH_CORE, cores::LOAD_CORE])?;
        check_outputs(options)?;
    }
    let bin = match &options.bin {
        Some(bin) => bin.clone(),
        None => program_folder()?,
    };
    if !bin.join("tramad").exists() {
        let bin = bin.display();
        return Err(format!(
            "no tramad in {bin}; run `cargo build --release --bins` or pass --bin"
        ));
    }
    let bin = bin.canonicalize().map_err(|e| format!("{}: {e}", bin.display()))?;
    // A panic becomes an error in the report.
    std::panic::set_hook(Box::new(|_| {}));
    if !host::is_isolated() {
        scenarios.iter().for_each(|scenario| scenario.load.prepare());
    }
    host::isolate(cores::LOAD_CORE)?;
    process::handle_interrupts()?;
    let dir = tempfile::Builder::new().prefix("trama-bench-").tempdir();
    let dir = dir.map_err(|e| format!("no temporary folder: {e}"))?;
    let (rounds, seconds) = (options.rounds, options.seconds);
    let far_core = cores::far_core(cores::LOAD_CORE);
    let plan = Plan { scenarios, entrants: options.peers.clone(), rounds, seconds, bin, far_core };
    let mut report = run::run(&plan, dir.path());
    problems.append(&mut report.problems);
    report.problems = problems;
    print!("{}", table::table(&report));
    if let Some(out) = &options.out {
        report.write(out)?;
    }
    if let Some(folder) = &options.plots {
        write_plots(&report, folder)?;
    }
    Ok(report.is_complete())
}

/// Checks that the results can be written, before the run takes an hour.
fn check_outputs(options: &RunOptions) -> Result<()> {
    options.out.as_deref().map_or(Ok(()), report::check_output)?;
    options.plots.as_deref().map_or(Ok(()), plot::check_output)
}

fn program_folder() -> Result<PathBuf> {
    let program = process::this_program()?;
    program
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| "this program has no folder; pass --bin".into())
}

/// Returns the scenarios selected by these words, and a message for each word that selects none.
fn select(words: &[String]) -> (Vec<&'static Scenario>, Vec<String>) {
    let meant = |s: &&Scenario| words.is_empty() || words.iter().any(|word| s.is_selected_by(word));
    let unknown = |word: &&String| !scenario::all().any(|s| s.is_selected_by(word));
    let problem = |word| format!("unknown scenario \"{word}\"; `trama-bench list` shows all");
    (scenario::all().filter(meant).collect(), words.iter().filter(unknown).map(problem).collect())
}

/// Returns whether one of the named entrants takes part in the scenario; true if no name is given.
fn has_entrant(scenario: &Scenario, names: &[String]) -> bool {
    let is_named = |label| names.is_empty() || names.iter().any(|name| name == label);
    scenario.entrants.iter().any(|entrant| is_named(entrant.label))
}

/// Returns a message for each name that takes part in none of the scenarios.
fn unknown_peers(names: &[String], scenarios: &[&Scenario]) -> Vec<String> {
    let takes_part = |name: &String| {
        scenarios.iter().flat_map(|s| s.entrants).any(|entrant| entrant.label == name)
    };
    let problem =
        |name| format!("no peer \"{name}\" in these scenarios; `trama-bench list` shows all");
    names.iter().filter(|name| !takes_part(name)).map(problem).collect()
}

fn list() -> String {
    let mut text = String::from("scenarios\n");
    for s in scenario::all() {
        let labels: Vec<_> = s.entrants.iter().map(|entrant| entrant.label).collect();
        let labels = labels.join(", ");
        text += &format!("  {:<22} {} ({}): {labels}\n", s.name, s.title, s.unit.name);
    }
    let round: u64 = scenario::all().map(|s| s.round_takes(SECONDS)).sum();
    let minutes = (round * u64::from(ROUNDS)).div_ceil(60);
    text += &format!(
        "  all take about {minutes} minutes with {ROUNDS} rounds of {SECONDS} seconds, and longer where \
         the two cores become far from each other\n"
    );
    text += "\npeers\n";
    for peer in peers::ALL {
        text += &format!("  {:<22} {}\n", peer.name, peer.about);
    }
    text
}

fn compare(before: &Path, after: &Path) -> Result<bool> {
    let comparisons = compare::compare(&Report::read(before)?, &Report::read(after)?);
    if comparisons.is_empty() {
        return Err("the two reports have no figure in common".into());
    }
    print!("{}", compare::table(&comparisons));
    Ok(comparisons.iter().all(|c| c.change != compare::Change::Worse))
}

fn write_plots(report: &Report, folder: &Path) -> Result<bool> {
    let written = plot::plot(report, folder)?;
    println!("wrote {} plots to {}", written.len(), folder.display());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn unknown_words_are_named_and_the_rest_is_chosen() {
        let (scenarios, problems) = select(&["tap-ping".into(), "nonsense".into()]);
        assert_eq!(scenarios.len(), 1);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("nonsense"));
        let problems = unknown_peers(&["trama".into(), "vpp".into()], &scenarios);
        assert!(problems.len() == 1 && problems[0].contains("vpp"));
        assert!(has_entrant(scenarios[0], &[]) && has_entrant(scenarios[0], &["vde".into()]));
        assert!(!has_entrant(scenarios[0], &["vpp".into()]), "a ceiling alone is no measurement");
    }

    #[test]
    fn the_list_names_everything() {
        let text = list();
        assert!(scenario::all().all(|s| text.contains(s.name)));
        assert!(peers::ALL.iter().all(|p| text.contains(p.about)));
    }
}
