//! Builds answers.

use std::net::Ipv6Addr;

use super::config::Settings6;
use super::message::{Message, association_len, code, kind, put};
use super::server::{Asked, Reply6, Server6};
use crate::config::Boot;
use crate::time::whole_seconds;

/// Most identity associations that one answer covers.
const MAX_ASSOCIATIONS: usize = 8;
/// The suboption of option 56 that holds an address.
const NTP_ADDRESS: u16 = 1;

/// Status codes (RFC 8415, 21.13).
pub(super) mod status {
    pub(crate) const SUCCESS: u16 = 0;
    pub(crate) const NO_ADDRESSES: u16 = 2;
    pub(crate) const NO_BINDING: u16 = 3;
    pub(crate) const NOT_ON_LINK: u16 = 4;
    pub(crate) const NO_PREFIX: u16 = 6;
}

/// The answer to the association for the client's address.
pub(super) enum Association {
    /// There is no address for it.
    None,
    /// The client's address.
    Lease(Ipv6Addr),
    /// Only this status.
    Status(u16),
    /// The addresses that it names are no longer valid.
    Lapsed,
    /// Left out: the status of the message covers it.
    Confirmed(u16),
}

impl Server6 {
    /// Builds and counts an answer of this type.
    pub(super) fn answer(&mut self, asked: &Asked<'_>, kind: u8, what: &Association) -> Reply6 {
        let message = &asked.message;
        let mut out = vec![kind];
        out.extend_from_slice(&message.transaction);
        if let Some(id) = message.get(code::CLIENT_ID) {
            put(&mut out, code::CLIENT_ID, id);
        }
        put(&mut out, code::SERVER_ID, &self.duid);
        if message.kind == kind::SOLICIT && kind == kind::REPLY {
            put(&mut out, code::RAPID_COMMIT, &[]);
        }
        match what {
            Association::Confirmed(status) => put_status(&mut out, *status),
            _ if message.kind == kind::INFORMATION_REQUEST => {}
            _ => {
                if matches!(message.kind, kind::RELEASE | kind::DECLINE) {
                    put_status(&mut out, status::SUCCESS);
                }
                self.put_associations(asked, what, &mut out);
            }
        }
        put_settings(&self.config.settings, message, &mut out);
        self.sent[usize::from(kind)] += 1;
        let (to, station, port) = (asked.from.source, asked.from.station, asked.from.port);
        Reply6 { to, station, port, payload: out }
    }

    /// Answers the first association for an address with `what`, and refuses the others.
    fn put_associations(&self, asked: &Asked<'_>, what: &Association, out: &mut Vec<u8>) {
        let fresh = matches!(asked.message.kind, kind::SOLICIT | kind::REQUEST);
        let mut what = Some(what);
        for (code, value) in asked.message.associations().take(MAX_ASSOCIATIONS) {
            let mut answer = value[..4].to_vec();
            let nothing = match code {
                _ if !fresh => status::NO_BINDING,
                code::IA_PD => status::NO_PREFIX,
                _ => status::NO_ADDRESSES,
            };
            let own = if code == code::IA_NA { what.take() } else { None };
            match own {
                Some(Association::Lease(address)) => self.put_lease(asked, *address, &mut answer),
                Some(Association::Lapsed) => {
                    answer.resize(association_len(code), 0);
                    put_lapsed(asked, None, &mut answer);
                }
                Some(Association::Status(status)) => {
                    answer.resize(association_len(code), 0);
                    put_status(&mut answer, *status);
                }
                Some(Association::None | Association::Confirmed(_)) | None => {
                    answer.resize(association_len(code), 0);
                    put_status(&mut answer, nothing);
                }
            }
            put(out, code, &answer);
        }
    }

    /// Times and address of a lease (RFC 8415, 21.4), and the end of other addresses.
    fn put_lease(&self, asked: &Asked<'_>, address: Ipv6Addr, out: &mut Vec<u8>) {
        let lease = whole_seconds(self.config.lease);
        // Half, and four fifths: a 32-bit number has room for the latter.
        let (renew, rebind) = (lease / 2, (u64::from(lease) * 4 / 5) as u32);
        out.extend_from_slice(&renew.to_be_bytes());
        out.extend_from_slice(&rebind.to_be_bytes());
        put_address(out, address, lease);
        put_lapsed(asked, Some(address), out);
    }
}

/// The addresses that the client names, except `except`, with lifetimes of zero.
fn put_lapsed(asked: &Asked<'_>, except: Option<Ipv6Addr>, out: &mut Vec<u8>) {
    // In a SOLICIT or a REQUEST they are hints, not addresses in use.
    if !matches!(asked.message.kind, kind::RENEW | kind::REBIND) {
        return;
    }
    let named = asked.named.iter().flatten().filter(|address| Some(**address) != except);
    named.take(MAX_ASSOCIATIONS).for_each(|address| put_address(out, *address, 0));
}

fn put_address(out: &mut Vec<u8>, address: Ipv6Addr, seconds: u32) {
    let seconds = seconds.to_be_bytes();
    put(out, code::IA_ADDRESS, &[&address.octets()[..], &seconds, &seconds].concat());
}

fn put_status(out: &mut Vec<u8>, status: u16) {
    put(out, code::STATUS, &status.to_be_bytes());
}

fn put_settings(settings: &Settings6, message: &Message<'_>, out: &mut Vec<u8>) {
    let Settings6 { dns, search, ntp, refresh, boot } = settings;
    if message.wants(code::DNS) && !dns.is_empty() {
        let octets: Vec<u8> = dns.iter().flat_map(Ipv6Addr::octets).collect();
        put(out, code::DNS, &octets);
    }
    if message.wants(code::DOMAINS) && !search.is_empty() {
        let mut domains = Vec::new();
        search.iter().for_each(|domain| domain.emit(&mut domains));
        put(out, code::DOMAINS, &domains);
    }
    if message.wants(code::NTP) && !ntp.is_empty() {
        let mut servers = Vec::new();
        ntp.iter().for_each(|server| put(&mut servers, NTP_ADDRESS, &server.octets()));
        put(out, code::NTP, &servers);
    }
    if message.kind == kind::INFORMATION_REQUEST && message.wants(code::REFRESH_TIME) {
        put(out, code::REFRESH_TIME, &(*refresh).max(600).to_be_bytes());
    }
    if message.wants(code::BOOT_FILE) {
        put_boot(boot, message, out);
    }
}

/// The boot file as a URL, its parameters, and the vendor class that firmware which boots by HTTP
/// requires of an answer (RFC 5970; UEFI 2.10, 24.7).
fn put_boot(boot: &Boot, message: &Message<'_>, out: &mut Vec<u8>) {
    let Some(name) = message.boot().choose(&boot.files) else { return };
    let url = match boot.server6 {
        _ if name.contains("://") => name.to_owned(),
        Some(server) => format!("tftp://[{server}]/{}", name.trim_start_matches('/')),
        None => return,
    };
    if let Some(class) = message.http_class() {
        put(out, code::VENDOR_CLASS, &class);
    }
    put(out, code::BOOT_FILE, url.as_bytes());
    if message.wants(code::BOOT_PARAMETERS) && !boot.parameters.is_empty() {
        let mut list = Vec::new();
        for text in &boot.parameters {
            // The configuration keeps each far below 64 KiB.
            list.extend_from_slice(&(text.len() as u16).to_be_bytes());
            list.extend_from_slice(text.as_bytes());
        }
        put(out, code::BOOT_PARAMETERS, &list);
    }
}
