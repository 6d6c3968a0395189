//! Who a client is: on which subnet, under which key, with which reservation.
//!
//! RFC 2131, 4.2 identifies a client by its client identifier, else by its hardware address. Two
//! refinements keep that true for virtual machines:
//!
//! - The identifier `01` + hardware address says no more than the hardware address, so that boot
//!   firmware that sends one and an operating system that does not are the same client.
//! - Copies of one disk image send the same identifier from different machines. While one of them
//!   holds an address, another machine (another hardware address on another port) is told apart by
//!   its hardware address as well. Nor can a guest so take another guest's lease over.
//!
//! Where there is but one machine (`Config::alone`), it is the client, whatever it says.

use std::net::Ipv4Addr;

use trama_frame::MacAddr;

use super::{PortId, Received, Server};
use crate::DropReason;
use crate::config::{ClientMatch, Reservation};
use crate::leases::{ClientKey, State};
use crate::wire::{ETHERNET, Request};

/// A request and who sent it.
#[derive(Clone, Debug)]
pub(super) struct Client<'a> {
    pub request: &'a Request,
    pub port: PortId,
    pub subnet: usize,
    pub key: ClientKey,
    /// The reserved address and its place in the configuration.
    pub reserved: Option<(Ipv4Addr, usize)>,
}

/// A reservation's client as it is looked up: an identifier that is a hardware address is one.
pub(super) fn canonical(client: &ClientMatch) -> ClientMatch {
    match client {
        ClientMatch::Id(id) => match id.as_slice() {
            [ETHERNET, a, b, c, d, e, f] => ClientMatch::Mac(MacAddr([*a, *b, *c, *d, *e, *f])),
            _ => client.clone(),
        },
        ClientMatch::Mac(_) => client.clone(),
    }
}

impl Server {
    pub(super) fn identify<'a>(
        &self,
        request: &'a Request,
        received: &Received<'_>,
    ) -> Result<Client<'a>, DropReason> {
        self.identify_from(request, received.port, received.unicast)
    }

    pub(super) fn identify_from<'a>(
        &self,
        request: &'a Request,
        port: PortId,
        unicast: bool,
    ) -> Result<Client<'a>, DropReason> {
        let subnet = self.locate(request, unicast)?;
        let (key, reserved) = self.key(request, port, subnet);
        let reserved = reserved.map(|index| (self.config.reservations[index].address, index));
        Ok(Client { request, port, subnet, key, reserved })
    }

    /// The subnet that the client is on (RFC 2131, 4.3.1): the relay's; else that of the address
    /// from which it renews across routers; else the server's own.
    fn locate(&self, request: &Request, unicast: bool) -> Result<usize, DropReason> {
        if let Some(link) = request.relayed_link() {
            return self.config.subnet_of(link).ok_or(DropReason::UnknownSubnet);
        }
        let across = unicast && !request.ciaddr.is_unspecified();
        let subnet = if across { self.config.subnet_of(request.ciaddr) } else { None };
        Ok(subnet.unwrap_or(0))
    }

    fn key(&self, request: &Request, port: PortId, subnet: usize) -> (ClientKey, Option<usize>) {
        let mac = request.mac;
        let reserved = |client| self.reserved_for.get(&(subnet, client)).copied();
        let mut key = ClientKey::from_mac(mac);
        if self.config.alone {
            key = ClientKey::from_id(&[]);
        } else if let Some(id) = &request.client_id
            && !is_hardware(id, mac)
        {
            let twin = ClientKey::from_id_and_mac(id, mac);
            key = ClientKey::from_id(id);
            let mine = self
                .leases
                .of_client(subnet, &key)
                .is_some_and(|binding| binding.state == State::Bound && binding.mac == mac);
            let has_twin = self.leases.of_client(subnet, &twin).is_some();
            if !mine && (has_twin || self.is_elsewhere(subnet, &key, mac, port)) {
                key = twin;
            } else if let Some(index) = reserved(ClientMatch::Id(id.clone())) {
                return (key, Some(index));
            }
        }
        match reserved(ClientMatch::Mac(mac)) {
            Some(index) => (ClientKey::from_mac(mac), Some(index)),
            None => (key, None),
        }
    }

    /// Whether another machine holds an address under this key.
    fn is_elsewhere(&self, subnet: usize, key: &ClientKey, mac: MacAddr, port: PortId) -> bool {
        let holder = self.leases.of_client(subnet, key);
        holder.is_some_and(|binding| {
            binding.state != State::Idle && binding.mac != mac && binding.port != port
        })
    }

    /// The client's reservation.
    pub(super) fn reservation(&self, client: &Client<'_>) -> Option<&Reservation> {
        client.reserved.map(|(_, index)| &self.config.reservations[index])
    }
}

fn is_hardware(id: &[u8], mac: MacAddr) -> bool {
    id.split_first() == Some((&ETHERNET, &mac.0[..]))
}
