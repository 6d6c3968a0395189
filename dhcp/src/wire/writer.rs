//! Builds an answer: fixed fields, then options in the order in which they are put.
//!
//! Room is what the client takes ([`super::Request::max_len`]). What no longer fits the options
//! field goes to `file` and `sname` if those are free (option 52), and is left out where nothing
//! has room: the caller puts what matters most first. Space for the relay agent's information,
//! which must come back last (RFC 3046, 2.2), is set aside from the start.

use std::net::Ipv4Addr;

use super::options::code;
use super::{BOOT_REPLY, FILE, FIXED_LEN, FLAG_BROADCAST, Hardware, MAGIC_COOKIE, MIN_LEN, SNAME};

/// Option 52 with its value.
const OVERLOAD_LEN: usize = 3;

/// The fixed fields of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// From the request.
    pub xid: u32,
    /// Whether the relay or client is to receive it as broadcast.
    pub broadcast: bool,
    /// The client's address where it has one.
    pub ciaddr: Ipv4Addr,
    /// The address given; unspecified if none.
    pub yiaddr: Ipv4Addr,
    /// The server to boot from; unspecified if none.
    pub siaddr: Ipv4Addr,
    /// From the request.
    pub giaddr: Ipv4Addr,
    /// From the request.
    pub hardware: Hardware,
    /// The boot server's name; one that does not fit the field with its NUL is left out.
    pub sname: &'a str,
    /// The boot file's name; one that does not fit the field with its NUL is left out.
    pub file: &'a str,
}

/// A spare field that may hold options.
struct Spare {
    field: (usize, usize),
    used: usize,
    free: bool,
}

/// An answer in the making.
pub struct Writer {
    bytes: Vec<u8>,
    limit: usize,
    spares: [Spare; 2],
    tail: Vec<u8>,
}

impl Writer {
    /// Begins an answer of at most `max_len` octets that ends with `relay_info`.
    pub fn new(header: &Header<'_>, max_len: usize, relay_info: Option<&[u8]>) -> Writer {
        let mut bytes = vec![0; FIXED_LEN];
        bytes.reserve(max_len.saturating_sub(FIXED_LEN));
        let Hardware { kind, length, octets } = header.hardware;
        // spec: rfc2131 fields-zero
        bytes[..4].copy_from_slice(&[BOOT_REPLY, kind, length, 0]);
        bytes[4..8].copy_from_slice(&header.xid.to_be_bytes());
        let flags = if header.broadcast { FLAG_BROADCAST } else { 0 };
        bytes[10..12].copy_from_slice(&flags.to_be_bytes());
        let addresses = [header.ciaddr, header.yiaddr, header.siaddr, header.giaddr];
        for (index, address) in addresses.iter().enumerate() {
            bytes[12 + 4 * index..16 + 4 * index].copy_from_slice(&address.octets());
        }
        bytes[28..44].copy_from_slice(&octets);
        bytes[FIXED_LEN - 4..].copy_from_slice(&MAGIC_COOKIE);
        let spares = [(FILE, header.file), (SNAME, header.sname)].map(|(field, text)| {
            // One octet is left for the NUL.
            let fits = text.len() < field.1;
            if fits {
                bytes[field.0..field.0 + text.len()].copy_from_slice(text.as_bytes());
            }
            Spare { field, used: 0, free: text.is_empty() || !fits }
        });
        let mut tail = Vec::new();
        if let Some(info) = relay_info {
            push_option(&mut tail, code::RELAY_INFO, info);
        }
        // The End option, option 52 and the tail always fit.
        let limit = max_len.saturating_sub(1 + OVERLOAD_LEN + tail.len());
        Writer { bytes, limit, spares, tail }
    }

