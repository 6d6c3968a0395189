//! The null device: a vhost-user backend that only copies frames from port to port. The rate
//! through it is the generator's ceiling.

use std::path::PathBuf;

use trama_bench::generator::{Forwarding, NullDevice, NullDeviceOptions};
use trama_vhost_net_backend::Role;

use super::{End, Peer, Port, START, Setup, Switch};
use crate::process::{Process, Result, pause, pinned, this_program};

/// See the module.
pub(crate) const NULL_DEVICE: Peer = Peer {
    name: "null-device",
    about: "no switch: frames are copied between pairs of vhost-user ports, the generator's ceiling",
    programs: &[],
    hugepages: false,
    start: |setup| start(setup, &NULL_DEVICE, Forwarding::Pairs),
};

/// For trama's generator, whose addresses encode their port.
pub(crate) const NULL_DEVICE_BY_ADDRESS: Peer = Peer {
    name: "null-device-by-address",
    about: "no switch: frames are copied to the vhost-user port that their address names",
    start: |setup| start(setup, &NULL_DEVICE_BY_ADDRESS, Forwarding::ByAddress),
    ..NULL_DEVICE
};

/// For eight ports whose frames are all flooded.
pub(crate) const NULL_DEVICE_TO_ALL: Peer = Peer {
    name: "null-device-to-all",
    about: "no switch: frames are copied to all other vhost-user ports",
    start: |setup| start(setup, &NULL_DEVICE_TO_ALL, Forwarding::All),
    ..NULL_DEVICE
};

/// Names of the forwarding modes for the hidden command.
const FORWARDINGS: [(&str, Forwarding); 3] = [
    ("pairs", Forwarding::Pairs),
    ("by-address", Forwarding::ByAddress),
    ("to-all", Forwarding::All),
];

/// The hidden command that runs [`serve`].
pub(crate) const COMMAND: &str = "null-device";

fn start(setup: &Setup, peer: &Peer, forwarding: Forwarding) -> Result<Switch> {
    let is_paired = setup.ports.len().is_multiple_of(2);
    if !setup.all(Port::Vhost) || (forwarding == Forwarding::Pairs && !is_paired) {
        return setup.refuse(peer);
    }
    let sockets: Vec<_> = (0..setup.ports.len()).map(|number| setup.socket(number)).collect();
    let mut command = pinned(setup.core, this_program()?);
    let name = FORWARDINGS.iter().find(|(_, known)| *known == forwarding).map(|(name, _)| name);
    command.arg(COMMAND).args(name).args(&sockets);
    let mut device = Process::spawn("the null device", command)?;
    device.wait_for("ready", START)?;
    let end = |socket| End::Vhost { socket, backend_role: Role::Server };
    Ok(Switch::of(vec![device], sockets.into_iter().map(end).collect()))
}

/// Returns the forwarding mode with this name.
pub(crate) fn forwarding(name: &str) -> Result<Forwarding> {
    let known = FORWARDINGS.iter().find(|(known, _)| *known == name);
    known.map(|(_, forwarding)| *forwarding).ok_or_else(|| "unknown forwarding mode".into())
}

/// Serves the sockets until terminated.
pub(crate) fn serve(forwarding: Forwarding, sockets: &[PathBuf]) -> Result<()> {
    let _device = NullDevice::start(sockets, NullDeviceOptions::new(forwarding))
        .map_err(|e| e.to_string())?;
    println!("ready");
    loop {
        pause(START)?;
    }
}
