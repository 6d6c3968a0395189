//! Why a packet was not answered: one enum that is also the index of the counters and the `reason`
//! label of their metrics.

trama_frame::drop_reasons! {
    "Why a packet was not answered."
    TooShort "too_short"
        "The message ends inside its fixed header: the client is at fault."
    TooLong "too_long"
        "The message is longer than any DHCP message may be: the client is at fault."
    NotARequest "not_a_request"
        "Not a client message: look for a second DHCP server on the network."
    HardwareType "hardware_type"
        "The hardware address has more than 16 octets, or a relay agent passed one on that is not the Ethernet address of a station: the client is at fault."
    NoMagicCookie "no_magic_cookie"
        "The message is plain BOOTP, without DHCP options: configure the client for DHCP."
    OptionOverrun "option_overrun"
        "An option of a router solicitation runs past its end: the client is at fault."
    OptionLength "option_length"
        "A DUID or an option of a router solicitation has a length that its definition forbids: the client is at fault."
    MessageType "message_type"
        "The message type is absent, unknown or contradicts other fields: the client is at fault."
    TooManyHops "too_many_hops"
        "The message went through more than 16 relays: look for a loop of relay agents."
    UnknownSubnet "unknown_subnet"
        "The address of the client or of its relay agent is in no subnet that is served there: add the subnet, or remove the relay."
    OtherServer "other_server"
        "The client chose another server: look for a second DHCP server if there should be none."
    NotHolder "not_holder"
        "The client releases or declines an address that it does not hold there: nothing to do."
    UnknownClient "unknown_client"
        "The client asks for an address that this server does not know, and the server is not authoritative: nothing to do."
    Probing "probing"
        "The address is still being probed for another user; the offer follows: nothing to do."
    PoolFull "pool_full"
        "Every address of the subnet is in use: enlarge its ranges or shorten its lease time."
    PortFull "port_full"
        "The port holds as many addresses as one port may: raise the limit if its clients are real."
    Throttled "throttled"
        "An answer is already due, or too many requests wait: nothing to do."
    Checksum "checksum"
        "The packet's checksum is wrong: the sender's driver or its offloads are at fault."
    NotLinkLocal "not_link_local"
        "The packet came through a router, or its source address may not send it: nothing to do."
}

/// How often each reason occurred.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropCounters([u64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> DropCounters {
        DropCounters([0; DropReason::COUNT])
    }
}

impl DropCounters {
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How many packets were dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn indices_names_and_descriptions_are_usable() {
        let mut names = HashSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let name = reason.name();
            assert!(names.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(reason.describe().contains(':'), "{name}: says no remedy");
            assert!(reason.describe().ends_with('.') && !reason.describe().contains('\n'));
        }
        let mut counters = DropCounters::default();
        counters.count(DropReason::PoolFull);
        assert_eq!(counters.get(DropReason::PoolFull), 1);
        assert_eq!(counters.get(DropReason::PortFull), 0);
    }
}
