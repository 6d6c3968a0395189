//! The source tree keeps its own rules: no loops of imports, no crate that imports upwards.
#![cfg(test)]

use std::fs;

use trama_structure::loops::{self, Loop};
use trama_structure::manifests::{Crate, Dependency, crates};
use trama_structure::modules::Modules;
use trama_structure::tree::root;

/// Which crates of the workspace each may use, in its tests too, so that each compiles without
/// those above it; only the test kit brings others into its tests. A crate that is not here fails
/// the test; `*` stands for all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("frame", &[]),
    ("capture", &["frame"]),
    ("export", &[]),
    ("log", &[]),
    ("serve", &[]),
    ("web", &["api", "sandbox", "serve"]),
    ("virtqueue", &[]),
    ("tap", &["frame"]),
    ("switch", &["virtqueue", "tap", "frame", TEST_KIT]),
    ("vhost-net-backend", &["virtqueue", "frame", TEST_KIT]),
    ("vhost-net", &["vhost-net-backend", "switch", "virtqueue", "frame", "log", TEST_KIT]),
    ("dhcp", &["frame"]),
    ("nat", &["frame"]),
    ("sandbox", &[]),
    ("gateway", &["nat", "dhcp", "virtqueue", "frame", "sandbox"]),
    ("keeper", &["sandbox"]),
    ("helper", &["keeper", "sandbox", "switch", "tap", "vhost-net-backend", "frame"]),
    ("cluster", &["frame"]),
    ("cluster-sim", &["cluster", "frame"]),
    ("api", &["frame"]),
    (
        "daemon",
        &[
            "api",
            "capture",
            "export",
            "tap",
            "switch",
            "vhost-net",
            "vhost-net-backend",
            "gateway",
            "helper",
            "keeper",
            "cluster",
            "dhcp",
            "sandbox",
            "log",
            "serve",
            "web",
            "frame",
        ],
    ),
    ("client", &["api", "tap", "frame"]),
    ("containers", &["api", "client", "tap", "frame"]),
    ("tools", &["api", "capture", "client", "tap", "frame"]),
    (TEST_KIT, &["switch", "vhost-net-backend", "virtqueue", "frame"]),
    ("tests", &["*"]),
    ("bench", &["*"]),
    ("structure", &[]),
    ("clients", &["*"]),
    ("fuzz", &["*"]),
];

/// The crate that others may use in their tests and benchmarks only. A crate below `tests/` is all
/// test.
const TEST_KIT: &str = "test-kit";

/// Dependencies that [`MAY_USE`] forbids and that are still there. An entry that is not needed any
/// more fails the test.
const STILL_USES: &[(&str, &str, &str)] = &[];

fn read(file: &str) -> Option<String> {
    fs::read_to_string(root().join(file)).ok()
}

fn workspace() -> Vec<Crate> {
    crates(&read).expect("manifests")
}

/// The root files of a crate's library, programs, tests, benchmarks and examples.
fn root_files(folder: &str) -> Vec<String> {
    let mut files = vec![format!("{folder}/src/lib.rs"), format!("{folder}/src/main.rs")];
    for place in ["src/bin", "tests", "benches", "examples"] {
        let entries = fs::read_dir(root().join(folder).join(place)).into_iter().flatten();
        for entry in entries.flatten() {
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let file = format!("{folder}/{place}/{name}");
            files.push(if name.ends_with(".rs") { file } else { format!("{file}/main.rs") });
        }
    }
    files.retain(|file| root().join(file).is_file());
    files
}

fn all_loops() -> Vec<Loop> {
    let edges_of = |file: String| Modules::read(&file, &read).expect("modules").edges();
    let loops_of =
        |one: Crate| loops::find(&root_files(&one.folder).into_iter().flat_map(edges_of).collect());
    workspace().into_iter().flat_map(loops_of).collect()
}

#[test]
fn no_files_import_each_other_in_a_loop() {
    let report: String = all_loops().iter().map(Loop::describe).collect();
    assert!(report.is_empty(), "\n{report}");
}

/// What is wrong with the manifest of one crate.
fn faults(one: &Crate) -> Vec<String> {
    let Crate { folder, name, uses } = one;
    let is_test = folder.starts_with("tests/");
    let manifest = format!("{folder}/Cargo.toml");
    let Some((_, allowed)) = MAY_USE.iter().find(|(row, _)| row == name) else {
        return vec![format!(
            "{manifest}:1: the crate `{name}` is not in the table.\n  Remedy: say in MAY_USE in {} \
             which crates it may use\n",
            file!()
        )];
    };
    let is_allowed = |used: &str| {
        allowed.contains(&"*")
            || allowed.contains(&used)
            || STILL_USES.iter().any(|(user, other, _)| user == name && *other == used)
    };
    let describe = |Dependency { name: used, line, is_dev }: &Dependency| {
        if used == TEST_KIT && !is_dev && !is_test {
            return format!(
                "{manifest}:{line}: `{name}` must use `{used}` in its tests only.\n\
                 \x20 Remedy: move the line to [dev-dependencies]\n"
            );
        }
        let list = if allowed.is_empty() { "none".into() } else { allowed.join(", ") };
        format!(
            "{manifest}:{line}: `{name}` must not use `{used}`, only these crates: {list}.\n\
             \x20 Remedy: move what it needs of `{used}` into a crate below both, or pass it in\n"
        )
    };
    let is_fault = |used: &&Dependency| {
        !is_allowed(&used.name) || used.name == TEST_KIT && !used.is_dev && !is_test
    };
    uses.iter().filter(is_fault).map(describe).collect()
}

#[test]
fn no_crate_imports_upwards() {
    let crates = workspace();
    let mut report: String = crates.iter().flat_map(faults).collect();
    for (user, used, _) in STILL_USES {
        let mut users = crates.iter().filter(|one| one.name == *user);
        if !users.any(|one| one.uses.iter().any(|other| other.name == *used)) {
            let pair = format!("(\"{user}\", \"{used}\",");
            let line = include_str!("tree.rs").lines().position(|line| line.contains(&pair));
            report += &format!(
                "{}:{}: `{user}` does not use `{used}` any more.\n  Remedy: take the pair out of \
                 STILL_USES\n",
                file!(),
                line.map_or(0, |index| index + 1)
            );
        }
    }
    assert!(report.is_empty(), "\n{report}");
}
