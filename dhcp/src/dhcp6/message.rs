//! Parses a client's message, and appends options to an answer.

use std::net::Ipv6Addr;

use crate::DropReason;
use crate::config::{BootClient, HTTP_CLIENT};
use crate::name::HostName;

/// Longest message accepted, in octets.
const MAX_READ: usize = 1500;
/// Enterprise number under which UEFI firmware names its vendor class (Intel's).
const UEFI_ENTERPRISE: [u8; 4] = 343u32.to_be_bytes();

/// Message types (RFC 8415, 7.3).
pub(super) mod kind {
    pub(crate) const SOLICIT: u8 = 1;
    pub(crate) const ADVERTISE: u8 = 2;
    pub(crate) const REQUEST: u8 = 3;
    pub(crate) const CONFIRM: u8 = 4;
    pub(crate) const RENEW: u8 = 5;
    pub(crate) const REBIND: u8 = 6;
    pub(crate) const REPLY: u8 = 7;
    pub(crate) const RELEASE: u8 = 8;
    pub(crate) const DECLINE: u8 = 9;
    pub(crate) const INFORMATION_REQUEST: u8 = 11;
}

/// One more than the highest message type that is counted.
pub const KINDS: usize = 12;

/// The name of a message type; `None` if it is neither read nor sent.
pub fn kind_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        kind::SOLICIT => "solicit",
        kind::ADVERTISE => "advertise",
        kind::REQUEST => "request",
        kind::CONFIRM => "confirm",
        kind::RENEW => "renew",
        kind::REBIND => "rebind",
        kind::REPLY => "reply",
        kind::RELEASE => "release",
        kind::DECLINE => "decline",
        kind::INFORMATION_REQUEST => "information-request",
        _ => return None,
    })
}

/// Option codes (RFC 8415, 21; RFC 3646; RFC 4704; RFC 5908; RFC 5970).
pub(super) mod code {
    pub(crate) const CLIENT_ID: u16 = 1;
    pub(crate) const SERVER_ID: u16 = 2;
    pub(crate) const IA_NA: u16 = 3;
    pub(crate) const IA_TA: u16 = 4;
    pub(crate) const IA_ADDRESS: u16 = 5;
    pub(crate) const OPTION_REQUEST: u16 = 6;
    pub(crate) const STATUS: u16 = 13;
    pub(crate) const RAPID_COMMIT: u16 = 14;
    pub(crate) const USER_CLASS: u16 = 15;
    pub(crate) const VENDOR_CLASS: u16 = 16;
    pub(crate) const DNS: u16 = 23;
    pub(crate) const DOMAINS: u16 = 24;
    pub(crate) const IA_PD: u16 = 25;
    pub(crate) const REFRESH_TIME: u16 = 32;
    pub(crate) const CLIENT_FQDN: u16 = 39;
    pub(crate) const NTP: u16 = 56;
    pub(crate) const BOOT_FILE: u16 = 59;
    pub(crate) const BOOT_PARAMETERS: u16 = 60;
    pub(crate) const CLIENT_ARCH: u16 = 61;
}

/// A client's message.
pub(super) struct Message<'a> {
    pub kind: u8,
    pub transaction: [u8; 3],
    pub options: Options<'a>,
}

/// Options in order, up to the first that runs past the end (RFC 8415, 16, lets a server use what
/// it can of such a message).
pub(super) struct Options<'a>(pub Vec<(u16, &'a [u8])>);

impl<'a> Options<'a> {
    pub(super) fn parse(mut rest: &'a [u8]) -> Options<'a> {
        let mut options = Vec::new();
        while let [c0, c1, l0, l1, value @ ..] = rest {
            let length = u16::from_be_bytes([*l0, *l1]);
            let Some((value, next)) = value.split_at_checked(length.into()) else { break };
            options.push((u16::from_be_bytes([*c0, *c1]), value));
            rest = next;
        }
        Options(options)
    }

    pub(super) fn get(&self, code: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|option| option.0 == code).map(|option| option.1)
    }
}

impl<'a> Message<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Message<'a>, DropReason> {
        let [kind, a, b, c, options @ ..] = payload else { return Err(DropReason::TooShort) };
        if payload.len() > MAX_READ {
            return Err(DropReason::TooLong);
        }
        let options = Options::parse(options);
        Ok(Message { kind: *kind, transaction: [*a, *b, *c], options })
    }

    pub(super) fn get(&self, code: u16) -> Option<&'a [u8]> {
        self.options.get(code)
    }

    /// Associations that are long enough to contain an identifier.
    pub(super) fn associations(&self) -> impl Iterator<Item = (u16, &'a [u8])> + '_ {
        let is_one = |code| matches!(code, code::IA_NA | code::IA_TA | code::IA_PD);
        let whole = |value: &[u8], code| value.len() >= association_len(code);
        let options = self.options.0.iter().copied();
        options.filter(move |(code, value)| is_one(*code) && whole(value, *code))
    }

    /// The first association for an address: its identifier, and the addresses that it names.
    pub(super) fn association(&self) -> Option<([u8; 4], Vec<Ipv6Addr>)> {
        let (_, value) = self.associations().find(|(code, _)| *code == code::IA_NA)?;
        let options = Options::parse(value.get(association_len(code::IA_NA)..)?);
        let addresses = options.0.iter().filter_map(|(code, value)| {
            let octets: [u8; 16] = *value.first_chunk()?;
            (*code == code::IA_ADDRESS).then(|| octets.into())
        });
        Some((*value.first_chunk()?, addresses.collect()))
    }

    /// Whether the client asks for this option, or leaves the choice to the server.
    pub(super) fn wants(&self, code: u16) -> bool {
        let list = self.get(code::OPTION_REQUEST);
        list.is_none_or(|list| list.chunks(2).any(|pair| pair == code.to_be_bytes()))
    }

    /// How the client boots: options 61 (the first architecture), 15 (iPXE) and 16 (HTTP).
    pub(super) fn boot(&self) -> BootClient {
        let architecture = self.get(code::CLIENT_ARCH).and_then(|list| list.first_chunk());
        let is_ipxe = |class: &[u8]| class.windows(4).any(|text| text == b"iPXE");
        BootClient {
            architecture: architecture.map(|number| u16::from_be_bytes(*number)),
            ipxe: self.get(code::USER_CLASS).is_some_and(is_ipxe),
            http: self.http_class().is_some(),
        }
    }

    /// Returns the vendor class to answer firmware that boots by HTTP with, a prefix of its own
    /// (UEFI 2.10, 24.7); `None` for other clients. PXE firmware would mistake an answer with its
    /// class for the answer of a boot server.
    pub(super) fn http_class(&self) -> Option<Vec<u8>> {
        let (enterprise, class) = self.get(code::VENDOR_CLASS)?.split_first_chunk::<4>()?;
        let (_, text) = class.split_first_chunk::<2>()?;
        let length = (HTTP_CLIENT.len() as u16).to_be_bytes();
        (*enterprise == UEFI_ENTERPRISE && text.starts_with(HTTP_CLIENT))
            .then(|| [&UEFI_ENTERPRISE[..], &length, HTTP_CLIENT].concat())
    }

    /// The name that the client asks for (RFC 4704).
    pub(super) fn host_name(&self) -> Option<HostName> {
        HostName::from_wire(self.get(code::CLIENT_FQDN)?.get(1..)?)
    }
}

/// Octets of an association before its options.
pub(super) fn association_len(code: u16) -> usize {
    if code == code::IA_TA { 4 } else { 12 }
}

/// Appends an option. Values are far shorter than the 64 KiB that the length field allows.
pub(super) fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}
