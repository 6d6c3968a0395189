//! VDE's switch with a TAP for each host.

use super::{Peer, Port, START, Setup, Switch, hosts_with};
use crate::process::{Process, Result, pinned, run, wait_until};
use crate::program::Program;

/// See the module.
pub(crate) const VDE: Peer = Peer {
    name: "vde",
    about: "vde_switch with TAPs",
    programs: &[Program::new("vde_switch", "vde2")],
    hugepages: false,
    start,
};

fn start(setup: &Setup) -> Result<Switch> {
    if !setup.all(Port::Host) {
        return setup.refuse(&VDE);
    }
    let mut command = pinned(setup.core, "vde_switch");
    command.arg("--sock").arg(setup.dir.join("vde"));
    for number in 0..setup.ports.len() {
        command.args(["--tap", &format!("tap{number}")]);
    }
    let switch = Process::spawn("vde_switch", command)?;
    let ends = hosts_with(setup, |number, host| {
        let tap = format!("tap{number}");
        let is_there = || run("ip", &["link", "show", &tap]).is_ok();
        wait_until(&format!("vde_switch made {tap}"), START, is_there)?;
        host.adopt(&tap)?;
        Ok(tap)
    })?;
    Ok(Switch::of(vec![switch], ends))
}
