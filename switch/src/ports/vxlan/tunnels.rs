//! Which port a datagram is for.

use std::collections::HashMap;
use std::net::IpAddr;

use trama_frame::vxlan::Vni;

use super::inbox::Inbox;
use super::losses::Losses;
use super::mailbox::VtepMailbox;
use super::toward::{Toward, Tunnel};
use crate::drop_reason::DropReason;

/// The tunnels of a VTEP. It does not change: another one takes its place.
#[derive(Default)]
pub struct Tunnels {
    exact: HashMap<(Vni, IpAddr), Tunnel>,
    /// A tunnel with this VNI, and one from this address: where others are counted.
    of_vni: HashMap<Vni, Tunnel>,
    of_remote: HashMap<IpAddr, Tunnel>,
    any: Option<Tunnel>,
    /// By number of the worker; none where there is only one.
    mailboxes: Vec<VtepMailbox>,
}

impl Tunnels {
    /// Makes one of tunnels and of the mailboxes of all workers, which one worker does not need.
    pub fn new(
        tunnels: impl IntoIterator<Item = ((Vni, IpAddr), Tunnel)>,
        mailboxes: Vec<VtepMailbox>,
    ) -> Tunnels {
        let mut all = Tunnels { mailboxes, ..Tunnels::default() };
        for ((vni, remote), tunnel) in tunnels {
            all.exact.insert((vni, remote), tunnel);
            all.of_vni.entry(vni).or_insert(tunnel);
            all.of_remote.entry(remote).or_insert(tunnel);
            all.any.get_or_insert(tunnel);
        }
        all
    }

    /// Returns where a datagram goes, or at which tunnel's port it is counted; `None` if there is
    /// no tunnel.
    pub(crate) fn find(&self, vni: Option<Vni>, from: IpAddr) -> Option<Toward> {
        let of_remote = || self.of_remote.get(&from).copied();
        let refused = |tunnel: Option<Tunnel>, reason| {
            Some(Toward { tunnel: tunnel.or(self.any)?, refused: Some(reason) })
        };
        let Some(vni) = vni else { return refused(of_remote(), DropReason::TunnelMalformed) };
        match self.exact.get(&(vni, from)) {
            Some(tunnel) => Some(Toward { tunnel: *tunnel, refused: None }),
            None => {
                let of_vni = self.of_vni.get(&vni).copied();
                refused(of_vni.or_else(of_remote), DropReason::TunnelUnknown)
            }
        }
    }

    /// Hands the selected datagrams of an inbox to another worker, with what was lost before.
    #[cold]
    pub(crate) fn hand_over(&self, inbox: &Inbox, worker: usize, losses: Losses) {
        if let Some(mailbox) = self.mailboxes.get(worker) {
            mailbox.put(inbox, losses);
        }
    }
}
