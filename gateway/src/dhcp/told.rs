//! What the daemon is told of leases. A renewal is no event.

use std::net::IpAddr;

use trama_dhcp::DropReason as Refusal;
use trama_dhcp::dhcp6::Event6;
use trama_dhcp::name::HostName;
use trama_dhcp::server::{End, Event};
use trama_frame::MacAddr;

use crate::event::{self, LeaseChange, LeaseEvent};
use crate::shared::Shared;

/// Tells of an event of the DHCPv4 server.
pub(super) fn of(shared: &mut Shared, event: &Event) {
    match event {
        Event::Leased { address, mac, port, name, renewed: false, .. } => {
            let lease = ((*address).into(), name.as_ref());
            tell(shared, (port.0, *mac), Some(lease), LeaseChange::Leased);
        }
        Event::Ended { address, mac, port, how } => {
            tell(shared, (port.0, *mac), Some(((*address).into(), None)), change_of(*how));
        }
        Event::Conflict { address, user, port } => {
            let lease = ((*address).into(), None);
            tell(shared, (port.0, *user), Some(lease), LeaseChange::Conflict);
        }
        Event::Refused { address, mac, port, why } => {
            let lease = ((*address).into(), None);
            tell(shared, (port.0, *mac), Some(lease), LeaseChange::Refused((*why).to_owned()));
        }
        Event::Leased { renewed: true, .. } | Event::Probe { .. } => {}
    }
}

/// Tells of an event of the DHCPv6 server.
pub(super) fn of6(shared: &mut Shared, event: &Event6) {
    match event {
        Event6::Leased { address, station, port, name } => {
            let lease = ((*address).into(), name.as_ref());
            tell(shared, (port.0, *station), Some(lease), LeaseChange::Leased);
        }
        Event6::Ended { address, station, port, how } => {
            tell(shared, (port.0, *station), Some(((*address).into(), None)), change_of(*how));
        }
        Event6::Refused { station, port, reason } => {
            refused(shared, (port.0, *station), *reason);
        }
    }
}

/// Tells of a client that gets no address because there is none for it.
pub(super) fn refused(shared: &mut Shared, client: (u64, MacAddr), reason: Refusal) {
    if matches!(reason, Refusal::PoolFull | Refusal::PortFull) {
        tell(shared, client, None, LeaseChange::Refused(reason.name().to_owned()));
    }
}

fn change_of(how: End) -> LeaseChange {
    match how {
        End::Expired => LeaseChange::Expired,
        End::Released => LeaseChange::Released,
        End::Declined => LeaseChange::Declined,
    }
}

fn tell(
    shared: &mut Shared,
    (port, mac): (u64, MacAddr),
    lease: Option<(IpAddr, Option<&HostName>)>,
    change: LeaseChange,
) {
    if !shared.config.tells_events {
        return;
    }
    let address = lease.map(|(address, _)| address);
    let name = lease.and_then(|(_, name)| name).map(|name| name.as_str().to_owned());
    let lease = LeaseEvent { port, mac: mac.0, address, name, change };
    shared.events.push(event::Event::Lease(lease));
}
