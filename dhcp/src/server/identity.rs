//! Identifies clients: subnet, key and reservation.
//!
//! By default ([`Identity::Hardware`]) a client is identified by its hardware address: firmware,
//! boot loader and operating system of one machine each send a different identifier, and would
//! hold an address each. A nested guest with its own hardware address is a client of its own. A
//! reservation by identifier comes first.
//!
//! RFC 2131, 4.2 identifies a client by its client identifier, else by its hardware address
//! ([`Identity::ClientId`]). Two refinements keep that true for virtual machines:
//!
//! - The identifier `01` + hardware address counts as the hardware address, so that boot firmware
//!   that sends one and an operating system that does not are the same client.
//! - Copies of one disk image send the same identifier from different machines. While one of them
//!   holds an address, the hardware address also distinguishes another machine (another hardware
//!   address on another port). This also keeps a guest from taking over another guest's lease.
//!
//! On a network with one machine ([`Identity::Alone`]), that machine is the client, whatever
//! identifier it sends.

use std::net::Ipv4Addr;

use trama_frame::MacAddr;

use super::{Received, Server};
use crate::config::{ClientMatch, Identity, Reservation};
use crate::leases::policy::Claim;
use crate::leases::{Binding, State};
use crate::store::LeaseRecord;
use crate::wire::{ETHERNET, Request};
use crate::{ClientKey, DropReason, PortId};

/// A request and its client.
#[derive(Clone, Debug)]
pub(super) struct Client<'a> {
    pub request: &'a Request,
    pub claim: Claim<Ipv4Addr>,
    /// The reservation's place in the configuration.
    pub reserved: Option<usize>,
}

/// Normalises the client of a reservation: an identifier that contains a hardware address becomes
/// that address.
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
        let (key, index) = self.key(request, port, subnet);
        let reserved = index.and_then(|index| self.config.clients.reservations[index].address);
        let (mac, wanted) = (request.mac, request.requested);
        let claim = Claim { port, subnet, key, mac, reserved, wanted };
        Ok(Client { request, claim, reserved: index })
    }

    /// The subnet that the client is on (RFC 2131, 4.3.1): the relay's; else that of the address
    /// from which it renews across routers; else the server's own.
    fn locate(&self, request: &Request, unicast: bool) -> Result<usize, DropReason> {
        // spec: rfc2131 subnet
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
        let id = request.client_id.as_ref().filter(|id| !is_hardware(id, mac));
        let named = id.filter(|_| self.config.clients.identity != Identity::Alone);
        let by_id = named.and_then(|id| Some((id, reserved(ClientMatch::Id(id.clone()))?)));
        let key = match (self.config.clients.identity, id) {
            (Identity::Alone, _) => ClientKey::from_id(&[]),
            // spec: rfc2131 client-id-key chaddr-key
            (Identity::ClientId, Some(id)) => self.key_by_id(id, mac, port, subnet),
            (Identity::ClientId, None) | (Identity::Hardware, _) => {
                self.key_by_mac(request, port, subnet)
            }
        };
        if let Some((id, index)) = by_id
            && self.key_by_id(id, mac, port, subnet) == ClientKey::from_id(id)
        {
            return (ClientKey::from_id(id), Some(index));
        }
        match reserved(ClientMatch::Mac(mac)) {
            Some(index) => (ClientKey::from_mac(mac), Some(index)),
            None => (key, None),
        }
    }

    /// The key for an identifier; a key of its own for a second machine that sends the same one.
    fn key_by_id(&self, id: &[u8], mac: MacAddr, port: PortId, subnet: usize) -> ClientKey {
        let (key, twin) = (ClientKey::from_id(id), ClientKey::from_id_and_mac(id, mac));
        let mine = self
            .leases
            .of_client(subnet, &key)
            .is_some_and(|binding| binding.state == State::Bound && binding.mac == mac);
        let has_twin = self.leases.of_client(subnet, &twin).is_some();
        if !mine && (has_twin || self.is_elsewhere(subnet, &key, mac, port)) { twin } else { key }
    }

    /// The key for a hardware address. If another machine claims the address while its owner holds
    /// a lease, the source station of its frames is added.
    fn key_by_mac(&self, request: &Request, port: PortId, subnet: usize) -> ClientKey {
        let key = ClientKey::from_mac(request.mac);
        match request.sender {
            Some(sender) if self.is_elsewhere(subnet, &key, sender, port) => {
                ClientKey::from_id_and_mac(&request.mac.0, sender)
            }
            _ => key,
        }
    }

    /// The key for a stored lease. If clients were identified by identifier before and are by
    /// hardware address now, it is the hardware address. Of several leases of one machine, the
    /// machine keeps the one that ends last; the others run out without a client, so that no other
    /// client gets an address that is still in use.
    pub(super) fn key_of_stored(&mut self, subnet: usize, lease: &LeaseRecord) -> ClientKey {
        let plain = ClientKey::from_mac(lease.mac);
        let is_reserved = self.reserved_at.contains(&lease.address);
        if self.config.clients.identity != Identity::Hardware || is_reserved || lease.key == plain {
            return lease.key.clone();
        }
        let spare = |address: Ipv4Addr| ClientKey::from_id_and_mac(&address.octets(), lease.mac);
        let other = self.leases.of_client(subnet, &plain).filter(|it| it.address != lease.address);
        match other.map(|other| (other.address, other.until)) {
            Some((_, until)) if until > lease.until => return spare(lease.address),
            Some((address, _)) => {
                if let Some(other) = self.leases.take(address) {
                    self.leases.put(Binding { key: Some(spare(address)), ..other });
                }
            }
            None => {}
        }
        plain
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
        client.reserved.map(|index| &self.config.clients.reservations[index])
    }
}

fn is_hardware(id: &[u8], mac: MacAddr) -> bool {
    id.split_first() == Some((&ETHERNET, &mac.0[..]))
}
