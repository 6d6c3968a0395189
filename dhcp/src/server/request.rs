//! REQUEST: commit a lease or refuse it (RFC 2131, 4.3.2).
//!
//! | the client is | server id | requested address | `ciaddr` |
//! |---|---|---|---|
//! | SELECTING | the chosen server | the offered address | – |
//! | INIT-REBOOT | – | its former address | – |
//! | RENEWING, REBINDING | – | – | its address |

use std::net::Ipv4Addr;
use std::time::Duration;

use super::identity::Client;
use super::{Event, Outcome, Server};
use crate::DropReason;
use crate::config::LeaseTimes;
use crate::leases::State;
use crate::name::HostName;
use crate::store::Record;
use crate::time::whole_seconds;
use crate::wire::MessageType;

impl Server {
    pub(super) fn request(
        &mut self,
        client: &Client<'_>,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let request = client.request;
        // spec: rfc2131 other-server
        if request.server_id.is_some_and(|id| !self.is_me(id)) {
            self.withdraw_offer(client);
            return Err(DropReason::OtherServer);
        }
        let has_address = !request.ciaddr.is_unspecified();
        let wanted = if has_address { Some(request.ciaddr) } else { request.requested };
        let wanted = wanted.ok_or(DropReason::MessageType)?;
        // spec: rfc2131 invalid-nak reboot-nak rebind-check
        if !self.config.subnets[client.claim.subnet].prefix.contains(&wanted) {
            return self.refuse(client, (wanted, "the address belongs to another subnet"), out);
        }
        let own = self.leases.own(&client.claim);
        let keep = own.is_some_and(|own| self.leases.may_keep(&client.claim, own));
        match own.map(|binding| (binding.address, binding.state)) {
            Some((address, State::Probing)) if address == wanted => Err(DropReason::Probing),
            Some((address, _)) if address == wanted => {
                if !keep || !self.leases.is_allowed(&client.claim, wanted) {
                    return self.refuse(
                        client,
                        (wanted, "the address is not for this client"),
                        out,
                    );
                }
                // spec: rfc2131 select-no-probe reboot-no-probe
                self.commit(client, wanted, out);
                Ok(())
            }
            // The offer was its reserved address, in place of its current one.
            Some((_, State::Bound)) if self.leases.free_reserved(&client.claim) == Some(wanted) => {
                self.commit(client, wanted, out);
                Ok(())
            }
            Some((_, State::Bound | State::Offered | State::Probing)) => {
                self.refuse(client, (wanted, "the client has another address"), out)
            }
            _ => self.request_unknown(client, wanted, has_address, out),
        }
    }

    /// A request for an address without a binding of the client: the offer was forgotten, or the
    /// lease was lost or comes from another server.
    fn request_unknown(
        &mut self,
        client: &Client<'_>,
        wanted: Ipv4Addr,
        has_address: bool,
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let selecting = client.request.server_id.is_some();
        // spec: rfc2131 unsure-silent reboot-unknown
        if !selecting && !self.config.authoritative {
            return Err(DropReason::UnknownClient);
        }
        // A client that uses the address or was offered it may keep it if no other client has it.
        // After a restart another host might use it: the client has to start over.
        if (selecting || has_address) && self.leases.may_adopt(&client.claim, wanted) {
            self.commit(client, wanted, out);
            return Ok(());
        }
        // spec: rfc2131 select-nak
        self.refuse(client, (wanted, "the address is not available"), out)
    }

    /// Whether that server identifier means this server.
    pub(super) fn is_me(&self, id: Ipv4Addr) -> bool {
        // spec: rfc2131 own-addresses
        self.config.subnets.iter().any(|subnet| subnet.server == id)
    }

    fn withdraw_offer(&mut self, client: &Client<'_>) {
        let Some(own) = self.leases.own(&client.claim) else { return };
        if !matches!(own.state, State::Offered | State::Probing) {
            return;
        }
        if let Some(binding) = self.leases.take(own.address).filter(|binding| binding.known) {
            self.leases.retire(binding, self.now);
        }
    }

    /// Leases the address: the record first, the ACK when that is durable.
    pub(super) fn commit(&mut self, client: &Client<'_>, address: Ipv4Addr, out: &mut Outcome) {
        let seconds = self.lease_time(client);
        let until = self.now + Duration::from_secs(seconds.into());
        let name = self.name_for(client);
        let (lease, renewed) = self.leases.lease(&client.claim, address, until, name.clone());
        let (mac, port) = (lease.mac, lease.port);
        Record::Lease(lease).emit(&mut out.records);
        out.events.push(Event::Leased { address, mac, port, name, until, renewed });
        let reply = self.give(client, MessageType::Ack, address);
        self.counters.count_sent(MessageType::Ack);
        out.confirmed.push(reply);
    }

    /// The lease time in seconds: what the client asks for, within the limits.
    pub(super) fn lease_time(&self, client: &Client<'_>) -> u32 {
        // spec: rfc2131 time-default time-asked
        let LeaseTimes { default, min, max } =
            self.config.subnets[client.claim.subnet].settings.lease;
        let seconds = client.request.lease_time.unwrap_or(whole_seconds(default));
        seconds.clamp(whole_seconds(min), whole_seconds(max))
    }

    /// The reserved name, else the client's own unless it is reserved for another.
    pub(super) fn name_for(&self, client: &Client<'_>) -> Option<HostName> {
        if let Some(name) = self.reservation(client).and_then(|reserved| reserved.name.clone()) {
            return Some(name);
        }
        let name = client.request.host_name.as_ref()?;
        (!self.reserved_names.contains_key(name)).then(|| name.clone())
    }

    /// Refuses with a NAK that says why.
    fn refuse(
        &mut self,
        client: &Client<'_>,
        (address, why): (Ipv4Addr, &'static str),
        out: &mut Outcome,
    ) -> Result<(), DropReason> {
        let reply = self.nak(client, why);
        self.counters.count_sent(MessageType::Nak);
        let (mac, port) = (client.request.mac, client.claim.port);
        out.events.push(Event::Refused { address, mac, port, why });
        out.replies.push(reply);
        Ok(())
    }
}
