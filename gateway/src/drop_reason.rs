//! Why the gateway dropped something: a reason of a service, or one of the NAT.

use std::collections::BTreeMap;

pub use service::DropReason as ServiceDrop;
pub use trama_nat::DropReason as NatDrop;

mod service {
    trama_frame::drop_reasons! {
        "Why a service of the gateway dropped a frame or message."
        Fragment "fragment"
            "A fragment of a multicast or broadcast packet."
        ClosedPort "closed_port"
            "UDP to a closed port."
        BadDns "bad_dns"
            "Not a DNS query; answered with FORMERR unless it is a response."
        DnsLimit "dns_limit"
            "Too many DNS queries of the sender; answered with SERVFAIL."
        DnsUnasked "dns_unasked"
            "A message from a DNS server that answers no query."
        BadTftp "bad_tftp"
            "Not a TFTP packet for a server."
        TftpLimit "tftp_limit"
            "Too many TFTP transfers of the sender, or in total."
        DhcpRefused "dhcp_refused"
            "Not answered by the DHCP server; its own counters give the reason."
        Throttled "throttled"
            "A request that is being answered already."
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
