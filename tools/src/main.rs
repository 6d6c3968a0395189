//! `tramactl`, the control command.
fn main() {}
