//! Why the gateway dropped something: a reason of a service, or one of the NAT.

use std::collections::BTreeMap;

pub use service::DropReason as ServiceDrop;
pub use trama_nat::DropReason as NatDrop;
use trama_nat::PortMark;

mod service {
    trama_frame::drop_reasons! {
        "Why a service of the gateway dropped a frame or message."
        Fragment "fragment"
            "The frame is a fragment of a multicast or broadcast packet, which is not reassembled: lower the size of the sender's datagrams."
        ClosedPort "closed_port"
            "The UDP datagram is for a port of the gateway where nothing listens: check which of the network's services are on."
        BadDns "bad_dns"
            "The message is not a DNS query; it was answered with FORMERR unless it is a response: check the sender."
        DnsLimit "dns_limit"
            "The port has too many DNS queries under way, and this one was answered with SERVFAIL: check the host's resolvers, or let the guest ask less."
        DnsUnasked "dns_unasked"
            "A message from a DNS server answers no query: no action is needed unless there are many."
        BadTftp "bad_tftp"
            "The datagram is not a TFTP packet for a server: check the sender."
        TftpLimit "tftp_limit"
            "The port, or all ports together, have too many TFTP transfers: start fewer guests at once."
        DhcpRefused "dhcp_refused"
            "The DHCP server did not answer; its own counters give the reason: see `trama_dhcp_refused_total`."
        Throttled "throttled"
            "The request is being answered already: no action is needed."
    }
}

/// Why the gateway dropped a frame or message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// A reason of a service alone.
    Service(ServiceDrop),
    /// A reason of the NAT. Services have some of these, too.
    Nat(NatDrop),
}

impl DropReason {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = DropReason> {
        let service = ServiceDrop::ALL.iter().copied().map(DropReason::Service);
        service.chain(NatDrop::ALL.iter().copied().map(DropReason::Nat))
    }

    /// The metric label, in snake case.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Service(reason) => reason.name(),
            DropReason::Nat(reason) => reason.name(),
        }
    }

    /// One line for people: what happened, and what to do about it.
    pub fn describe(self) -> &'static str {
        match self {
            DropReason::Service(reason) => reason.describe(),
            DropReason::Nat(reason) => reason.describe(),
        }
    }

    /// Returns the reason with this label.
    pub fn named(name: &str) -> Option<DropReason> {
        DropReason::all().find(|reason| reason.name() == name)
    }
}

impl From<ServiceDrop> for DropReason {
    fn from(reason: ServiceDrop) -> DropReason {
        DropReason::Service(reason)
    }
}

impl From<NatDrop> for DropReason {
    fn from(reason: NatDrop) -> DropReason {
        DropReason::Nat(reason)
    }
}

/// Counters of a gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Frames, and drops for the reasons of the NAT.
    pub frames: trama_nat::Counters,
    service: Vec<u64>,
}

impl Default for Counters {
    fn default() -> Counters {
        let frames = trama_nat::Counters::default();
        Counters { frames, service: vec![0; ServiceDrop::COUNT] }
    }
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&mut self, reason: impl Into<DropReason>) {
        match reason.into() {
            DropReason::Service(reason) => self.service[reason as usize] += 1,
            DropReason::Nat(reason) => self.frames.drop(reason),
        }
    }

    /// Counts one dropped frame or message of a port.
    pub fn drop_from(&mut self, port: PortMark, reason: impl Into<DropReason>) {
        let reason = reason.into();
        self.drop(reason);
        self.frames.count_at(port, reason.name());
    }

    /// Drops for one reason.
    pub fn dropped(&self, reason: impl Into<DropReason>) -> u64 {
        match reason.into() {
            DropReason::Service(reason) => self.service[reason as usize],
            DropReason::Nat(reason) => self.frames.dropped(reason),
        }
    }

    /// Drops by label, without zeros.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let counted = DropReason::all().map(|reason| (reason, self.dropped(reason)));
        let counted = counted.filter(|(_, count)| *count > 0);
        counted.map(|(reason, count)| (reason.name().to_owned(), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_found_by_its_label_and_says_what_to_do() {
        for reason in DropReason::all() {
            assert_eq!(DropReason::named(reason.name()), Some(reason));
            let text = reason.describe();
            assert!(text.contains(": ") && text.ends_with('.'), "{}: {text}", reason.name());
        }
        assert_eq!(DropReason::named("bad_luck"), None);
    }
}
