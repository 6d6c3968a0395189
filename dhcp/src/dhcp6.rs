//! Stateless DHCPv6 (RFC 8415): parameters for hosts that have addresses already.
//!
//! An INFORMATION-REQUEST is answered with what it asks for. A client that wants addresses or
//! prefixes is told that there are none, so that it does not keep asking. There is no state, hence
//! no time and no seed: one message in, at most one out, to where it came from.

use std::net::Ipv6Addr;

use trama_frame::MacAddr;

use crate::DropReason;
use crate::name::DomainName;

/// UDP port of servers.
pub const SERVER_PORT: u16 = 547;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 546;

/// Longest message that is read, in octets.
const MAX_READ: usize = 1500;
/// Longest DUID (RFC 8415, 11.1).
const MAX_DUID: usize = 130;
/// Identity associations that an answer speaks of.
const MAX_ASSOCIATIONS: usize = 8;

/// Message types (RFC 8415, 7.3).
mod kind {
    pub const SOLICIT: u8 = 1;
    pub const ADVERTISE: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const RENEW: u8 = 5;
    pub const REBIND: u8 = 6;
    pub const REPLY: u8 = 7;
    pub const RELEASE: u8 = 8;
    pub const DECLINE: u8 = 9;
    pub const INFORMATION_REQUEST: u8 = 11;
}

/// Option codes (RFC 8415, 21; RFC 3646; RFC 5908).
mod code {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const OPTION_REQUEST: u16 = 6;
    pub const STATUS: u16 = 13;
    pub const DNS: u16 = 23;
    pub const DOMAINS: u16 = 24;
    pub const IA_PD: u16 = 25;
    pub const REFRESH_TIME: u16 = 32;
    pub const NTP: u16 = 56;
}

/// Status codes (RFC 8415, 21.13).
const NO_ADDRESSES: u16 = 2;
const NO_BINDING: u16 = 3;
const NO_PREFIX: u16 = 6;
/// The suboption of option 56 that holds an address.
const NTP_ADDRESS: u16 = 1;

/// A stateless DHCPv6 server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dhcp6 {
    /// The server's unique identifier.
    duid: Vec<u8>,
    /// What clients are told.
    pub settings: Settings6,
}

/// What clients are told. Empty ones are not sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings6 {
    /// DNS servers, best first.
    pub dns: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: Vec<DomainName>,
    /// NTP servers.
    pub ntp: Vec<Ipv6Addr>,
    /// After how many seconds clients ask again, at least 600 (RFC 8415, 21.23).
    pub refresh: u32,
}

/// A client's message taken apart.
struct Question<'a> {
    kind: u8,
    transaction: [u8; 3],
    options: Vec<(u16, &'a [u8])>,
}

impl Dhcp6 {
    /// A server that is known by its hardware address (DUID-LL; RFC 8415, 11.4).
    pub fn new(mac: MacAddr, settings: Settings6) -> Dhcp6 {
        let duid = [&[0, 3, 0, 1], &mac.0[..]].concat();
        Dhcp6 { duid, settings }
    }

    /// The answer to the payload of a UDP datagram to the server's port.
    ///
    /// # Errors
    /// Why there is none.
    pub fn handle(&self, payload: &[u8]) -> Result<Vec<u8>, DropReason> {
        let question = Question::parse(payload)?;
        self.check(&question)?;
        let answer = if question.kind == kind::SOLICIT { kind::ADVERTISE } else { kind::REPLY };
        let mut out = vec![answer];
        out.extend_from_slice(&question.transaction);
        if let Some(id) = question.get(code::CLIENT_ID) {
            put(&mut out, code::CLIENT_ID, id);
        }
        put(&mut out, code::SERVER_ID, &self.duid);
        if question.kind != kind::INFORMATION_REQUEST {
            refuse_associations(&question, &mut out);
        }
        self.put_settings(&question, &mut out);
        Ok(out)
    }

    /// RFC 8415, 16: who may say what to whom.
    fn check(&self, question: &Question<'_>) -> Result<(), DropReason> {
        let server = question.get(code::SERVER_ID);
        let client = question.get(code::CLIENT_ID);
        let id_is_sound = |id: &[u8]| (3..=MAX_DUID).contains(&id.len());
        if !client.is_none_or(id_is_sound) {
            return Err(DropReason::OptionLength);
        }
        if server.is_some_and(|id| id != self.duid) {
            return Err(DropReason::OtherServer);
        }
        let names_server = match question.kind {
            kind::INFORMATION_REQUEST => {
                let stateful = question.associations().next().is_some();
                return if stateful { Err(DropReason::MessageType) } else { Ok(()) };
            }
            kind::SOLICIT | kind::REBIND => false,
            kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE => true,
            // CONFIRM among others: of a link's prefixes a stateless server knows nothing.
            _ => return Err(DropReason::NotARequest),
        };
        if client.is_none() || server.is_some() != names_server {
            return Err(DropReason::MessageType);
        }
        Ok(())
    }

