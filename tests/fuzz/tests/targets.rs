//! Each target runs for a bounded number of inputs, from the same seed each time.
//!
//! `TRAMA_FUZZ_SEED` sets another seed. A failing run names the seed, writes the shrunk input into
//! a file, and says how to run it again; longer runs are those of the program `trama-fuzz`.
#![cfg(test)]

use std::env;
use std::path::Path;

use trama_fuzz::{Limit, TARGETS, find, isolated, run, shrink};

/// The seed unless `TRAMA_FUZZ_SEED` says another.
const SEED: u64 = 1;

fn check(name: &str) {
    let target = find(name).unwrap();
    let seed = env::var("TRAMA_FUZZ_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(SEED);
    println!("{name}: seed {seed}, {} inputs", target.inputs);
    if let Err(failure) = run(target, seed, Limit::Inputs(target.inputs)) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        panic!("{name}: {}", shrink(target, failure).save(target, seed, folder).unwrap());
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        /// The targets that have a test here.
        const TESTED: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

tests! {
    frames joined switch streams mac_image tunnel device driver memory_table vhost_user keeper dhcp4
    dhcp6 lease_journal gateway gateway_channel api config commands filter pcapng export
}

#[test]
fn nat() {
    let arguments = ["--exact", "nat", "--nocapture"];
    let Some(mut command) = isolated(&arguments) else { return check("nat") };
    let output = command.output().expect("unshare (package util-linux)");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "inside (root is needed)");
}

#[test]
fn each_target_has_a_test_and_a_place_for_cargo_fuzz() {
    let manifest = include_str!("../../../fuzz/Cargo.toml");
    for target in TARGETS {
        let is_tested = TESTED.contains(&target.name) || target.name == "nat";
        assert!(is_tested, "{} has no test", target.name);
        let name = format!("name = \"{}\"", target.name);
        assert!(manifest.contains(&name), "{} is not in fuzz/Cargo.toml", target.name);
    }
}
