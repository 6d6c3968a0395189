//! The null device: a vhost-user backend that copies frames between pairs of ports and does nothing
//! else. What a generator reaches with it is the generator's ceiling.

use std::path::PathBuf;

use trama_bench::generator::NullDevice;
use trama_vhost_net_backend::Role;

use super::{End, Peer, Port, START, SWITCH_CORE, Setup, Switch};
use crate::process::{Process, Result, pause, pinned, this_program};

/// See the module.
pub const NULL_DEVICE: Peer = Peer {
    name: "null-device",
    about: "no switch: frames are copied between pairs of vhost-user ports, the generator's ceiling",
    programs: &[],
    hugepages: false,
    start,
};

/// The hidden command that [`serve`]s.
pub const COMMAND: &str = "null-device";

fn start(setup: &Setup) -> Result<Switch> {
    if !setup.all(Port::Vhost) || setup.ports.len() % 2 == 1 {
        return setup.refuse(&NULL_DEVICE);
    }
    let sockets: Vec<_> = (0..setup.ports.len()).map(|number| setup.socket(number)).collect();
    let mut command = pinned(SWITCH_CORE, this_program()?);
    command.arg(COMMAND).args(&sockets);
    let mut device = Process::spawn("the null device", command)?;
    device.wait_for("ready", START)?;
    let end = |socket| End::Vhost { socket, frontend_listens: false };
    Ok(Switch::of(vec![device], sockets.into_iter().map(end).collect()))
}

/// Serves the sockets until the process is ended.
pub fn serve(sockets: &[PathBuf]) -> Result<()> {
    let _device = NullDevice::start(sockets, Role::Server, Some(SWITCH_CORE), true)
        .map_err(|e| e.to_string())?;
    println!("ready");
    loop {
        pause(START)?;
    }
}
