//! Command lines of software that drives Open vSwitch, as recorded in `ovs_callers.txt`, each with
//! what comes of it.

use std::process::Command;

use trama_api::value::is_uuid;
use trama_tests::host::Host;
use trama_tests::{CommandResult, Netns, Tramad};

const RECORDED: &str = include_str!("ovs_callers.txt");

/// How many lines there are at least, and how many of them leave their callers to go on.
const LINES: usize = 112;
const GO_ON: usize = 90;

/// A command line and what comes of it.
struct Line<'a> {
    words: &'a str,
    /// `None`: it prepares the next one.
    outcome: Option<&'a str>,
}

/// The lines of each caller.
fn callers() -> Vec<(&'static str, Vec<Line<'static>>)> {
    let mut callers: Vec<(&str, Vec<Line<'_>>)> = Vec::new();
    for text in RECORDED.lines() {
        if let Some(name) = text.strip_prefix("## ") {
            callers.push((name, Vec::new()));
        }
        let Some((_, lines)) = callers.last_mut() else { continue };
        if let Some(outcome) = text.strip_prefix("=> ") {
            lines.last_mut().expect("a line above").outcome = Some(outcome);
        } else if !text.is_empty() && !text.starts_with('#') {
            let words = text.strip_prefix(": ").unwrap_or(text);
            lines.push(Line { words, outcome: None });
        }
    }
    callers
}

/// Whether the answer is the outcome that is recorded.
fn is_as_recorded(answer: &CommandResult, outcome: Option<&str>) -> bool {
    let (kind, text) =
        outcome.unwrap_or("taken").split_once(": ").unwrap_or((outcome.unwrap_or("taken"), ""));
    let (status, said) = (answer.status, &answer.text);
    match kind {
        "taken" => status == 0,
        "prints" => status == 0 && said.lines().any(|line| line.trim() == text),
        "missing" => status == 2,
        "answers" | "refused" => status == 1 && said.contains(text),
        "stored" => status == 0 && said.contains(text),
        other => panic!("unknown outcome {other}"),
    }
}

#[test]
fn each_recorded_line_has_its_outcome() {
    let mut different = String::new();
    for (caller, lines) in callers() {
        let host = Netns::new("callers");
        host.run("ip tuntap add vnet0 mode tap; ip link add veth1 type veth peer name veth2");
        let tramad = Tramad::start_in(&host, "");
        let mut uuids: Vec<String> = Vec::new();
        for Line { words, outcome } in lines {
            let mut line = words.to_owned();
            for (number, uuid) in uuids.iter().enumerate() {
                line = line.replace(&format!("<{number}>"), uuid);
            }
            let answer = as_vsctl(&tramad, &line);
            uuids.extend(answer.text.lines().filter(|line| is_uuid(line)).map(str::to_owned));
            if !is_as_recorded(&answer, outcome) {
                let outcome = outcome.unwrap_or("taken");
                different += &format!("{caller}\n  {line}\n  recorded: {outcome}\n  {answer:?}\n");
            }
        }
        tramad.stop();
    }
    assert!(different.is_empty(), "\n{different}");
}

/// Runs the command under the name that callers use.
fn as_vsctl(tramad: &Tramad, line: &str) -> CommandResult {
    let path = tramad.path("ovs-vsctl");
    // It is there from the second line on.
    let _ = std::os::unix::fs::symlink(trama_tests::tramad::binary("tramactl"), &path);
    let output = Command::new(path)
        .env("TRAMA_SOCKET", tramad.path("control.sock"))
        .args(line.split_whitespace())
        .output()
        .expect("run tramactl");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    CommandResult { status: output.status.code().unwrap_or(-1), text }
}

#[test]
fn most_callers_go_on() {
    let outcomes: Vec<&str> =
        callers().iter().flat_map(|(_, lines)| lines.iter().filter_map(|it| it.outcome)).collect();
    let goes_on = |outcome: &&&str| {
        ["taken", "prints", "missing", "answers"].iter().any(|kind| outcome.starts_with(kind))
    };
    let count = outcomes.iter().filter(goes_on).count();
    println!("{count} of {} recorded lines leave their callers to go on", outcomes.len());
    assert!(outcomes.len() >= LINES && count * LINES >= GO_ON * outcomes.len(), "{count}");
}
