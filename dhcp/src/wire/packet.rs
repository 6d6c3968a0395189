//! A DHCPv4 message, checked for structure: the fixed fields by name and the options.

use std::net::Ipv4Addr;

use super::{FILE, FIXED_LEN, FLAG_BROADCAST, Hardware, MAGIC_COOKIE, MAX_READ, Options, SNAME};
use crate::DropReason;

/// Offset and length of the `chaddr` field.
const CHADDR: (usize, usize) = (28, 16);

/// A view of a message whose fields all lie inside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    fixed: &'a [u8; FIXED_LEN],
    options: Options<'a>,
}

impl<'a> Packet<'a> {
    /// Checks the payload of a UDP datagram.
    ///
    /// # Errors
    /// The reason for which the message cannot be read; see [`DropReason`].
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, DropReason> {
        let (fixed, field) = bytes.split_first_chunk().ok_or(DropReason::TooShort)?;
        if bytes.len() > MAX_READ {
            return Err(DropReason::TooLong);
        }
        if usize::from(fixed[2]) > CHADDR.1 {
            return Err(DropReason::HardwareType);
        }
        if fixed[FIXED_LEN - 4..] != MAGIC_COOKIE {
            return Err(DropReason::NoMagicCookie);
        }
        let file = &fixed[FILE.0..FILE.0 + FILE.1];
        let sname = &fixed[SNAME.0..SNAME.0 + SNAME.1];
        Ok(Packet { fixed, options: Options::parse(field, file, sname) })
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut octets = [0; N];
        octets.copy_from_slice(&self.fixed[at..at + N]);
        octets
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        self.array::<4>(at).into()
    }

    /// `op`: 1 from clients, 2 from servers.
    pub fn op(&self) -> u8 {
        self.fixed[0]
    }

    /// `hops`: how many relay agents it passed.
    pub fn hops(&self) -> u8 {
        self.fixed[3]
    }

    /// `xid`: the number that joins answers to requests.
    pub fn xid(&self) -> u32 {
        u32::from_be_bytes(self.array(4))
    }

    /// `secs`: for how long the client has been trying.
    pub fn secs(&self) -> u16 {
        u16::from_be_bytes(self.array(8))
    }

    /// Whether the client cannot receive unicast yet (the B flag).
    pub fn broadcast(&self) -> bool {
        // spec: rfc2131 flags-reserved
        u16::from_be_bytes(self.array(10)) & FLAG_BROADCAST != 0
    }

    /// `ciaddr`: the address that the client has and answers for.
    pub fn ciaddr(&self) -> Ipv4Addr {
        self.address(12)
    }

    /// `yiaddr`: the address that the server gives.
    pub fn yiaddr(&self) -> Ipv4Addr {
        self.address(16)
    }

    /// `siaddr`: the server to boot from.
    pub fn siaddr(&self) -> Ipv4Addr {
        self.address(20)
    }

    /// `giaddr`: the relay agent.
    pub fn giaddr(&self) -> Ipv4Addr {
        self.address(24)
    }

    /// `htype`, `hlen` and `chaddr`: the client's hardware address.
    pub fn hardware(&self) -> Hardware {
        Hardware { kind: self.fixed[1], length: self.fixed[2], octets: self.array(CHADDR.0) }
    }

    /// `sname`: the boot server's name, or options.
    pub fn sname(&self) -> &'a [u8] {
        &self.fixed[SNAME.0..SNAME.0 + SNAME.1]
    }

    /// `file`: the boot file's name, or options.
    pub fn file(&self) -> &'a [u8] {
        &self.fixed[FILE.0..FILE.0 + FILE.1]
    }

    /// The options of all fields.
    pub fn options(&self) -> &Options<'a> {
        &self.options
    }
}
