//! `trama-bench`: trama and its peers at the same work, in turn, on the same machine.
//!
//! Every round measures each peer once; the report gives medians, and the ratios round by round.
//! The switch has core 0, generator and sink have core 1. Root is needed: hugepages, namespaces.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde::Serialize;

mod host;
mod load;
mod peers;
mod process;
mod stats;

use host::Hugepages;
use process::Result;

/// 2 MiB pages for the generator (512 MiB), a DPDK switch (512 MiB) and their rings.
const HUGEPAGES: usize = 768;

/// Measures trama beside its peers and prints medians and ratios.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// What to measure; everything by default.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Rounds; each measures every peer once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds a measurement takes, beside its start and end.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Where to write the report as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The folder of `tramad`; that of this program by default.
    #[arg(long)]
    bin: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// vhost-user ↔ vhost-user, known unicast both ways, 64 byte frames.
    Vhost64,
    /// The same with 1500 byte frames.
    Vhost1500,
    /// TAP ↔ TAP, one TCP stream.
    TapTcp,
}

impl Scenario {
    fn title(self) -> &'static str {
        match self {
            Self::Vhost64 => "vhost-user <-> vhost-user, known unicast both ways, 64 B",
            Self::Vhost1500 => "vhost-user <-> vhost-user, known unicast both ways, 1500 B",
            Self::TapTcp => "TAP <-> TAP, one TCP stream",
        }
    }

    fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Vhost64 | Self::Vhost1500 => ("Mpps", 1e6),
            Self::TapTcp => ("Gb/s", 1e9),
        }
    }

    /// The peers, ours first.
    fn peers(self) -> &'static [&'static str] {
        match self {
            Self::Vhost64 | Self::Vhost1500 => &["trama", "ovs-dpdk", "dpdk-io"],
            Self::TapTcp => &["trama", "ovs-userspace-tso", "linux-bridge"],
        }
    }
}

/// One scenario's figures, in the scenario's unit.
#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    unit: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    peer: &'static str,
    /// One value a round; `null` where the measurement failed.
    values: Vec<f64>,
    errors: Vec<String>,
}

struct Bench {
    options: Options,
    bin: PathBuf,
    dir: tempfile::TempDir,
    huge: Hugepages,
}

impl Bench {
    fn measure(&self, scenario: Scenario, peer: &str) -> Result<f64> {
        let place = tempfile::tempdir_in(self.dir.path()).map_err(|e| e.to_string())?;
        let (dir, huge, seconds) = (place.path(), &self.huge.mount(), self.options.seconds);
        match scenario {
            Scenario::Vhost64 => load::circulate(&self.vhost_peer(peer, dir)?, huge, 64, seconds),
            Scenario::Vhost1500 => {
                load::circulate(&self.vhost_peer(peer, dir)?, huge, 1500, seconds)
            }
            Scenario::TapTcp => load::tcp_stream(&self.tap_peer(peer, dir)?, seconds),
        }
    }

    fn vhost_peer(&self, peer: &str, dir: &Path) -> Result<peers::VhostPeer> {
        match peer {
            "trama" => peers::trama_vhost(&self.bin, dir),
            "ovs-dpdk" => peers::ovs_dpdk(dir, &self.huge.mount()),
            _ => peers::dpdk_io(dir, &self.huge.mount()),
        }
    }

    fn tap_peer(&self, peer: &str, dir: &Path) -> Result<peers::TapPeer> {
        match peer {
            "trama" => peers::trama_tap(&self.bin, dir),
            "ovs-userspace-tso" => peers::ovs_tap(dir, &self.huge.mount()),
            _ => peers::linux_bridge(),
        }
    }

    fn run(&self, scenario: Scenario) -> Report {
        let (unit, scale) = scenario.unit();
        let mut rows: Vec<Row> = scenario
            .peers()
            .iter()
            .map(|peer| Row { peer, values: Vec::new(), errors: Vec::new() })
            .collect();
        for round in 1..=self.options.rounds {
            for row in &mut rows {
                eprint!("\r{}: round {round}, {:<20}", scenario.title(), row.peer);
                let value = self.measure(scenario, row.peer).unwrap_or_else(|error| {
                    row.errors.push(error);
                    f64::NAN
                });
                row.values.push(value / scale);
            }
        }
        eprintln!();
        Report { scenario: scenario.title(), unit, rows }
    }
}

fn print(report: &Report) {
    println!("\n{} ({})", report.scenario, report.unit);
    let ours = &report.rows[0].values;
    for row in &report.rows {
        let good: Vec<f64> = row.values.iter().copied().filter(|v| v.is_finite()).collect();
        let median = stats::median(&good).map_or("-".into(), |m| format!("{m:.2}"));
        let ratio = match stats::ratios(ours, &row.values) {
            Some((low, middle, high)) if row.peer != report.rows[0].peer => {
                format!("trama/{}: {middle:.2} ({low:.2} to {high:.2})", row.peer)
            }
            _ => String::new(),
        };
        println!("  {:<20} {median:>8}   {ratio}", row.peer);
        for error in &row.errors {
            println!("    could not be measured: {error}");
        }
    }
}

fn prepare(options: Options) -> Result<Bench> {
    if !rustix::process::geteuid().is_root() {
        return Err("hugepages and namespaces need root; run as root".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("two cores are needed: one for the switch, one for the load".into());
    }
    let bin = match &options.bin {
        Some(bin) => bin.clone(),
        None => std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned))
            .ok_or("the folder of this program is unknown; give --bin")?,
    };
    if !bin.join("tramad").exists() {
        return Err(format!(
            "no tramad in {}; build it with `cargo build --release`",
            bin.display()
        ));
    }
    let dir = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let huge = Hugepages::reserve(HUGEPAGES, dir.path())?;
    Ok(Bench { options, bin, dir, huge })
}

fn main() -> ExitCode {
    let bench = match prepare(Options::parse()) {
        Ok(bench) => bench,
        Err(error) => {
            eprintln!("trama-bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let scenarios = match bench.options.scenarios.as_slice() {
        [] => Scenario::value_variants(),
        some => some,
    };
    let reports: Vec<Report> = scenarios.iter().map(|&s| bench.run(s)).collect();
    reports.iter().for_each(print);
    if let Some(out) = &bench.options.out {
        let json = serde_json::to_string_pretty(&reports).unwrap_or_default();
        if let Err(error) = std::fs::write(out, json) {
            eprintln!("trama-bench: {}: {error}", out.display());
            return ExitCode::FAILURE;
        }
    }
    let failed = reports.iter().flat_map(|r| &r.rows).any(|row| !row.errors.is_empty());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
