//! Prints which requirements of the specifications are kept and tested, and why others are not:
//! `make requirements`.

use std::process::ExitCode;

use trama_structure::citations;

fn main() -> ExitCode {
    match citations::of_tree() {
        Ok((specifications, citations)) => {
            print!("{}", citations::report(&specifications, &citations));
            ExitCode::SUCCESS
        }
        Err(faults) => {
            eprint!("{faults}");
            ExitCode::FAILURE
        }
    }
}
