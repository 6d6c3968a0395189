//! trama: `tramad` with any mixture of ports in one network.

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use trama_vhost_net_backend::Role;

use super::{End, Peer, Port, START, Setup, Switch, host_behind_uplink};
use crate::host::Namespace;
use crate::process::{Process, Result, pinned};

/// See the module.
pub(crate) const TRAMA: Peer =
    Peer { name: "trama", about: "tramad, one worker", programs: &[], hugepages: false, start };

/// Default size of a MAC table, enough for most networks.
const DEFAULT_MACS: u32 = 8192;
/// The interface that a bridged network joins.
const UPLINK: &str = "uplink0";
/// The VLAN of [`super::Variant::vlan`].
pub(crate) const VLAN: u16 = 10;

fn start(setup: &Setup) -> Result<Switch> {
    let dir = setup.dir.display();
    let spin = if setup.variant.spins_always { "spin = \"always\"\n" } else { "" };
    let mut config = format!(
        "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n{spin}\n\
         [[network]]\nname = \"bench\"\nmtu = {}\nmac-table-size = {}\n",
        setup.mtu,
        setup.variant.macs.max(DEFAULT_MACS).next_power_of_two(),
    );
    let (mut ends, mut links) = (Vec::new(), Vec::new());
    if let Some(number) = setup.ports.iter().position(|&port| port == Port::BehindUplink) {
        let _ = writeln!(config, "mode = \"bridged\"\nuplink = \"{UPLINK}\"");
        let (link, host) = host_behind_uplink(UPLINK, number, setup.mtu)?;
        links.push(link);
        ends.push(End::Host(host));
    }
    for (number, &port) in setup.ports.iter().enumerate() {
        if port != Port::BehindUplink {
            ends.insert(number, add_port(&mut config, setup, number, port)?);
        }
    }
    let mut silent = Vec::new();
    for number in 0..setup.variant.silent_ports {
        let _ = write!(config, "\n[[port]]\nname = \"silent{number}\"\nnetwork = \"bench\"\n");
        if number % 2 == 0 {
            config.push_str("type = \"tap\"\n");
            continue;
        }
        let socket = setup.dir.join(format!("silent{number}.sock"));
        let _ = writeln!(config, "type = \"vhost-user\"\npath = \"{}\"", socket.display());
        silent.push(socket);
    }
    let path = setup.dir.join("trama.toml");
    fs::write(&path, config).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut command = pinned(setup.core, setup.bin.join("tramad"));
    command.arg("--config").arg(&path);
    let begin = Instant::now();
    let mut daemon = Process::spawn("tramad", command)?;
    daemon.wait_for("ready", START)?;
    let ready_after = Some(begin.elapsed());
    Ok(Switch { ready_after, silent, _links: links, ..Switch::of(vec![daemon], ends) })
}

fn add_port(config: &mut String, setup: &Setup, number: usize, port: Port) -> Result<End> {
    let _ = write!(config, "\n[[port]]\nname = \"p{number}\"\nnetwork = \"bench\"\n");
    if setup.variant.promiscuous {
        config.push_str("promiscuous = \"allow-all\"\n");
    }
    if setup.variant.floods {
        config.push_str("storm-broadcast = 0\n");
    }
    if setup.variant.vlan {
        let rule = if number == 0 { format!("tag = {VLAN}") } else { format!("trunks = [{VLAN}]") };
        let _ = writeln!(config, "{rule}");
    }
    let (rest, end) = match port {
        Port::Vhost => {
            let socket = setup.socket(number);
            let rest = format!("type = \"vhost-user\"\npath = \"{}\"\n", socket.display());
            (rest, End::Vhost { socket, backend_role: Role::Server })
        }
        Port::Host => {
            let host = Namespace::new(number)?;
            let rest = format!(
                "type = \"tap\"\nifname = \"eth0\"\nnetns = \"{}\"\naddress = \"{}/24\"\n",
                host.0,
                Namespace::address(number)
            );
            (rest, End::Host(host))
        }
        Port::Tap => {
            let name = format!("tap{number}");
            (format!("type = \"tap\"\nifname = \"{name}\"\n"), End::Tap(name))
        }
        Port::VmTap | Port::BehindUplink | Port::Remote => return setup.refuse(&TRAMA),
    };
    config.push_str(&rest);
    Ok(end)
}
