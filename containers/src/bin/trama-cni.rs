//! `trama-cni`, the plug-in for CNI: reads the environment and standard input, prints the result.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use trama_containers::{cni, read_input};

fn main() -> ExitCode {
    // Input that cannot be read counts as empty, which is refused as no JSON.
    let input = read_input(std::io::stdin()).unwrap_or_default();
    let outcome = cni::run(|name| std::env::var(name).ok(), &input);
    if !outcome.output.is_empty() {
        println!("{}", outcome.output);
    }
    ExitCode::from(outcome.status)
}
