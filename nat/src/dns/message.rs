//! As much of a DNS message (RFC 1035, section 4) as a forwarder needs: header and question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Header of a message.
const HEADER: usize = 12;
/// Longest name on the wire (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
/// Bits of the second word of the header.
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_WANTED: u16 = 1 << 8;
const RECURSION_OFFERED: u16 = 1 << 7;
const CODE: u16 = 0xf;

/// Response codes (RFC 1035, 4.1.1).
pub(crate) const SERVER_FAILURE: u16 = 2;
pub(crate) const NAME_ERROR: u16 = 3;
pub(crate) const NOT_IMPLEMENTED: u16 = 4;
pub(crate) const REFUSED: u16 = 5;

/// Types and the class of records (RFC 1035, 3.2; RFC 3596).
pub(crate) const TYPE_A: u16 = 1;
pub(crate) const TYPE_PTR: u16 = 12;
pub(crate) const TYPE_AAAA: u16 = 28;
pub(crate) const CLASS_IN: u16 = 1;

/// The header and the one question of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message<'a> {
    pub id: u16,
    flags: u16,
    counts: [u16; 3],
    /// The question as it stands, name, type and class.
    question: &'a [u8],
    pub kind: u16,
    pub class: u16,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

impl<'a> Message<'a> {
    /// Reads a message with one question, whose name is not compressed. `None`: it is none.
    pub fn parse(bytes: &'a [u8]) -> Option<Message<'a>> {
        let counts = [word(bytes, 6)?, word(bytes, 8)?, word(bytes, 10)?];
        if word(bytes, 4)? != 1 {
            return None;
        }
        let mut at = HEADER;
        loop {
            let length = usize::from(*bytes.get(at)?);
            // Longer ones are compression or reserved (RFC 1035, 4.1.4).
            if length > 63 || at + length - HEADER >= MAX_NAME {
                return None;
            }
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
        let (kind, class) = (word(bytes, at)?, word(bytes, at + 2)?);
        let question = bytes.get(HEADER..at + 4)?;
        Some(Message { id: word(bytes, 0)?, flags: word(bytes, 2)?, counts, question, kind, class })
    }

    /// Whether it asks and brings no records but what a question may come with (EDNS, TSIG).
    pub fn is_query(&self) -> bool {
        self.flags & (RESPONSE | TRUNCATED) == 0 && matches!(self.counts, [0, 0, 0..=2])
    }

    /// Whether it is a standard query or the answer to one.
    pub fn is_standard(&self) -> bool {
        self.flags & OPCODE == 0
    }

    /// Whether it is the answer to this question (names compare without case, RFC 4343).
    pub fn answers(&self, id: u16, asked: &Message<'_>) -> bool {
        self.flags & RESPONSE != 0
            && self.is_standard()
            && self.id == id
            && self.question.eq_ignore_ascii_case(asked.question)
            && self.kind == asked.kind
            && self.class == asked.class
    }

    /// The response code.
    pub fn code(&self) -> u16 {
        self.flags & CODE
    }

    /// The name in small letters with dots, if it is one that hosts have.
    pub fn name(&self) -> Option<String> {
        let mut name = String::new();
        let mut rest = self.question;
        while let Some((length, behind)) = rest.split_first()
            && *length > 0
        {
            let (label, behind) = behind.split_at_checked(usize::from(*length))?;
            if !name.is_empty() {
                name.push('.');
            }
            for byte in label {
                let plain = byte.is_ascii_alphanumeric() || b"-_".contains(byte);
                name.push(plain.then(|| byte.to_ascii_lowercase().into())?);
            }
            rest = behind;
        }
        Some(name)
    }

    /// A reply without records.
    pub fn reply(&self, code: u16) -> Vec<u8> {
        self.compose(code, 0, &[])
    }

    /// A reply that says that the whole answer is too long for a datagram.
    pub fn truncated(&self, code: u16) -> Vec<u8> {
        self.compose(TRUNCATED | code, 0, &[])
    }

    /// A reply with one record for each of `data`. Their lifetime is zero: what they are made of
    /// can change at any moment.
    pub fn answer(&self, data: &[Vec<u8>]) -> Vec<u8> {
        let mut records = Vec::new();
        for item in data {
            // The name is that of the question.
            records.extend([0xc0, HEADER as u8]);
            records.extend(self.kind.to_be_bytes());
            records.extend(CLASS_IN.to_be_bytes());
            records.extend(0u32.to_be_bytes());
            records.extend((item.len() as u16).to_be_bytes());
            records.extend(item);
        }
        self.compose(0, data.len() as u16, &records)
    }

    fn compose(&self, bits: u16, answers: u16, records: &[u8]) -> Vec<u8> {
        let flags = RESPONSE | RECURSION_OFFERED | self.flags & (OPCODE | RECURSION_WANTED) | bits;
        let mut bytes = Vec::with_capacity(HEADER + self.question.len() + records.len());
        for value in [self.id, flags, 1, answers, 0, 0] {
            bytes.extend(value.to_be_bytes());
        }
        bytes.extend(self.question);
        bytes.extend(records);
        bytes
    }
}

/// A name as it stands on the wire; `None` if it is no name.
pub(crate) fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= MAX_NAME).then_some(bytes)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
pub(crate) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = digits.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut count = 0;
    for digit in digits.split('.').rev() {
        let value = u128::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
        bits = bits << 4 | value;
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

/// A question of a client, for tests.
#[cfg(test)]
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in [id, RECURSION_WANTED, 1, 0, 0, 0] {
        bytes.extend(value.to_be_bytes());
    }
    bytes.extend(encode_name(name).unwrap());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_read_and_answered() {
        let bytes = query(7, "Web.Example", TYPE_A);
        let message = Message::parse(&bytes).unwrap();
        assert!(message.is_query() && message.is_standard());
        assert_eq!(message.name().unwrap(), "web.example");
        let reply = message.answer(&[vec![10, 0, 2, 15]]);
        let read = Message::parse(&reply).unwrap();
        assert!(!read.is_query() && read.answers(7, &message) && !read.answers(8, &message));
        assert_eq!(reply[reply.len() - 4..], [10, 0, 2, 15]);
        let other = query(7, "web.example", TYPE_AAAA);
        assert!(!read.answers(7, &Message::parse(&other).unwrap()));
        let same = query(7, "WEB.example", TYPE_A);
        assert!(read.answers(7, &Message::parse(&same).unwrap()));
        // Types have no case: 65 (HTTPS) and 97 are "A" and "a".
        let (upper, lower) = (query(7, "a.b", 65), query(7, "a.b", 97));
        let reply = Message::parse(&lower).unwrap().reply(0);
        assert!(!Message::parse(&reply).unwrap().answers(7, &Message::parse(&upper).unwrap()));
    }

    #[test]
    fn what_is_no_query_is_not_taken_for_one() {
        let whole = query(7, "a.b", TYPE_A);
        for cut in 0..whole.len() {
            assert_eq!(Message::parse(&whole[..cut]), None, "{cut} bytes");
        }
        let changed = |at: usize, value: u8| {
            let mut bytes = whole.clone();
            bytes[at] = value;
            Message::parse(&bytes).is_some_and(|message| message.is_query())
        };
        assert!(!changed(2, 0x80), "a response");
        assert!(!changed(5, 2), "two questions");
        assert!(!changed(7, 1), "brings an answer");
        assert!(!changed(12, 0xc0), "a compressed name");
        let long = vec!["a".repeat(63); 4].join(".");
        assert_eq!(encode_name(&long), None);
    }

    #[test]
    fn reverse_names_are_addresses() {
        assert_eq!(reverse("15.2.0.10.in-addr.arpa"), Some([10, 0, 2, 15].into()));
        let six = format!("f.{}d.f.ip6.arpa", "0.".repeat(29));
        assert_eq!(reverse(&six), Some("df00::f".replace("df", "fd").parse().unwrap()));
        for bad in ["2.0.10.in-addr.arpa", "1.15.2.0.10.in-addr.arpa", "x.ip6.arpa", "a.b"] {
            assert_eq!(reverse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(message) = Message::parse(&bytes) {
                let _ = message.name();
                prop_assert!(message.reply(NAME_ERROR).len() <= bytes.len());
            }
        }
    }
}
