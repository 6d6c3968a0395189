//! Rules for tunnels: which other host they lead to, and what they cannot share.

use std::collections::HashMap;
use std::net::IpAddr;

use trama_frame::vxlan::Vni;

use super::check::Check;
use crate::config::model::tunnel::Vxlan;
use crate::config::model::{Mode, Network, Port};

/// What tunnels cannot share, with the path of the table that has it.
#[derive(Default)]
pub(super) struct Tunnels {
    /// By remote address, VNI and UDP port.
    ends: HashMap<(IpAddr, u32, u16), String>,
    /// By version of IP and UDP port: whether the local address is stated.
    vteps: HashMap<(bool, u16), (bool, String)>,
}

/// Returns why an address is not one that a host has.
fn fault_of(address: IpAddr) -> Option<&'static str> {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let is_of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    match () {
        () if address.is_multicast() => Some("is a multicast address"),
        () if address.is_unspecified() || is_broadcast => Some("is no address of one host"),
        () if is_of_link => Some("is an address of one link, and names no interface"),
        () => None,
    }
}

impl Check {
    pub(super) fn vxlan(
        &mut self,
        port: &Port,
        device: &Vxlan,
        network: Option<&Network>,
        tunnels: &mut Tunnels,
    ) {
        if device.vni > Vni::MAX {
            let message = format!("{} has more than 24 bits", device.vni);
            self.problem("vni", message, format!("use 0 to {}", Vni::MAX));
        }
        if device.port == 0 {
            self.problem("port", "0 is not a UDP port", "use one from 1 to 65535, such as 4789");
        }
        if let Some(fault) = fault_of(device.remote) {
            let remedy = "use the unicast address of the other host; flooded frames go to each \
                          tunnel of the network, so add a port for each host";
            self.problem("remote", format!("{} {fault}", device.remote), remedy);
        }
        if let Some(local) = device.local {
            self.local(device, local);
        }
        self.shared(device, tunnels);
        self.not_one_guest(port);
        if network.is_some_and(|network| network.mode == Mode::Nat) {
            let message = "each port of a network of mode \"nat\" is alone behind its gateway, so \
                           a tunnel would reach no guest";
            let remedy = r#"use a network of another mode, such as "nat-network""#;
            self.problem("network", message, remedy);
        }
    }

    fn local(&mut self, device: &Vxlan, local: IpAddr) {
        if let Some(fault) = fault_of(local) {
            let remedy = "use an address of this host, or remove it";
            self.problem("local", format!("{local} {fault}"), remedy);
        }
        if local.is_ipv4() != device.remote.is_ipv4() {
            let message = format!("{local} is of another version of IP than remote");
            self.problem("local", message, "use two addresses of one version");
        } else if local == device.remote {
            let message = format!("{local} is the remote address as well");
            self.problem("local", message, "use an address of this host, or remove it");
        }
    }

    fn shared(&mut self, device: &Vxlan, tunnels: &mut Tunnels) {
        let path = self.path().to_owned();
        let end = (device.remote, device.vni, device.port);
        if let Some(other) = tunnels.ends.insert(end, path.clone()) {
            let message = format!("the tunnel to {device} is {other} already");
            self.problem("remote", message, "give one of them another remote, vni or port");
        }
        let is_stated = device.local.is_some();
        let vtep = (device.remote.is_ipv4(), device.port);
        let (is_other_stated, other) = tunnels.vteps.entry(vtep).or_insert((is_stated, path));
        if *is_other_stated != is_stated {
            let message = format!(
                "{other} receives at UDP port {} as well, and only one of them states local",
                device.port
            );
            self.problem("local", message, "state it for all tunnels of a UDP port, or for none");
        }
    }

    /// Behind a tunnel are the guests of another host.
    fn not_one_guest(&mut self, port: &Port) {
        let remedy = "state it at the guest's port on its own host";
        if port.mac.is_some() {
            self.problem("mac", "is that of one guest, and behind a tunnel are many", remedy);
        }
        if !port.addresses.is_empty() {
            let message = "are those of one guest, and behind a tunnel are many";
            self.problem("addresses", message, remedy);
        }
    }
}
