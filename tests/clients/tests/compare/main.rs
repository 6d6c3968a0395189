//! Runs the same steps through `ovs-vsctl` and `tramactl`, and compares output, messages and exit
//! statuses.
//!
//! `ovs-vsctl` works on an ovsdb-server of its own in a temporary directory, without a switch
//! (`--no-wait`). Both start empty. Four things differ by design and are normalised before the
//! comparison: Open vSwitch has a local port for each bridge, lists records in no order, has other
//! UUIDs, and does not suggest names. `<0>` in a step is the first UUID that was printed.
#![cfg(test)]

mod records;
mod steps;

use std::process::Command;
use std::time::{Duration, Instant};

use steps::{CLIENT, STEPS, Same};
use tempfile::TempDir;
use trama_api::value::is_uuid;
use trama_clients::{Outcome, RunningDaemon, run, words};

struct Ovs {
    dir: TempDir,
    server: std::process::Child,
}

impl Ovs {
    fn start() -> Ovs {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("conf.db");
        let created = run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(&database)
            .arg("/usr/share/openvswitch/vswitch.ovsschema"));
        assert_eq!(created.exit, 0, "{}", created.err);
        let server = Command::new("ovsdb-server")
            .arg(&database)
            .arg(format!("--remote=punix:{}", dir.path().join("db.sock").display()))
            .arg(format!("--unixctl={}", dir.path().join("ctl").display()))
            .arg("--verbose=off")
            // It ends when the command's pipe closes, so it does not outlive the test.
            .arg("--run=cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let ovs = Ovs { dir, server };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ovs.dir.path().join("db.sock").exists() {
            assert!(Instant::now() < deadline, "ovsdb-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(ovs.vsctl("init").exit, 0);
        ovs
    }

    fn vsctl(&self, line: &str) -> Outcome {
        run(Command::new("ovs-vsctl")
            .arg(format!("--db=unix:{}", self.dir.path().join("db.sock").display()))
            .args(["--no-wait", "--timeout=30", "--verbose=syslog:off"])
            .args(words(line)))
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Numbers the UUIDs of one side in the order in which they are seen.
#[derive(Default)]
struct Uuids(Vec<String>);

impl Uuids {
    fn number(&mut self, text: &str) -> String {
        let is_part = |c: char| c.is_ascii_hexdigit() || c == '-';
        let mut numbered = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(is_part) {
            let (before, word) = rest.split_at(start);
            let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            numbered.push_str(before);
            if is_uuid(word) {
                numbered.push_str(&format!("<{}>", self.number_of(word)));
            } else {
                numbered.push_str(word);
            }
            rest = after;
        }
        numbered + rest
    }

    fn number_of(&mut self, uuid: &str) -> usize {
        let known = self.0.iter().position(|it| it == uuid);
        known.unwrap_or_else(|| {
            self.0.push(uuid.to_owned());
            self.0.len() - 1
        })
    }

    /// The line with the UUID of this side for each number.
    fn spelled(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (number, uuid) in self.0.iter().enumerate() {
            line = line.replace(&format!("<{number}>"), uuid);
        }
        line
    }
}

/// Warnings as messages: Open vSwitch writes them to its log, `TIME|NUMBER|MODULE|WARN|TEXT`.
fn without_log_prefix(text: &str) -> String {
    let message = |line: &str| match line.split_once("|WARN|") {
        Some((_, warning)) => format!("tramactl: {warning}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(message).collect()
}

/// The parts of an answer that must be equal.
fn normalised(mut outcome: Outcome, same: Same, uuids: &mut Uuids) -> Outcome {
    outcome.out = uuids.number(&outcome.out);
    outcome.err = uuids.number(&outcome.err);
    outcome.err = match same {
        Same::Output => String::new(),
        _ => without_log_prefix(&outcome.err.replace("ovs-vsctl: ", "tramactl: ")),
    };
    if let Some(at) = outcome.err.find("; did you mean ") {
        outcome.err.replace_range(at.., "\n");
    }
    if same == Same::Records {
        let mut lines: Vec<_> = outcome.out.lines().filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        outcome.out = lines.join("\n");
    }
    outcome
}

/// Runs the steps on both sides, which start empty.
fn compare(steps: &[(Same, &str)]) {
    if Command::new("ovs-vsctl").arg("--version").output().is_err() {
        println!("skipped: ovs-vsctl is not installed (package openvswitch-switch)");
        return;
    }
    let (ovs, mut their_uuids) = (Ovs::start(), Uuids::default());
    let (trama, mut our_uuids) = (RunningDaemon::start(""), Uuids::default());
    let mut different = vec![];
    for (same, line) in steps {
        let line = line.replace("{client}", CLIENT);
        let theirs = ovs.vsctl(&their_uuids.spelled(&line));
        let ours = trama.ctl(&our_uuids.spelled(&line));
        let theirs = normalised(theirs, *same, &mut their_uuids);
        let ours = normalised(ours, *same, &mut our_uuids);
        if theirs != ours {
            different.push(format!("{line}\n  theirs: {theirs:?}\n  ours:   {ours:?}"));
        }
    }
    let (count, all) = (different.len(), steps.len());
    assert!(different.is_empty(), "{count} of {all}:\n{}", different.join("\n"));
}

#[test]
fn the_same_steps_have_the_same_answers() {
    compare(STEPS);
}

#[test]
fn records_and_kept_columns_have_the_same_answers() {
    compare(records::STEPS);
}
