//! `trama-cni`, the plug-in for CNI: reads the environment and standard input, prints the result.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use trama_containers::{cni, read_input};

fn main() -> ExitCode {
    // What cannot be read is not understood, and the message is that of an input without end.
    let input = read_input(std::io::stdin()).unwrap_or_default();
    let outcome = cni::run(|name| std::env::var(name).ok(), &input);
    if !outcome.output.is_empty() {
        println!("{}", outcome.output);
    }
    ExitCode::from(outcome.status)
}
