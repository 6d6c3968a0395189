//! Tunnels that run: their sockets, and which worker a datagram is for.
//!
//! All tunnels with one local address and UDP port receive by one socket: their VTEP. It is opened
//! with the first of them and closed after the last. One worker reads it, and each worker has a
//! mailbox, if there are several.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use trama_frame::vxlan::Vni;
use trama_helper::Entry;
use trama_switch::{
    Device, HdrLen, PortId, PortSettings, Tunnel, Tunnels, VlanMode, VlanSet, Vtep, VtepMailbox,
    Vxlan,
};

use super::{DataPlane, RunningPort};
use crate::config::model::tunnel::Vxlan as VxlanConfig;
use crate::socket_status::SocketStatus;

/// What a tunnel's port receives.
#[derive(Clone, Debug)]
pub(crate) struct TunnelEnd {
    vtep: SocketAddr,
    vni: Vni,
    remote: IpAddr,
    /// The remote end in words.
    peer: String,
}

/// A VTEP that runs.
pub(super) struct RunningVtep {
    /// The ports by which workers receive, with the numbers of the workers.
    ends: Vec<(usize, PortId)>,
    mailboxes: Vec<VtepMailbox>,
    /// The keeper's entry of its socket.
    _entry: Option<Entry>,
}

/// A tunnel by its VNI and remote address.
type Known = ((Vni, IpAddr), Tunnel);

impl DataPlane {
    /// Opens a tunnel's device, and its VTEP if it is the first one there, which is read by
    /// `worker`.
    pub(super) fn open_tunnel(
        &mut self,
        device: &VxlanConfig,
        worker: usize,
    ) -> Result<(Device, TunnelEnd), String> {
        let vtep = device.vtep();
        let vni = Vni::new(device.vni).ok_or_else(|| format!("VNI {} is too large", device.vni))?;
        // First, as it says if the remote address is not approved.
        let senders = self.rights.tunnel_senders(vtep, device.remote)?;
        if !self.vteps.contains_key(&vtep) {
            let running = self.open_vtep(vtep, device.remote, worker)?;
            self.vteps.insert(vtep, running);
        }
        let remote = SocketAddr::new(device.remote, device.port);
        let end = TunnelEnd { vtep, vni, remote: device.remote, peer: device.to_string() };
        Ok((Device::Vxlan(Box::new(Vxlan::new(vni, remote, senders))), end))
    }

    fn open_vtep(
        &self,
        vtep: SocketAddr,
        remote: IpAddr,
        worker: usize,
    ) -> Result<RunningVtep, String> {
        let opened = self.rights.tunnel_receiver(vtep, remote)?;
        let mut running = RunningVtep { ends: vec![], mailboxes: vec![], _entry: opened.entry };
        let mut devices = vec![(worker, Vtep::of_socket(opened.socket, worker))];
        if self.workers.len() > 1 {
            for worker in 0..self.workers.len() {
                let made = Vtep::of_mailbox(worker).map_err(|error| error.to_string())?;
                devices.push((worker, made.0));
                running.mailboxes.push(made.1);
            }
        }
        for (worker, device) in devices {
            let settings = settings_of(vtep);
            let device = Device::Vtep(Box::new(device));
            let added = self.on_worker(worker, move |engine, _| engine.add_port(settings, device));
            match added.and_then(|added| added.map_err(|error| error.to_string())) {
                Ok((id, _)) => running.ends.push((worker, id)),
                Err(reason) => {
                    self.close_vtep(running);
                    return Err(reason);
                }
            }
        }
        Ok(running)
    }

    fn close_vtep(&self, vtep: RunningVtep) {
        for (worker, id) in vtep.ends {
            // A worker that has ended has no ports.
            let _ = self.on_worker(worker, move |engine, _| engine.remove_port(id));
        }
    }

    /// Tells the receiving ends which tunnels run and where, and closes those that have none left.
    /// To be called after a tunnel was added, removed, or moved to another worker.
    pub(crate) fn renew_tunnels(&mut self) {
        if self.vteps.is_empty() {
            return;
        }
        let mut tunnels: HashMap<SocketAddr, Vec<Known>> = HashMap::new();
        for (end, port) in self.ports.values().filter_map(|it| Some((it.tunnel.as_ref()?, it))) {
            let tunnel = Tunnel { port: port.id, worker: port.worker };
            tunnels.entry(end.vtep).or_default().push(((end.vni, end.remote), tunnel));
        }
        let unused = self.vteps.extract_if(|vtep, _| !tunnels.contains_key(vtep));
        let unused: Vec<RunningVtep> = unused.map(|(_, running)| running).collect();
        unused.into_iter().for_each(|vtep| self.close_vtep(vtep));
        for (at, vtep) in &self.vteps {
            let mut all = tunnels.remove(at).unwrap_or_default();
            // Where datagrams of no tunnel are counted does not depend on chance.
            all.sort_unstable_by_key(|(_, tunnel)| tunnel.port);
            let all = Arc::new(Tunnels::new(all, vtep.mailboxes.clone()));
            for &(worker, id) in &vtep.ends {
                let all = all.clone();
                // Those before are freed on this thread.
                let told = self.on_worker(worker, move |engine, _| engine.set_tunnels(id, all));
                match told {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::error!("tunnels at {at}: {error}"),
                    Err(error) => tracing::error!("tunnels at {at}: {error}"),
                }
            }
        }
    }

    /// Returns the state of a tunnel's sockets.
    pub(super) fn tunnel_status(&self, running: &RunningPort) -> Option<SocketStatus> {
        let end = running.tunnel.as_ref()?;
        let id = running.id;
        let error = self.on_worker(running.worker, move |engine, _| engine.tunnel_error(id));
        Some(SocketStatus {
            location: end.vtep.to_string(),
            state: "connected",
            peer: Some(end.peer.clone()),
            connects: None,
            last_error: super::sockets::send_error(error.ok().flatten()),
        })
    }
}

/// The settings of a port that only receives datagrams.
fn settings_of(vtep: SocketAddr) -> PortSettings {
    PortSettings {
        name: format!("VTEP {vtep}"),
        network: None,
        vlan: VlanMode::Trunk { trunks: VlanSet::all() },
        cable: true,
        filter: Default::default(),
        mark: 0,
        hdr_len: HdrLen::Headers,
    }
}
