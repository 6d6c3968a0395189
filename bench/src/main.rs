//! `trama-bench`: trama and its peers at the same work, in turn, on the same machine.
//!
//! Every round measures each peer once; the report gives medians, and the ratios round by round.
//! The switch has core 0, generator and sink have core 1.
//!
//! [`scenario`] is the table of what is measured. [`run`] carries it out: it starts a switch
//! ([`peers`]), gives it work ([`load`]) and files what comes out ([`report`]).

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod compare;
mod cores;
mod delay;
mod distance;
mod helper;
mod host;
mod load;
mod machine;
mod peers;
mod plot;
mod process;
mod program;
mod report;
mod run;
mod scenario;
mod stats;
mod table;
mod usage;

fn main() -> ExitCode {
    cli::main(cli::Options::parse())
}
