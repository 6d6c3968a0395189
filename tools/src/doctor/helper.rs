//! Checks of the socket by which a service finds its helper.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::finding::{Finding, or_ok};
use super::system::System;

const CHECK: &str = "helper";
/// The units, where the package and an administrator have them.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const UNIT: &str = "trama-helper.socket";
/// Where that unit listens, and the user of the service.
const SOCKET: &str = "/run/trama-helper/socket";
const USER: &str = "trama";
const REMEDY: &str = "systemctl status trama-helper.socket";

/// What is found on a host that has the unit; nothing elsewhere, and where `tramad` runs without
/// it.
pub(super) fn check(system: &System) -> Vec<Finding> {
    let has_unit = UNITS.iter().any(|at| system.metadata(&format!("{at}/{UNIT}")).is_some());
    let is_service = is_service(system);
    let runs = system.processes().iter().any(|process| process.name == "tramad");
    if !has_unit || runs && !is_service {
        return Vec::new();
    }
    or_ok(CHECK, faults(system), format!("{SOCKET} is there for user {USER} alone"))
}

/// Whether a `tramad` runs that has its helper by a socket.
pub(super) fn is_service(system: &System) -> bool {
    let processes = system.processes();
    processes.iter().any(|it| it.arguments.iter().any(|word| word == "--helper"))
}

fn faults(system: &System) -> Vec<Finding> {
    let state = system.output(&["systemctl", "show", "--property=ActiveState", "--value", UNIT]);
    if let Some(state) = state.as_deref().map(str::trim).filter(|state| *state != "active") {
        return vec![Finding::fail(CHECK, format!("{UNIT} is {state}"), REMEDY)];
    }
    let Some(socket) = system.metadata(SOCKET) else {
        return vec![Finding::fail(CHECK, format!("{SOCKET} is not there"), REMEDY)];
    };
    let Some(user) = user(system) else {
        let remedy = "systemd-sysusers makes it";
        return vec![Finding::fail(CHECK, format!("there is no user {USER}"), remedy)];
    };
    let (owner, mode) = (socket.uid(), socket.mode() & 0o7777);
    let is_own = socket.file_type().is_socket() && owner == user && mode & 0o077 == 0;
    if is_own {
        return Vec::new();
    }
    let text = format!(
        "{SOCKET} is not for user {USER} alone: its owner is user {owner}, mode {mode:04o}"
    );
    vec![Finding::fail(CHECK, text, "systemctl restart trama-helper.socket")]
}

/// The number of the service's user.
fn user(system: &System) -> Option<u32> {
    let users = system.read("/etc/passwd")?;
    let mut fields = users
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(USER)).then_some(fields))?;
    fields.nth(1)?.parse().ok()
}
