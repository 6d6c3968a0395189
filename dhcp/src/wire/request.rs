//! What a client asks, as a value: every field and option that an answer depends on.

use std::net::Ipv4Addr;

use trama_frame::MacAddr;

use super::options::code;
use super::{
    BOOT_REQUEST, Hardware, IP_UDP, MAX_DATAGRAM, MIN_DATAGRAM, MessageType, Options, Packet,
};
use crate::DropReason;
use crate::config::{BootClient, HTTP_CLIENT};
use crate::name::HostName;

/// Relay agents that a message may pass (RFC 1542, 4.1.1).
const MAX_HOPS: u8 = 16;
/// Link selection, the only relay sub-option that decides anything here (RFC 3527).
const LINK_SELECTION: u8 = 5;
/// Flags of option 81 (RFC 4702, 2.1).
const FQDN_S: u8 = 1;
const FQDN_O: u8 = 2;
pub(crate) const FQDN_E: u8 = 4;

/// A client's message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What it wants.
    pub kind: MessageType,
    /// Transaction number, echoed.
    pub xid: u32,
    /// Whether answers must be broadcast.
    pub broadcast: bool,
    /// The address that the client has; unspecified if none.
    pub ciaddr: Ipv4Addr,
    /// The relay agent; unspecified if none.
    pub giaddr: Ipv4Addr,
    /// Hardware address: the one that the message names, else that of the frame's sender.
    pub mac: MacAddr,
    /// The station whose frame it came in, if that is another one.
    pub sender: Option<MacAddr>,
    /// The fields that name the hardware address, echoed.
    pub hardware: Hardware,
    /// Option 61, echoed (RFC 6842).
    pub client_id: Option<Vec<u8>>,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54: the server that the client chose.
    pub server_id: Option<Ipv4Addr>,
    /// Option 51 in seconds.
    pub lease_time: Option<u32>,
    /// Option 55; `None` asks for everything.
    pub parameters: Option<Vec<u8>>,
    /// Longest DHCP message that the client takes, in octets of UDP payload (option 57 less
    /// headers).
    pub max_len: usize,
    /// What the client calls itself, by option 81 or 12.
    pub host_name: Option<HostName>,
    /// The flags of option 81 as the answer is to have them.
    pub fqdn_flags: Option<u8>,
    /// Option 82, echoed (RFC 3046).
    pub relay_info: Option<Vec<u8>>,
    /// Option 80: an ACK may answer the DISCOVER (RFC 4039).
    pub rapid_commit: bool,
    /// What boots: options 93 (the first architecture), 77 (iPXE) and 60 (HTTP).
    pub boot: BootClient,
    /// Option 97, echoed (RFC 4578, 2.3).
    pub machine_id: Option<Vec<u8>>,
}

impl Request {
    /// Reads the payload of a UDP datagram to the server's port, sent by `station` if that is
    /// known.
    ///
    /// # Errors
    /// The reason for which the message is not a client's well-formed request.
    pub fn parse(bytes: &[u8], station: Option<MacAddr>) -> Result<Request, DropReason> {
        let packet = Packet::parse(bytes)?;
        if packet.op() != BOOT_REQUEST {
            return Err(DropReason::NotARequest);
        }
        if packet.hops() > MAX_HOPS {
            return Err(DropReason::TooManyHops);
        }
        let options = packet.options();
        let [kind] = options.fixed(code::MESSAGE_TYPE).ok_or(DropReason::MessageType)?;
        let kind = MessageType::from_number(kind).ok_or(DropReason::MessageType)?;
        if !kind.from_client() {
            return Err(DropReason::NotARequest);
        }
        let hardware = packet.hardware();
        // A relay agent's frame does not show the client's station.
        let sender = station.filter(|_| packet.giaddr().is_unspecified());
        let mac = hardware.station().or(sender).ok_or(DropReason::HardwareType)?;
        let (host_name, fqdn_flags) = names(options);
        Ok(Request {
            kind,
            xid: packet.xid(),
            // A client that names its station in an odd way may not know its own frames by it.
            broadcast: packet.broadcast() || !hardware.is_plain(),
            ciaddr: packet.ciaddr(),
            giaddr: packet.giaddr(),
            mac,
            sender: sender.filter(|sender| *sender != mac),
            hardware,
            client_id: options.bytes(code::CLIENT_ID, 2),
            requested: options.address(code::REQUESTED_ADDRESS),
            server_id: options.address(code::SERVER_ID),
            lease_time: options.fixed(code::LEASE_TIME).map(u32::from_be_bytes),
            parameters: options.bytes(code::PARAMETER_LIST, 1),
            max_len: max_len(options.fixed(code::MAX_SIZE)),
            host_name,
            fqdn_flags,
            relay_info: options.bytes(code::RELAY_INFO, 2),
            rapid_commit: options.get(code::RAPID_COMMIT).is_some(),
            boot: boot_client(options),
            machine_id: options.bytes(code::MACHINE_ID, 1),
        })
    }

    /// Whether the client wants this option: it says so, or leaves the choice to the server.
    pub fn wants(&self, code: u8) -> bool {
        self.parameters.as_ref().is_none_or(|list| list.contains(&code))
    }

    /// The link that the relay agent says the client is on: by option 82's link selection
    /// (RFC 3527) or `giaddr`. `None` without a relay.
    pub fn relayed_link(&self) -> Option<Ipv4Addr> {
        if self.giaddr.is_unspecified() {
            return None;
        }
        let selected = self.relay_info.as_deref().and_then(link_selection);
        Some(selected.unwrap_or(self.giaddr))
    }
}

/// The name by option 81 before option 12 (RFC 4702, 3.1), and the flags to answer with.
fn names(options: &Options<'_>) -> (Option<HostName>, Option<u8>) {
    let plain = options.get(code::HOST_NAME).and_then(|name| HostName::from_client(&name));
    let fqdn = options.get(code::CLIENT_FQDN);
    let Some([flags, _, _, name @ ..]) = fqdn.as_deref() else { return (plain, None) };
    let wire = flags & FQDN_E != 0;
    let name = if wire { HostName::from_wire(name) } else { HostName::from_client(name) };
    // The server answers for the name, whether the client wanted that (S) or not: O says so.
    let overrides = if flags & FQDN_S == 0 { FQDN_O } else { 0 };
    (name.or(plain), Some(FQDN_S | overrides | (flags & FQDN_E)))
}

fn max_len(option: Option<[u8; 2]>) -> usize {
    let datagram = option.map_or(MIN_DATAGRAM, u16::from_be_bytes);
    usize::from(datagram.clamp(MIN_DATAGRAM, MAX_DATAGRAM)) - IP_UDP
}

fn boot_client(options: &Options<'_>) -> BootClient {
    let class = options.get(code::VENDOR_CLASS);
    BootClient {
        architecture: options.fixed(code::CLIENT_ARCH).map(u16::from_be_bytes),
        ipxe: is_ipxe(options),
        http: class.is_some_and(|class| class.starts_with(HTTP_CLIENT)),
    }
}

/// iPXE sends its user class as plain text; RFC 3004 puts a length before each class.
fn is_ipxe(options: &Options<'_>) -> bool {
    options
        .get(code::USER_CLASS)
        .is_some_and(|class| matches!(class.as_ref(), b"iPXE" | b"\x04iPXE"))
}

/// Malformed information is echoed as it is, for it is the relay's own; it only selects nothing.
fn link_selection(mut info: &[u8]) -> Option<Ipv4Addr> {
    while let [code, length, rest @ ..] = info {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *code == LINK_SELECTION {
            return <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
        }
        info = next;
    }
    None
}
