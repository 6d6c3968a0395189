//! A record of the journal on disk.
//!
//! | octets | what |
//! |---|---|
//! | 2 | length of the body, most significant octet first, as all numbers |
//! | n | body |
//! | 4 | CRC-32 of length and body |
//!
//! The body of a lease: `1`, address (4), end in milliseconds since 1970 (8), port (8), hardware
//! address (6), length (2) and octets of the client key, the client's name to the end. The body of
//! a freed address: `2`, address (4). With an IPv6 address (16) they are `3` and `4`.

use std::net::{Ipv4Addr, Ipv6Addr};

use trama_frame::MacAddr;

use crate::name::HostName;
use crate::{ClientKey, PortId, Time};

const LEASE: u8 = 1;
const FREED: u8 = 2;
const LEASE6: u8 = 3;
const FREED6: u8 = 4;
/// Longest body: a lease with the longest key and name.
const MAX_BODY: usize = 1 + 16 + 8 + 8 + 6 + 2 + ClientKey::MAX_LEN + 63;

/// A lease as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRecord<A = Ipv4Addr> {
    /// The address.
    pub address: A,
    /// When the lease ends or ended.
    pub until: Time,
    /// The port that it is charged to.
    pub port: PortId,
    /// The client's hardware address.
    pub mac: MacAddr,
    /// The client.
    pub key: ClientKey,
    /// The client's name.
    pub name: Option<HostName>,
}

/// A change to the leases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The address is leased or remembered, whatever the address and the client had before.
    Lease(LeaseRecord),
    /// The address is free.
    Freed(Ipv4Addr),
    /// As `Lease`, by DHCPv6.
    Lease6(LeaseRecord<Ipv6Addr>),
    /// As `Freed`, by DHCPv6.
    Freed6(Ipv6Addr),
}

impl Record {
    /// Appends the encoded record to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        match self {
            Record::Freed(address) => {
                out.push(FREED);
                out.extend_from_slice(&address.octets());
            }
            Record::Lease(lease) => {
                out.push(LEASE);
                out.extend_from_slice(&lease.address.octets());
                lease.emit_rest(out);
            }
            Record::Freed6(address) => {
                out.push(FREED6);
                out.extend_from_slice(&address.octets());
            }
            Record::Lease6(lease) => {
                out.push(LEASE6);
                out.extend_from_slice(&lease.address.octets());
                lease.emit_rest(out);
            }
        }
        let length = (out.len() - start - 2) as u16;
        out[start..start + 2].copy_from_slice(&length.to_be_bytes());
        let checksum = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&checksum.to_be_bytes());
    }

    /// The records at the beginning of `bytes` up to the first that is not whole, and how many
    /// octets they take.
    pub fn parse_all(bytes: &[u8]) -> (Vec<Record>, usize) {
        let mut records = Vec::new();
        let mut rest = bytes;
        while let Some((record, next)) = Record::parse(rest) {
            records.push(record);
            rest = next;
        }
        (records, bytes.len() - rest.len())
    }

    /// The first record and what follows it; `None` if it is not whole.
    fn parse(bytes: &[u8]) -> Option<(Record, &[u8])> {
        let length = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
        if length > MAX_BODY {
            return None;
        }
        let (framed, rest) = bytes.split_at_checked(2 + length)?;
        let (checksum, rest) = rest.split_first_chunk()?;
        if crc32fast::hash(framed) != u32::from_be_bytes(*checksum) {
            return None;
        }
        Some((Record::parse_body(&framed[2..])?, rest))
    }

    fn parse_body(body: &[u8]) -> Option<Record> {
        let (kind, body) = body.split_first()?;
        match *kind {
            FREED => Some(Record::Freed(<[u8; 4]>::try_from(body).ok()?.into())),
            FREED6 => Some(Record::Freed6(<[u8; 16]>::try_from(body).ok()?.into())),
            LEASE => {
                let (address, rest) = body.split_first_chunk::<4>()?;
                Some(Record::Lease(LeaseRecord::parse(Ipv4Addr::from(*address), rest)?))
            }
            LEASE6 => {
                let (address, rest) = body.split_first_chunk::<16>()?;
                Some(Record::Lease6(LeaseRecord::parse(Ipv6Addr::from(*address), rest)?))
            }
            _ => None,
        }
    }
}

impl<A> LeaseRecord<A> {
    /// What follows the address.
    fn emit_rest(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.until.0.to_be_bytes());
        out.extend_from_slice(&self.port.0.to_be_bytes());
        out.extend_from_slice(&self.mac.0);
        // Keys are short: ClientKey::MAX_LEN.
        out.extend_from_slice(&(self.key.0.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.key.0);
        let name = self.name.as_ref().map_or("", |name| name.as_str());
        out.extend_from_slice(name.as_bytes());
    }

    fn parse(address: A, body: &[u8]) -> Option<LeaseRecord<A>> {
        let (until, body) = body.split_first_chunk()?;
        let (port, body) = body.split_first_chunk()?;
        let (mac, body) = body.split_first_chunk()?;
        let (length, body) = body.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (key, name) = body.split_at_checked(length)?;
        let name = match name {
            [] => None,
            name => Some(std::str::from_utf8(name).ok()?.parse().ok()?),
        };
        Some(LeaseRecord {
            address,
            until: Time(u64::from_be_bytes(*until)),
            port: PortId(u64::from_be_bytes(*port)),
            mac: MacAddr(*mac),
            key: ClientKey(key.into()),
            name,
        })
    }
}
