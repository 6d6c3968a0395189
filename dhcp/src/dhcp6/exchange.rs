//! Answers to each message type of clients (RFC 8415, 18.3).

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{code, kind};
use super::reply::{Association, status};
use super::server::{Asked, Event6, Outcome6, Server6, ended};
use crate::DropReason;
use crate::leases::State;
use crate::leases::policy::Probe;
use crate::server::End;
use crate::store::Record;
use crate::time::whole_seconds;

impl Server6 {
    pub(super) fn dispatch(
        &mut self,
        asked: &Asked<'_>,
        out: &mut Outcome6,
    ) -> Result<(), DropReason> {
        match asked.message.kind {
            kind::SOLICIT => return self.solicit(asked, out),
            kind::REQUEST | kind::RENEW | kind::REBIND => return self.extend(asked, out),
            kind::RELEASE | kind::DECLINE => self.give_up(asked, out),
            kind::CONFIRM => return self.confirm(asked, out),
            _ => {
                let reply = self.answer(asked, kind::REPLY, &Association::None);
                out.replies.push(reply);
            }
        }
        Ok(())
    }

    fn solicit(&mut self, asked: &Asked<'_>, out: &mut Outcome6) -> Result<(), DropReason> {
        let choice = match self.leases.choose(&asked.claim) {
            Ok(choice) if asked.named.is_some() => choice,
            nothing => {
                let reply = self.answer(asked, kind::ADVERTISE, &Association::None);
                out.replies.push(reply);
                // A stateless server refuses no client.
                if let Err(reason) = nothing.map(drop)
                    && self.pool_size() > 0
                {
                    self.drops.count(reason);
                    let (station, port) = (asked.claim.mac, asked.claim.port);
                    out.events.push(Event6::Refused { station, port, reason });
                }
                return Ok(());
            }
        };
        let address = choice.address;
        match (self.config.probe, choice.probe) {
            _ if self.leases.has_lease(&asked.claim) => self.offer(asked, address, out),
            (Some(time), Probe::Needed) => {
                out.probes.push(address);
                self.probe(asked, address, self.now + time);
            }
            (Some(_), Probe::Running(until)) => {
                self.probe(asked, address, until);
                return Err(DropReason::Probing);
            }
            (None, _) | (_, Probe::Done) => self.offer(asked, address, out),
        }
        Ok(())
    }

    fn probe(&mut self, asked: &Asked<'_>, address: Ipv6Addr, until: crate::Time) {
        let pending = Some(Server6::solicit_of(asked));
        self.leases.hold(&asked.claim, address, (State::Probing, until), pending);
    }

    pub(super) fn offer(&mut self, asked: &Asked<'_>, address: Ipv6Addr, out: &mut Outcome6) {
        if asked.message.get(code::RAPID_COMMIT).is_some() {
            return self.commit(asked, address, out);
        }
        if !self.leases.has_lease(&asked.claim) {
            let until = self.now + self.config.offer_hold;
            self.leases.hold(&asked.claim, address, (State::Offered, until), None);
        }
        let reply = self.answer(asked, kind::ADVERTISE, &Association::Lease(address));
        out.replies.push(reply);
    }

    /// REQUEST, RENEW, REBIND: leases the client's own address. A free address that the client
    /// names is leased too, as the server may have lost the offer or the lease.
    fn extend(&mut self, asked: &Asked<'_>, out: &mut Outcome6) -> Result<(), DropReason> {
        let claim = &asked.claim;
        if self.leases.own(claim).is_some_and(|own| own.state == State::Probing) {
            return Err(DropReason::Probing);
        }
        let named = asked.named.as_deref().unwrap_or_default();
        let own = self.leases.own(claim).filter(|own| {
            self.leases.is_allowed(claim, own.address) && self.leases.may_keep(claim, own)
        });
        let own = self.leases.free_reserved(claim).or(own.map(|own| own.address));
        let adopted = || named.iter().copied().find(|it| self.leases.may_adopt(claim, *it));
        if asked.named.is_some()
            && let Some(address) = own.or_else(adopted)
        {
            self.commit(asked, address, out);
            return Ok(());
        }
        let elsewhere = named.iter().any(|address| !self.config.contains(*address));
        let refusal = match asked.message.kind {
            kind::REQUEST if elsewhere => Association::Status(status::NOT_ON_LINK),
            kind::REQUEST => Association::None,
            // The client must stop using them.
            kind::REBIND if !named.is_empty() => Association::Lapsed,
            _ => Association::Status(status::NO_BINDING),
        };
        let reply = self.answer(asked, kind::REPLY, &refusal);
        out.replies.push(reply);
        Ok(())
    }

    /// Leases the address: the record first, the REPLY when that is durable.
    fn commit(&mut self, asked: &Asked<'_>, address: Ipv6Addr, out: &mut Outcome6) {
        let until = self.now + Duration::from_secs(whole_seconds(self.config.lease).into());
        let reservations = &self.config.clients.reservations;
        let reserved = asked.reservation.map(|index| &reservations[index]);
        let name = reserved.and_then(|it| it.name.clone()).or_else(|| {
            let name = asked.message.host_name()?;
            let mut here = reservations.iter().filter(|it| it.address6.is_some());
            (!here.any(|other| other.name.as_ref() == Some(&name))).then_some(name)
        });
        let (lease, renewed) = self.leases.lease(&asked.claim, address, until, name);
        if !renewed {
            let (station, port, name) = (lease.mac, lease.port, lease.name.clone());
            out.events.push(Event6::Leased { address, station, port, name });
        }
        Record::Lease6(lease).emit(&mut out.records);
        let reply = self.answer(asked, kind::REPLY, &Association::Lease(address));
        out.confirmed.push(reply);
    }

    /// RELEASE and DECLINE, for the client's own address only. The message as a whole succeeds;
    /// only an association that is not the client's gets a status (RFC 8415, 18.3.7 and 18.3.8).
    fn give_up(&mut self, asked: &Asked<'_>, out: &mut Outcome6) {
        let mut result = Association::Status(status::NO_BINDING);
        for address in asked.named.as_deref().unwrap_or_default() {
            let Ok(binding) = self.leases.give_up(&asked.claim, *address) else { continue };
            result = Association::Confirmed(status::SUCCESS);
            let is_declined = asked.message.kind == kind::DECLINE;
            if binding.state == State::Bound {
                let how = if is_declined { End::Declined } else { End::Released };
                out.events.push(ended(&binding, how));
            }
            if is_declined {
                Record::Freed6(*address).emit(&mut out.records);
                self.leases.quarantine(binding, self.now + self.config.quarantine);
            } else if binding.known {
                let record = binding.record(self.now);
                record.into_iter().for_each(|it| Record::Lease6(it).emit(&mut out.records));
                self.leases.retire(binding, self.now);
            }
        }
        let reply = self.answer(asked, kind::REPLY, &result);
        out.confirmed.push(reply);
    }

    /// CONFIRM: whether the addresses are still on the link (RFC 8415, 18.3.3).
    fn confirm(&mut self, asked: &Asked<'_>, out: &mut Outcome6) -> Result<(), DropReason> {
        let named = asked.named.as_deref().filter(|named| !named.is_empty());
        let named = named.ok_or(DropReason::MessageType)?;
        let here = named.iter().all(|address| self.config.contains(*address));
        let status = if here { status::SUCCESS } else { status::NOT_ON_LINK };
        let reply = self.answer(asked, kind::REPLY, &Association::Confirmed(status));
        out.replies.push(reply);
        Ok(())
    }
}