    /// Adds an option whole, split into pieces if it is longer than 255 octets (RFC 3396).
    /// Returns whether there was room.
    pub fn put(&mut self, code: u8, value: &[u8]) -> bool {
        // spec: rfc2131 option-whole parameter-most
        let pieces = value.len().div_ceil(255).max(1);
        let length = value.len() + 2 * pieces;
        if self.bytes.len() + length <= self.limit {
            push_option(&mut self.bytes, code, value);
            return true;
        }
        // One octet of the field is left for End.
        let room = |spare: &&mut Spare| spare.free && spare.used + length < spare.field.1;
        let Some(spare) = self.spares.iter_mut().find(room) else { return false };
        let mut encoded = Vec::with_capacity(length);
        push_option(&mut encoded, code, value);
        // spec: rfc2131 spare-begin
        let at = spare.field.0 + spare.used;
        self.bytes[at..at + length].copy_from_slice(&encoded);
        spare.used += length;
        true
    }

    /// Adds an option that holds addresses, unless there are none.
    pub fn put_addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) -> bool {
        let octets: Vec<u8> = addresses.iter().flat_map(Ipv4Addr::octets).collect();
        octets.is_empty() || self.put(code, &octets)
    }

    /// Ends the options and pads to BOOTP's size.
    pub fn finish(mut self) -> Vec<u8> {
        let mut overload = 0;
        for (bit, spare) in (1..).zip(&self.spares) {
            if spare.used > 0 {
                // spec: rfc2131 spare-end spare-pad
                self.bytes[spare.field.0 + spare.used] = code::END;
                overload |= bit;
            }
        }
        // spec: rfc2131 overload-named overload-end
        if overload != 0 {
            push_option(&mut self.bytes, code::OVERLOAD, &[overload]);
        }
        self.bytes.append(&mut self.tail);
        self.bytes.push(code::END);
        if self.bytes.len() < MIN_LEN {
            self.bytes.resize(MIN_LEN, 0);
        }
        self.bytes
    }
}

