//! Gives up what `tramad` does not need once its helper runs: capabilities, files, system calls.
//!
//! All of it holds for the calling thread and those that it starts, so it is done while the process
//! has one. What is in force is known to the whole process, for `show` and the metrics. See
//! docs/security.md.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use trama_sandbox::{Files, Mode, Process, drop_privileges, restrict_calls, restrict_files};

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

static IN_FORCE: OnceLock<String> = OnceLock::new();
static MISSING: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Confines the process, and logs what is in force.
///
/// # Errors
/// The capabilities cannot be dropped, which no kernel refuses.
pub fn enter(mode: Mode) -> std::io::Result<()> {
    drop_privileges()?;
    let mut parts = vec!["no capabilities, no new privileges".to_owned()];
    let files =
        Files { read: READ.iter().map(|path| (*path).into()).collect(), ..Files::default() };
    let files = restrict_files(&files, mode).map(|version| format!("Landlock ABI {version}"));
    let calls =
        restrict_calls(Process::Switch, mode).map(|calls| format!("seccomp ({calls} calls)"));
    for part in [files, calls] {
        match part {
            Ok(part) => parts.push(part),
            Err(missing) => note_missing(&[missing.to_string()]),
        }
    }
    let in_force = IN_FORCE.get_or_init(|| parts.join(", "));
    tracing::info!("in force: {in_force}");
    Ok(())
}

/// Notes what is not in force, here or in another process of the daemon; warns of each text once.
pub fn note_missing(texts: &[String]) {
    let mut missing = MISSING.lock().unwrap_or_else(PoisonError::into_inner);
    for text in texts {
        if missing.insert(text.clone()) {
            tracing::warn!("not in force: {text}");
        }
    }
}

/// Returns what is in force, in words; `None` in a process that was not confined.
pub fn in_force() -> Option<&'static str> {
    IN_FORCE.get().map(String::as_str)
}

/// Returns what is not in force, each with its reason.
pub fn missing() -> Vec<String> {
    MISSING.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}