    fn put_settings(&self, question: &Question<'_>, out: &mut Vec<u8>) {
        let Settings6 { dns, search, ntp, refresh } = &self.settings;
        if question.wants(code::DNS) && !dns.is_empty() {
            put(out, code::DNS, &octets(dns));
        }
        if question.wants(code::DOMAINS) && !search.is_empty() {
            let mut domains = Vec::new();
            search.iter().for_each(|domain| domain.emit(&mut domains));
            put(out, code::DOMAINS, &domains);
        }
        if question.wants(code::NTP) && !ntp.is_empty() {
            let mut servers = Vec::new();
            ntp.iter().for_each(|server| put(&mut servers, NTP_ADDRESS, &server.octets()));
            put(out, code::NTP, &servers);
        }
        if question.kind == kind::INFORMATION_REQUEST && question.wants(code::REFRESH_TIME) {
            put(out, code::REFRESH_TIME, &(*refresh).max(600).to_be_bytes());
        }
    }
}

/// Says of each association that there is nothing for it (RFC 8415, 18.3).
fn refuse_associations(question: &Question<'_>, out: &mut Vec<u8>) {
    let fresh = matches!(question.kind, kind::SOLICIT | kind::REQUEST);
    for (code, value) in question.associations().take(MAX_ASSOCIATIONS) {
        let status = match code {
            _ if !fresh => NO_BINDING,
            code::IA_PD => NO_PREFIX,
            _ => NO_ADDRESSES,
        };
        let fixed = association_len(code);
        let Some(identifier) = value.get(..4) else { continue };
        // The identifier, and zero for the times that follow it.
        let mut answer = identifier.to_vec();
        answer.resize(fixed, 0);
        put(&mut answer, code::STATUS, &status.to_be_bytes());
        put(out, code, &answer);
    }
}

/// Octets of an association before its options.
fn association_len(code: u16) -> usize {
    if code == code::IA_TA { 4 } else { 12 }
}

impl<'a> Question<'a> {
    fn parse(payload: &'a [u8]) -> Result<Question<'a>, DropReason> {
        let [kind, a, b, c, rest @ ..] = payload else { return Err(DropReason::TooShort) };
        if payload.len() > MAX_READ {
            return Err(DropReason::TooLong);
        }
        let (mut rest, mut options) = (rest, Vec::new());
        while let [c0, c1, l0, l1, value @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (value, next) = value.split_at_checked(length).ok_or(DropReason::OptionOverrun)?;
            options.push((u16::from_be_bytes([*c0, *c1]), value));
            rest = next;
        }
        if !rest.is_empty() {
            return Err(DropReason::OptionOverrun);
        }
        let question = Question { kind: *kind, transaction: [*a, *b, *c], options };
        let short = |(code, value): (u16, &[u8])| value.len() < association_len(code);
        let odd = question.get(code::OPTION_REQUEST).is_some_and(|list| list.len() % 2 != 0);
        if odd || question.associations().any(short) {
            return Err(DropReason::OptionLength);
        }
        Ok(question)
    }

    fn get(&self, code: u16) -> Option<&'a [u8]> {
        self.options.iter().find(|option| option.0 == code).map(|option| option.1)
    }

    fn associations(&self) -> impl Iterator<Item = (u16, &'a [u8])> + '_ {
        let is_one = |code| matches!(code, code::IA_NA | code::IA_TA | code::IA_PD);
        self.options.iter().copied().filter(move |option| is_one(option.0))
    }

    /// Whether the client asks for this option, or leaves the choice to the server.
    fn wants(&self, code: u16) -> bool {
        let list = self.get(code::OPTION_REQUEST);
        list.is_none_or(|list| list.chunks(2).any(|pair| pair == code.to_be_bytes()))
    }
}

fn octets(addresses: &[Ipv6Addr]) -> Vec<u8> {
    addresses.iter().flat_map(Ipv6Addr::octets).collect()
}

/// Appends an option. Values are far below the 64 KiB that its length can say.
fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
