//! `trama-bench`: measures trama and its peers in turn, under the same load on the same machine.
//!
//! Every round measures each peer once; the report has medians, and the median of the rounds'
//! ratios. The switch has core 0, generator and sink have core 1.
//!
//! [`scenario`] is the table of what is measured. [`run`] executes it: it starts a switch
//! ([`peers`]), puts a load on it ([`load`]) and collects the results ([`report`]).

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
