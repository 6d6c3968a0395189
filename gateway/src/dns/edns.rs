//! EDNS (RFC 6891): the OPT record of a query, and the one of its answer.

use super::wire::{skip_name, word};

/// Type of the OPT record.
const TYPE_OPT: u16 = 41;
/// Longest datagram for a client without EDNS, or with a smaller size (RFC 6891, 6.2.3).
const MIN_SIZE: u16 = 512;
/// The size in our own OPT records: it fits any path.
const OUR_SIZE: u16 = 1232;
/// The flag by which a client requests DNSSEC records; it is echoed (RFC 3225).
const DNSSEC_OK: u8 = 0x80;
/// Bytes of a record after its name: type, class, TTL, data length.
const FIELDS: usize = 10;

/// The OPT record of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Opt {
    /// The longest datagram that the client accepts.
    size: u16,
    pub version: u8,
    wants_dnssec: bool,
}

/// The EDNS of a message.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Edns {
    /// The first OPT record.
    pub opt: Option<Opt>,
    /// A record is truncated, there are two OPT records, or one violates the rules.
    pub is_malformed: bool,
    /// Whether there are other records.
    pub has_others: bool,
}

impl Edns {
    /// Parses `count` records at the start of `bytes`.
    pub(super) fn parse(mut bytes: &[u8], count: usize) -> Edns {
        let mut edns = Edns::default();
        for _ in 0..count {
            let Some(rest) = edns.parse_record(bytes) else {
                edns.is_malformed = true;
                break;
            };
            bytes = rest;
        }
        edns
    }

    /// Parses a record. Returns what follows it, or `None` if it is truncated.
    fn parse_record<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let at = skip_name(bytes, 0)?;
        let end = at + FIELDS + usize::from(word(bytes, at + 8)?);
        let data = bytes.get(at + FIELDS..end)?;
        if word(bytes, at)? != TYPE_OPT {
            self.has_others = true;
            return bytes.get(end..);
        }
        let is_root = at == 1;
        self.is_malformed |= self.opt.is_some() || !is_root || !has_whole_options(data);
        let size = word(bytes, at + 2)?;
        let (version, wants_dnssec) = (bytes[at + 5], bytes[at + 6] & DNSSEC_OK != 0);
        self.opt.get_or_insert(Opt { size, version, wants_dnssec });
        bytes.get(end..)
    }

    /// The longest answer in a datagram.
    pub(super) fn max_datagram(&self) -> usize {
        self.opt.map_or(MIN_SIZE, |opt| opt.size.max(MIN_SIZE)).into()
    }
}

impl Opt {
    /// The OPT record of an answer with these upper bits of the response code.
    pub(super) fn answer(&self, upper_code: u8) -> [u8; 1 + FIELDS] {
        let [size_high, size_low] = OUR_SIZE.to_be_bytes();
        let flags = if self.wants_dnssec { DNSSEC_OK } else { 0 };
        // The root's name; version 0 is the only one.
        [0, 0, TYPE_OPT as u8, size_high, size_low, upper_code, 0, flags, 0, 0, 0]
    }
}

/// Whether options fill the data of an OPT record (RFC 6891, 6.1.2).
fn has_whole_options(mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let next = word(data, 2).and_then(|length| data.get(4 + usize::from(length)..));
        let Some(next) = next else { return false };
        data = next;
    }
    true
}

/// An OPT record of a client, for tests.
#[cfg(test)]
pub(crate) fn opt(size: u16, version: u8, is_dnssec: bool, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0, TYPE_OPT as u8];
    record.extend(size.to_be_bytes());
    record.extend([0, version, if is_dnssec { DNSSEC_OK } else { 0 }, 0]);
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opt_record_is_read_among_others() {
        let tsig = [&[1, b'k', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 2][..], &[7; 2]].concat();
        let mut bytes = opt(4096, 0, true, &[0, 10, 0, 3, 1, 2, 3, 0xff, 0xfe, 0, 0]);
        let own = Opt { size: 4096, version: 0, wants_dnssec: true };
        let edns = Edns::parse(&bytes, 1);
        assert_eq!((edns.opt, edns.is_malformed, edns.has_others), (Some(own), false, false));
        bytes.extend(&tsig);
        assert!(Edns::parse(&bytes, 2).has_others);
        assert_eq!(Edns::parse(&tsig, 1), Edns { has_others: true, ..Edns::default() });
        assert_eq!(Edns::parse(&[], 0), Edns::default());
        for (size, room) in [(0, 512), (511, 512), (512, 512), (1232, 1232), (65_535, 65_535)] {
            assert_eq!(Edns::parse(&opt(size, 0, false, &[]), 1).max_datagram(), room);
        }
        assert_eq!(Edns::default().max_datagram(), 512);
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        let good = opt(1232, 0, false, &[0, 10, 0, 1, 1]);
        let named = [&[1, b'a'][..], &good].concat();
        let cut = &good[..good.len() - 1];
        let no_option = opt(1232, 0, false, &[0, 10, 0, 2, 1]);
        let half_option = opt(1232, 0, false, &[0, 10, 0]);
        let two = [&good[..], &good].concat();
        for (bytes, count) in
            [(&named[..], 1), (cut, 1), (&no_option, 1), (&half_option, 1), (&two, 2), (&good, 2)]
        {
            assert!(Edns::parse(bytes, count).is_malformed, "{bytes:?}");
        }
        assert!(!Edns::parse(&good, 1).is_malformed);
    }

    #[test]
    fn an_answer_echoes_dnssec_and_has_version_0() {
        let of = |version, is_dnssec| {
            let edns = Edns::parse(&opt(4096, version, is_dnssec, &[]), 1);
            edns.opt.unwrap().answer(1)
        };
        assert_eq!(of(1, false), [0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
        assert_eq!(of(0, true), [0, 0, 41, 4, 208, 1, 0, 0x80, 0, 0, 0]);
    }
}
