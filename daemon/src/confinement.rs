//! Gives up what `tramad` does not need once its helper runs: capabilities, files, system calls.
//!
//! All of it holds for the calling thread and those that it starts, so it is done while the process
//! has one. See docs/security.md.

use std::path::Path;

use trama_sandbox::{Files, Mode, Process, drop_privileges, restrict_calls, restrict_files};

/// What of the confinement is in force, and what is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Confinement {
    /// In words, separated by commas.
    pub in_force: String,
    /// What is not in force, each with its reason.
    pub missing: Vec<String>,
}

/// Confines the process. It may still remove the control socket at `control`.
///
/// # Errors
/// The capabilities cannot be dropped, which no kernel refuses.
pub fn enter(mode: Mode, control: &Path) -> std::io::Result<Confinement> {
    drop_privileges()?;
    let mut confinement = Confinement {
        in_force: "no capabilities, no new privileges".to_owned(),
        missing: Vec::new(),
    };
    let files = Files {
        read: READ.iter().map(|path| (*path).into()).collect(),
        remove: control.parent().map(|folder| folder.to_owned().into()).into_iter().collect(),
        ..Files::default()
    };
    match restrict_files(&files, mode) {
        Ok(version) => confinement.add(&format!("Landlock ABI {version}")),
        Err(missing) => confinement.missing.push(missing.to_string()),
    }
    match restrict_calls(Process::Switch, mode) {
        Ok(calls) => confinement.add(&format!("seccomp ({calls} calls)")),
        Err(missing) => confinement.missing.push(missing.to_string()),
    }
    Ok(confinement)
}

impl Confinement {
    fn add(&mut self, words: &str) {
        self.in_force.push_str(", ");
        self.in_force.push_str(words);
    }
}

/// What is read: the state of gateways and threads, mounts, and the host's memory (`/proc`); the
/// memory limit of the own group (`/sys/fs/cgroup`); the host's identity, of which addresses are
/// made; and the program with its libraries, for the backtrace of a panic.
const READ: [&str; 8] = [
    "/proc",
    "/sys/fs/cgroup",
    "/etc/machine-id",
    "/proc/self/exe",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
];
