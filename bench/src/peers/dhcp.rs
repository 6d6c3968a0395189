//! DHCP servers on a veth pair to one host, whose load generator simulates many clients.

use std::fs;

use super::{End, Peer, Port, START, Setup, Switch};
use crate::host::{Link, Namespace};
use crate::process::{Process, Result, pinned, run};
use crate::program::Program;

/// trama's DHCP server.
pub(crate) const TRAMA_DHCP: Peer = Peer {
    name: "trama-dhcp",
    about: "tramad with a network whose gateway leases 65,000 addresses",
    programs: &[],
    hugepages: false,
    start: start_trama,
};
/// The DHCP server of libvirt and of many routers.
pub(crate) const DNSMASQ: Peer = Peer {
    name: "dnsmasq",
    about: "dnsmasq with the same addresses, on a veth pair",
    programs: &[Program::new("dnsmasq", "dnsmasq-base")],
    hugepages: false,
    start: start_dnsmasq,
};

/// The near end of the host's veth pair.
const UPLINK: &str = "uplink0";
/// The host's device.
pub(crate) const DEVICE: &str = "eth0";
const HOST: &str = "10.1.0.2/16";
const SERVER: &str = "10.1.0.1/16";
/// Some 65,000 addresses.
const FIRST: &str = "10.1.1.0";
const LAST: &str = "10.1.254.255";

fn start_trama(setup: &Setup) -> Result<Switch> {
    let client = client(setup, &TRAMA_DHCP)?;
    let (dir, path) = (setup.dir.display(), setup.dir.join("trama.toml"));
    let config = format!(
        "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\n\
         [[network]]\nname = \"bench\"\nsubnet = \"10.1.0.0/16\"\n\n\
         [network.dhcp]\nrange = \"{FIRST}-{LAST}\"\nleases-per-port = 65536\n\n\
         [[port]]\nname = \"clients\"\nnetwork = \"bench\"\ntype = \"tap\"\nifname = \"{DEVICE}\"\n\
         netns = \"{}\"\naddress = \"{HOST}\"\nstorm-broadcast = 0\n",
        client.0
    );
    fs::write(&path, config).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut command = pinned(setup.core, setup.bin.join("tramad"));
    command.arg("--config").arg(&path);
    let mut daemon = Process::spawn("tramad", command)?;
    daemon.wait_for("ready", START)?;
    Ok(Switch::of(vec![daemon], vec![End::Host(client)]))
}

fn start_dnsmasq(setup: &Setup) -> Result<Switch> {
    let client = client(setup, &DNSMASQ)?;
    let kind = ["type", "veth", "peer", "name", DEVICE, "netns", &client.0];
    let link = Link::add(UPLINK, &kind)?;
    run("ip", &["addr", "add", SERVER, "dev", UPLINK])?;
    client.configure(DEVICE, HOST, setup.mtu)?;
    let mut command = pinned(setup.core, "dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
    command.args(["--port=0", "--bind-interfaces", "--interface", UPLINK]);
    command.args(["--log-facility=-", "--quiet-dhcp", "--dhcp-authoritative"]);
    command.arg(format!("--dhcp-range={FIRST},{LAST},255.255.0.0,1h"));
    // Neither the default limit of leases nor the pause for a conflict check by ping.
    command.args(["--dhcp-lease-max=65536", "--no-ping"]);
    command.arg(format!("--dhcp-leasefile={}", setup.dir.join("leases").display()));
    let mut server = Process::spawn("dnsmasq", command)?;
    server.wait_for("DHCP, IP range", START)?;
    Ok(Switch { _links: vec![link], ..Switch::of(vec![server], vec![End::Host(client)]) })
}

fn client(setup: &Setup, peer: &Peer) -> Result<Namespace> {
    match setup.ports {
        [Port::Host] => Namespace::new(0),
        _ => setup.refuse(peer),
    }
}
