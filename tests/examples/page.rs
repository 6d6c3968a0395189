//! Prints what a page of a thousand ports costs, and fails if that is more than the page promises.
//! Times are those of an idle machine and of programs that are built alike:
//! `cargo build --release --bins && cargo run --release -p trama-tests --example page`, as root.

#![allow(clippy::expect_used, reason = "a measurement that cannot go on panics")]

use serde_json::Value;
use trama_tests::browser::{BYTES, CONTROL, Costs, FRAME, PAINT, costs_of_a_thousand_ports};

fn main() {
    let Costs { browser, control, page } = costs_of_a_thousand_ports();
    let mut kept = true;
    let mut line = |what: &str, found: f64, limit: f64, unit: &str| {
        kept &= found < limit;
        println!("{what:32} {found:10.1} {unit}, promised: less than {limit} {unit}");
    };
    let number = |of: &Value| of.as_f64().expect("a number");
    line("first paint", number(&browser["paint"]), PAINT, "ms");
    let info = |what: &str, found: f64, unit: &str| println!("{what:32} {found:10.1} {unit}");
    info("main thread until all is shown", number(&browser["work"]), "ms of processor time");
    line("all files", number(&browser["bytes"]) / 1024.0, BYTES as f64 / 1024.0, "KiB");
    for view in ["list", "picture"] {
        let times = browser[view].as_array().expect("times");
        let longest = times.iter().map(number).fold(0.0, f64::max);
        line(&format!("longest frame, {view}"), longest, FRAME, "ms");
        let spent = number(&browser[format!("{view}_renderer")]);
        info(&format!("all of the browser's work, {view}"), spent, "ms of processor time a second");
    }
    line("control threads of tramad", control, CONTROL, "% of a core");
    info("the page's process", page, "% of a core");
    assert!(kept, "the page does not keep its promises here");
}
