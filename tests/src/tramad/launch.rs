//! Starts the program of the daemon on the files of a test.

use std::path::Path;

use super::service::{HELPER, command};
use super::{MANAGER, OWN_PROGRAM, VARIABLES, WITHOUT_IPV6, binary};
use crate::family::MARK;
use crate::process::{Process, tied_command};

/// Starts it with these options, in a namespace if one is named.
#[track_caller]
pub(super) fn launch(dir: &Path, netns: Option<&str>, options: &[&str]) -> Process {
    let own = dir.join(OWN_PROGRAM);
    let program = if own.exists() { own } else { binary("tramad") };
    let helper = dir.join(HELPER);
    let mut command = match netns {
        None if helper.exists() => {
            let mut command = command(&program);
            command.arg("--helper").arg(helper);
            command
        }
        None => tied_command(program),
        Some(netns) => {
            let mut command = tied_command("ip");
            command.args(["netns", "exec", netns]);
            if dir.join("etc").exists() {
                // `ip netns exec` creates a mount namespace, which confines this mount. As on a
                // host that systemd has booted, namespaces made later see what is mounted in this
                // one.
                let bind = format!("mount --bind {}/etc /etc", dir.display());
                let script = format!("mount --make-rshared / && {bind} && exec \"$@\"");
                command.args(["sh", "-c", &script, "sh"]);
            }
            let without_ipv6 = dir.join(WITHOUT_IPV6.0);
            if without_ipv6.exists() {
                command.arg("python3").arg(without_ipv6);
            }
            command.arg(program);
            command
        }
    };
    command.arg("--config").arg(dir.join("trama.toml")).args(options);
    let manager = dir.join(MANAGER);
    if manager.exists() {
        command.env("NOTIFY_SOCKET", manager);
    }
    // Its other processes inherit it.
    command.env(MARK, dir);
    let variables = std::fs::read_to_string(dir.join(VARIABLES)).unwrap_or_default();
    command.envs(variables.lines().filter_map(|line| line.split_once('=')));
    // A system call that is missing on a list ends the process, and the test.
    command.env("TRAMA_SANDBOX", "trap");
    Process::spawn("tramad", command, &dir.join("tramad.log"))
}