fn push_option(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    let (first, rest) = value.split_at(value.len().min(255));
    // A piece has at most 255 octets.
    out.extend_from_slice(&[code, first.len() as u8]);
    out.extend_from_slice(first);
    for piece in rest.chunks(255) {
        out.extend_from_slice(&[code, piece.len() as u8]);
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Packet;
    use proptest::prelude::*;
    use trama_frame::MacAddr;

    fn header<'a>(sname: &'a str, file: &'a str) -> Header<'a> {
        Header {
            xid: 0x0102_0304,
            broadcast: true,
            ciaddr: [1, 2, 3, 4].into(),
            yiaddr: [5, 6, 7, 8].into(),
            siaddr: [9, 10, 11, 12].into(),
            giaddr: [13, 14, 15, 16].into(),
            hardware: Hardware::ethernet(MacAddr([2, 0, 0, 0, 0, 1])),
            sname,
            file,
        }
    }

    // spec-test: rfc2131 fields-zero
    #[test]
    fn fixed_fields_lie_where_the_reader_finds_them() {
        let bytes = Writer::new(&header("boot", "pxe.0"), 548, None).finish();
        assert_eq!(bytes.len(), MIN_LEN);
        assert_eq!(bytes[241..], [0; 59]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.op(), packet.hops(), packet.secs()), (BOOT_REPLY, 0, 0));
        assert_eq!((packet.xid(), packet.broadcast()), (0x0102_0304, true));
        assert_eq!(packet.ciaddr().octets(), [1, 2, 3, 4]);
        assert_eq!(packet.yiaddr().octets(), [5, 6, 7, 8]);
        assert_eq!(packet.siaddr().octets(), [9, 10, 11, 12]);
        assert_eq!(packet.giaddr().octets(), [13, 14, 15, 16]);
        assert_eq!(packet.hardware().station(), Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!((&packet.sname()[..5], &packet.file()[..6]), (&b"boot\0"[..], &b"pxe.0\0"[..]));
    }

    #[test]
    fn long_options_are_split_and_what_does_not_fit_overloads() {
        let mut writer = Writer::new(&header("", ""), 548, None);
        assert!(writer.put(121, &[7; 290]));
        assert!(!writer.put(119, &[8; 150]));
        assert!(writer.put(12, &[b'a'; 100]));
        assert!(writer.put(15, &[b'b'; 50]));
        assert!(writer.put(43, &[1; 8]));
        let bytes = writer.finish();
        assert!(bytes.len() <= 548);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.options().get(121).unwrap().as_ref(), [7; 290]);
        assert_eq!(packet.options().get(12).unwrap().as_ref(), [b'a'; 100]);
        assert_eq!(packet.options().get(15).unwrap().as_ref(), [b'b'; 50]);
        assert_eq!(packet.options().get(52).unwrap().as_ref(), [3]);
        assert_eq!((packet.file()[0], packet.sname()[0]), (12, 15));
    }

    // spec-test: rfc2131 overload-named overload-end spare-begin spare-end spare-pad
    #[test]
    fn overloaded_fields_begin_with_an_option_and_end_with_end_and_pad() {
        let mut writer = Writer::new(&header("", ""), 300, None);
        assert!(writer.put(1, &[7; 53]));
        assert!(writer.put(2, &[7; 100]));
        assert!(writer.put(3, &[7; 50]));
        let bytes = writer.finish();
        assert_eq!(bytes[295..], [code::OVERLOAD, 1, 3, code::END, 0]);
        for ((at, length), code, value) in [(FILE, 2, 100), (SNAME, 3, 50)] {
            let field = &bytes[at..at + length];
            assert_eq!(field[..2], [code, value as u8]);
            assert_eq!(field[2 + value], code::END);
            assert!(field[3 + value..].iter().all(|byte| *byte == code::PAD));
        }
    }

    #[test]
    fn a_boot_file_is_not_overwritten() {
        let mut writer = Writer::new(&header("", "pxe.0"), 300, None);
        assert!(writer.put(1, &[0; 50]));
        assert!(writer.put(2, &[0; 40]));
        assert!(!writer.put(3, &[0; 100]));
        let bytes = writer.finish();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(&packet.file()[..6], b"pxe.0\0");
        assert_eq!(packet.options().get(52).unwrap().as_ref(), [2]);
    }

    #[test]
    fn relay_information_is_last_and_always_fits() {
        let info = [1; 200];
        let mut writer = Writer::new(&header("s", "f"), 548, Some(&info));
        while writer.put(224, &[0; 10]) {}
        let bytes = writer.finish();
        assert!(bytes.len() <= 548);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.options().get(82).unwrap().as_ref(), info);
        assert_eq!(packet.options().codes().last(), Some(82));
    }

    proptest! {
        // spec-test: rfc2131 option-whole
        #[test]
        fn every_option_that_fits_comes_back(
            options in prop::collection::vec(
                (1..250u8, prop::collection::vec(any::<u8>(), 0..400)), 0..20),
            file in "[a-z]{0,140}", sname in "[a-z]{0,70}",
            max_len in 548..1472usize,
            relay in prop::option::of(prop::collection::vec(any::<u8>(), 0..255)),
        ) {
            let mut writer = Writer::new(&header(&sname, &file), max_len, relay.as_deref());
            let mut kept: Vec<(u8, Vec<u8>)> = Vec::new();
            for (code, value) in options {
                let reserved = [code::OVERLOAD, code::RELAY_INFO].contains(&code);
                let repeated = kept.iter().any(|(other, _)| *other == code);
                if !reserved && !repeated && writer.put(code, &value) {
                    kept.push((code, value));
                }
            }
            let bytes = writer.finish();
            prop_assert!((MIN_LEN..=max_len).contains(&bytes.len()));
            let packet = Packet::parse(&bytes).unwrap();
            for (code, value) in kept {
                let found = packet.options().get(code);
                prop_assert_eq!(found.as_deref(), Some(&value[..]));
            }
            let found = packet.options().get(code::RELAY_INFO);
            prop_assert_eq!(found.as_deref(), relay.as_deref());
        }
    }
}
