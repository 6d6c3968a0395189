//! What a client asks, as a value: every field and option that an answer depends on.

use std::net::Ipv4Addr;

use trama_frame::MacAddr;

use super::options::code;
use super::{BOOT_REQUEST, IP_UDP, MAX_DATAGRAM, MIN_DATAGRAM, MessageType, Options, Packet};
use crate::DropReason;
use crate::name::HostName;

/// Longest client identifier, boot class and relay information that is kept.
const MAX_VALUE: usize = 255;
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
    /// Hardware address.
    pub mac: MacAddr,
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
    /// Option 93: the first processor architecture that the boot client names.
    pub architecture: Option<u16>,
    /// Whether the client is iPXE (user class `iPXE`).
    pub ipxe: bool,
    /// Option 97, echoed (RFC 4578, 2.3).
    pub machine_id: Option<Vec<u8>>,
}

impl Request {
    /// Reads the payload of a UDP datagram to the server's port.
    ///
    /// # Errors
    /// The reason for which the message is not a client's well-formed request.
    pub fn parse(bytes: &[u8]) -> Result<Request, DropReason> {
        let packet = Packet::parse(bytes)?;
        if packet.op() != BOOT_REQUEST {
            return Err(DropReason::NotARequest);
        }
        if packet.hops() > MAX_HOPS {
            return Err(DropReason::TooManyHops);
        }
        let options = packet.options();
        let [kind] = options.fixed(code::MESSAGE_TYPE)?.ok_or(DropReason::MessageType)?;
        let kind = MessageType::from_number(kind).ok_or(DropReason::MessageType)?;
        if !kind.from_client() {
            return Err(DropReason::NotARequest);
        }
        let (host_name, fqdn_flags) = names(options)?;
        Ok(Request {
            kind,
            xid: packet.xid(),
            broadcast: packet.broadcast(),
            ciaddr: packet.ciaddr(),
            giaddr: packet.giaddr(),
            mac: packet.hardware(),
            client_id: options.bytes(code::CLIENT_ID, 2, MAX_VALUE)?,
            requested: options.address(code::REQUESTED_ADDRESS)?,
            server_id: options.address(code::SERVER_ID)?,
            lease_time: options.fixed(code::LEASE_TIME)?.map(u32::from_be_bytes),
            parameters: options.bytes(code::PARAMETER_LIST, 1, MAX_VALUE)?,
            max_len: max_len(options.fixed(code::MAX_SIZE)?),
            host_name,
            fqdn_flags,
            relay_info: options.bytes(code::RELAY_INFO, 2, MAX_VALUE)?,
            rapid_commit: options.fixed::<0>(code::RAPID_COMMIT)?.is_some(),
            architecture: architecture(options)?,
            ipxe: is_ipxe(options),
            machine_id: options.bytes(code::MACHINE_ID, 1, MAX_VALUE)?,
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
fn names(options: &Options<'_>) -> Result<(Option<HostName>, Option<u8>), DropReason> {
    let plain = options.get(code::HOST_NAME).and_then(|name| HostName::from_client(&name));
    let Some(fqdn) = options.get(code::CLIENT_FQDN) else { return Ok((plain, None)) };
    let [flags, _, _, ref name @ ..] = *fqdn else { return Err(DropReason::OptionLength) };
    let wire = flags & FQDN_E != 0;
    let name = if wire { HostName::from_wire(name) } else { HostName::from_client(name) };
    // The server answers for the name, whether the client wanted that (S) or not: O says so.
    let overrides = if flags & FQDN_S == 0 { FQDN_O } else { 0 };
    Ok((name.or(plain), Some(FQDN_S | overrides | (flags & FQDN_E))))
}

fn max_len(option: Option<[u8; 2]>) -> usize {
    let datagram = option.map_or(MIN_DATAGRAM, u16::from_be_bytes);
    usize::from(datagram.clamp(MIN_DATAGRAM, MAX_DATAGRAM)) - IP_UDP
}

fn architecture(options: &Options<'_>) -> Result<Option<u16>, DropReason> {
    match options.get(code::CLIENT_ARCH).as_deref() {
        None => Ok(None),
        Some([high, low, rest @ ..]) if rest.len() % 2 == 0 => {
            Ok(Some(u16::from_be_bytes([*high, *low])))
        }
        Some(_) => Err(DropReason::OptionLength),
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
