//! The daemon as a service with a user of its own, whose helpers a service manager starts.

use std::path::Path;
use std::process::Command;

use super::{OWN_PROGRAM, Tramad, binary};
use crate::family::MARK;
use crate::process::{Process, SOON, User, tied_command, wait_until};

/// The user of the service, which each host has.
const USER: &str = "nobody";
/// In the daemon's directory: the socket at which helpers are started.
pub(super) const HELPER: &str = "helper.sock";

impl Tramad {
    /// As [`Tramad::start`], as a service; also returns what starts its helpers.
    #[track_caller]
    pub fn start_service(configuration: &str) -> (Tramad, Process) {
        let mut manager = None;
        let tramad = Tramad::start_on(None, configuration, |dir| {
            manager = Some(start_manager(dir));
        });
        (tramad, manager.expect("a manager"))
    }
}

/// Returns the command that starts a program as a service manager does: as the service's user, and
/// with no capability in any set.
pub(super) fn command(program: &Path) -> Command {
    let User { id, group } = User::named(USER);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id.to_string(), "--regid", &group.to_string(), "--init-groups"]);
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Listens on the socket, for the service's user alone.
fn start_manager(dir: &Path) -> Process {
    // That user must reach the program and the socket.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir, open).expect("chmod");
    std::fs::copy(binary("tramad"), dir.join(OWN_PROGRAM)).expect("a copy");
    let socket = dir.join(HELPER);
    let mut command = tied_command("systemd-socket-activate");
    command.args(["--seqpacket", "--accept", "--inetd", "--listen"]).arg(&socket);
    let mark = format!("{MARK}={}", dir.display());
    command.args(["-E", &mark, "-E", "TRAMA_SANDBOX=trap"]).arg(dir.join(OWN_PROGRAM));
    command.args(["helper", "--for", USER, "--config"]).arg(dir.join("trama.toml"));
    let manager = Process::spawn("systemd-socket-activate", command, &dir.join("tramad.log"));
    wait_until("it listens", SOON, || manager.log().contains("Listening on").then_some(()));
    User::named(USER).own(&socket);
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&socket, own).expect("chmod");
    manager
}
