//! Runs fuzz targets as long as one likes.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use trama_fuzz::{Limit, TARGETS, Target, find, isolated, run, shrink};

const USAGE: &str = "\
usage: trama-fuzz TARGET [--seconds N] [--seed N]   runs a target on changed inputs (60 s)
       trama-fuzz TARGET FILE ...                   runs it on these inputs
       trama-fuzz --corpus FOLDER                   writes the seeds of all targets
       trama-fuzz --list                            lists the targets";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            TARGETS.iter().for_each(|target| println!("{:16} {}", target.name, target.about));
            Ok(())
        }
        ["--corpus", folder] => write_corpus(Path::new(folder)),
        [name, ref rest @ ..] => find(name)
            .ok_or_else(|| format!("there is no target {name:?}; see trama-fuzz --list"))
            .and_then(|target| with_target(target, rest)),
        [] => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn write_corpus(folder: &Path) -> Result<(), String> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let file = folder.join(format!("seed-{number:03}"));
            fs::write(&file, seed).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(())
}

fn with_target(target: &Target, words: &[&str]) -> Result<(), String> {
    if target.name == "nat"
        && let Some(mut command) = isolated(&[&[target.name], words].concat())
    {
        let status = command.status().map_err(|error| format!("unshare (util-linux): {error}"))?;
        return if status.success() { Ok(()) } else { Err("nat: failed, see above".into()) };
    }
    let (mut seconds, mut seed, mut files) = (60, seed_by_clock(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--seconds" => seconds = number(words.next())?,
            "--seed" => seed = number(words.next())?,
            file => files.push(file),
        }
    }
    if files.is_empty() {
        return search(target, seed, seconds);
    }
    for file in files {
        let input = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        // A panic ends the program with its own message and a backtrace.
        (target.body)(&input);
    }
    Ok(())
}

fn number(word: Option<&&str>) -> Result<u64, String> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| USAGE.to_owned())
}

fn seed_by_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn search(target: &Target, seed: u64, seconds: u64) -> Result<(), String> {
    println!("{}: seed {seed}, {seconds} s", target.name);
    match run(target, seed, Limit::Time(Duration::from_secs(seconds))) {
        Ok(count) => {
            println!("{}: {count} inputs, no failure", target.name);
            Ok(())
        }
        Err(failure) => {
            let saved = shrink(target, failure).save(target, seed, Path::new("."));
            Err(saved.unwrap_or_else(|error| error.to_string()))
        }
    }
}
