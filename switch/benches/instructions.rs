//! Instructions that the switch spends on a frame, counted by callgrind and compared with a
//! committed baseline. The result depends neither on the load nor on the speed of the host.
//!
//! `scripts/gates.sh` builds and runs it. Every path is a separate process under callgrind, which
//! counts only [`counted`]. A path that takes more than [`LIMIT`] more or fewer instructions than
//! the baseline fails the gate: an improvement must be recorded, or the next regression could hide
//! in it. `scripts/gates.sh --accept` records it.
//!
//! It does not use gungraun, which keeps its baselines as callgrind's output files below `target`,
//! where they cannot be committed and read in a diff.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, ExitCode};

use trama_test_kit::paths::{self, Path};

/// Fraction by which a count may differ from the baseline.
const LIMIT: f64 = 0.02;
/// Rounds before counting starts: rings have wrapped, tables are in use.
const WARM_UP: usize = 8;
const ROUNDS: usize = 16;

/// The line of the baseline that names the tools.
const MADE_WITH: &str = "# Made with ";

type Counts = BTreeMap<String, f64>;

fn main() -> ExitCode {
    // Cargo passes `--bench` to every benchmark.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        _ if !cfg!(target_feature = "avx2") => {
            Err("built for another processor than the baseline: run scripts/gates.sh".into())
        }
        [] => check(),
        ["--accept"] => accept(),
        ["--path", name] => work(name),
        _ => Err("usage: instructions [--accept | --path NAME]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("gates: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The function that callgrind counts; it is found by its name.
#[inline(never)]
fn counted(path: &mut dyn Path) {
    path.run();
}

/// Runs one path in this process; prints how many frames were counted.
fn work(name: &str) -> Result<(), String> {
    let found = paths::ALL.iter().find(|(other, _)| *other == name);
    let mut path = found.ok_or(format!("there is no path {name}"))?.1();
    for _ in 0..WARM_UP {
        path.feed();
        path.run();
        path.drain();
    }
    let mut frames = 0;
    for _ in 0..ROUNDS {
        frames += path.feed();
        counted(&mut *path);
        path.drain();
    }
    println!("{frames}");
    Ok(())
}

/// Returns the instructions per frame of one path.
fn count(name: &str) -> Result<f64, String> {
    let out = out_file(name);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*instructions::counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().map_err(|error| error.to_string())?)
        .args(["--path", name])
        // Variables shift the stack. The C library would copy large blocks with one instruction
        // that callgrind counts once per byte; with this it uses its loop of vector registers.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824")
        .output()
        .map_err(|error| format!("valgrind: {error}; scripts/install.sh gates installs it"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let frames = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>();
    let frames = frames.map_err(|error| format!("{name}: number of frames: {error}"))?;
    let profile = read(&out)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")?.parse::<f64>().ok());
    match total {
        Some(total) if total > 0.0 => Ok(total / frames),
        _ => Err(format!("{name}: callgrind counted nothing in `counted`: see {}", out.display())),
    }
}

/// Returns the path of the profile, kept for `callgrind_annotate`.
fn out_file(name: &str) -> PathBuf {
    FilePath::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{name}"))
}

fn count_all() -> Result<Counts, String> {
    paths::ALL.iter().map(|(name, _)| Ok((name.to_string(), count(name)?))).collect()
}

fn baseline_file() -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.baseline")
}

fn read(file: &FilePath) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Reads the baseline: a name and a number per line; `#` begins a comment.
fn baseline() -> Result<Counts, String> {
    let file = baseline_file();
    let entry = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_string(), number.trim().parse().ok()?))
    };
    let text = read(&file)?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| entry(line).ok_or(format!("{}: not NAME NUMBER: {line}", file.display())))
        .collect()
}

fn accept() -> Result<(), String> {
    let counts = count_all()?;
    let mut text = format!(
        "# Instructions a frame, written by scripts/gates.sh --accept.\n{MADE_WITH}{}\n",
        tools()
    );
    for (name, _) in paths::ALL {
        text += &format!("{name:28} {:.1}\n", counts[name]);
    }
    print!("{text}");
    std::fs::write(baseline_file(), text).map_err(|error| error.to_string())
}

/// Returns the tools that affect the number of instructions.
fn tools() -> String {
    let first_line = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().next()?.to_string())
    };
    ["rustc", "valgrind", "ldd"].map(|tool| first_line(tool).unwrap_or_default()).join(", ")
}

fn check() -> Result<(), String> {
    let baseline = baseline()?;
    println!("{:28} {:>10} {:>10} {:>8}", "instructions a frame", "baseline", "now", "");
    let mut failed = 0;
    for (name, _) in paths::ALL {
        let now = count(name)?;
        let before = baseline.get(name).copied().unwrap_or(f64::NAN);
        let change = now / before - 1.0;
        let verdict = match change {
            change if change.abs() <= LIMIT => "",
            change if change > 0.0 => "  WORSE",
            change if change < 0.0 => "  better: write it down",
            _ => "  not in the baseline",
        };
        failed += usize::from(!verdict.is_empty());
        println!("{name:28} {before:10.1} {now:10.1} {:+7.2}%{verdict}", change * 100.0);
    }
    let gone = baseline.keys().filter(|name| paths::ALL.iter().all(|(other, _)| other != name));
    failed += gone.inspect(|name| println!("{name:28} is in the baseline only")).count();
    if failed == 0 {
        return Ok(());
    }
    let text = read(&baseline_file())?;
    let before = text.lines().find_map(|line| line.strip_prefix(MADE_WITH)).unwrap_or_default();
    Err(format!(
        "{failed} paths are not within {} % of {}.\n\
         If that is meant, or if the tools are others, accept it with `make gates-accept` and commit \
         the file.\n  tools of the baseline: {before}\n  tools now:             {}\n\
         Where the instructions go: callgrind_annotate {}",
        LIMIT * 100.0,
        baseline_file().display(),
        tools(),
        out_file("PATH").display()
    ))
}
