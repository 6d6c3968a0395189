//! `doctor`: looks for what keeps networks from working, on the host and in the daemon.
//!
//! A check is a function of what the host's files say ([`system`]) and what the daemon says
//! ([`switch`]); it returns findings and changes nothing. `--fix` then runs the commands of those
//! that have one, and looks again.

mod cores;
mod daemon;
mod finding;
mod helper;
mod host;
mod ports;
mod switch;
mod system;
#[cfg(test)]
mod tests;

use std::process::Command;

use trama_api::folders::Folders;
use trama_client::Failed;

use crate::cli::Invocation;
use crate::render::Format;
use finding::{Finding, Grade};
use switch::{QUESTIONS, Switch};
use system::System;

/// What is printed, and the exit status: 1 if something does not work.
///
/// # Errors
/// The words are not understood.
pub(crate) fn run(invocation: &Invocation, words: &[String]) -> Result<(Vec<u8>, u8), Failed> {
    let wants_fix = match words {
        [] => false,
        [word] if word == "--fix" => true,
        _ => return Err("'doctor' takes no argument but --fix".to_owned().into()),
    };
    let system = System::this();
    let mut findings = look(invocation, &system);
    if wants_fix && fix(&findings) {
        findings = look(invocation, &system);
    }
    let text = match invocation.style.format {
        Some(Format::Json) => {
            let json = serde_json::to_string(&findings).map_err(|error| error.to_string())?;
            json + "\n"
        }
        _ => findings.iter().map(Finding::line).collect(),
    };
    let is_well = findings.iter().all(|finding| finding.grade != Grade::Fail);
    Ok((text.into_bytes(), u8::from(!is_well)))
}

fn look(invocation: &Invocation, system: &System) -> Vec<Finding> {
    let commands =
        QUESTIONS.map(|words| words.iter().map(|word| (*word).to_owned()).collect()).to_vec();
    let questions = Invocation { commands, ..invocation.clone() };
    let answer = invocation.daemon.transact(&questions.request());
    let (mut findings, switch) = match answer.map(|answer| Switch::read(&answer.results)) {
        Ok(Some(switch)) => (daemon::check(&switch, system), switch),
        Ok(None) => {
            let text = "tramad has another version than this tramactl";
            let remedy = "use the tramactl that came with it, or restart tramad";
            (vec![Finding::fail("daemon", text, remedy)], Switch::default())
        }
        Err(failed) => {
            let file = Folders::of_process(false).config;
            let text = system.read(&file.to_string_lossy());
            (daemon::absent(&failed.to_string(), text.as_deref()), Switch::default())
        }
    };
    findings.extend(helper::check(system));
    findings.extend(host::check(&switch, system));
    if switch.version.is_empty() {
        return findings;
    }
    findings.extend(ports::check(&switch, system));
    findings.extend(cores::check(system));
    findings
}

/// Runs the commands of the findings that have one; returns whether one was run.
fn fix(findings: &[Finding]) -> bool {
    let mut has_run = false;
    for command in findings.iter().filter_map(|finding| finding.fix.as_deref()) {
        let Some((program, arguments)) = command.split_first() else { continue };
        tell!("tramactl: fix: {}", command.join(" "));
        has_run = true;
        match Command::new(program).args(arguments).stdout(std::process::Stdio::null()).status() {
            Ok(status) if status.success() => {}
            Ok(status) => tell!("tramactl: {program} has failed ({status}); run this as root"),
            Err(error) => tell!("tramactl: cannot run {program}: {error}"),
        }
    }
    has_run
}
