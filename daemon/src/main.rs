//! `tramad`, the daemon.
fn main() {}
