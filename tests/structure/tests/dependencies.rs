//! docs/dependencies.md names the role of each crate that the workspace takes from outside.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

const PAGE: &str = "docs/dependencies.md";

fn read(file: &str) -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(file)).expect("a file")
}

/// The crates from outside, by the workspace's manifest.
fn dependencies() -> BTreeSet<String> {
    let manifest: Table = read("Cargo.toml").parse().expect("a manifest");
    let all = manifest["workspace"]["dependencies"].as_table().expect("a table");
    all.keys().filter(|name| !name.starts_with("trama-")).cloned().collect()
}

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The crates that the first columns of the page's tables name, before versions, features and uses.
fn rows(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let names = cells.filter_map(|cell| cell.split(" (").next()?.split(" with ").next());
    names.flat_map(quoted).map(String::from).collect()
}

/// The first line of its kind, from 1.
fn line_of(text: &str, is_it: impl Fn(&str) -> bool) -> usize {
    text.lines().position(is_it).map_or(0, |index| index + 1)
}

#[test]
fn each_dependency_has_a_role_and_each_role_a_dependency() {
    let (page, manifest, dependencies) = (read(PAGE), read("Cargo.toml"), dependencies());
    let named: BTreeSet<String> = quoted(&page).map(String::from).collect();
    let mut report = String::new();
    for name in dependencies.difference(&named) {
        let line = line_of(&manifest, |line| line.starts_with(&format!("{name} =")));
        report +=
            &format!("Cargo.toml:{line}: {PAGE} does not name `{name}`.\n  Remedy: say its role\n");
    }
    for name in rows(&page).difference(&dependencies) {
        let line = line_of(&page, |line| line.contains(&format!("`{name}`")));
        report += &format!("{PAGE}:{line}: `{name}` is no dependency.\n  Remedy: take it out\n");
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn names_stand_before_versions_and_features() {
    let page = "| crate | role |\n| `a`, `b` (pinned, `=1`) | x `c` |\n| `d` with `e` | y |\n";
    assert_eq!(rows(page), BTreeSet::from(["a", "b", "d"].map(String::from)));
}
