//! The examples run, and do what they say.

#![cfg(test)]

use std::path::PathBuf;
use std::process::Command;

/// An example that cargo built beside this test.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

#[test]
fn a_guest_without_a_switch_fetches_a_page() {
    let output = Command::new(example("http_get")).output().expect("cargo builds examples");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.ends_with("hello, guest\n\n"), "{output:?}");
}
