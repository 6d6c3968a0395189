//! As much of a DNS message (RFC 1035, section 4) as a forwarder needs: header, question and EDNS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::edns::Edns;
use super::wire::{skip_name, word};

/// Bytes of the header.
const HEADER: usize = 12;
/// Longest name on the wire (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
/// Bits of the second word of the header.
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_WANTED: u16 = 1 << 8;
const RECURSION_OFFERED: u16 = 1 << 7;
const CHECKING_DISABLED: u16 = 1 << 4;
const CODE: u16 = 0xf;
/// Bits of a query that its answer repeats (RFC 1035, 4.1.1; RFC 4035, 3.1.6).
const REPEATED: u16 = OPCODE | RECURSION_WANTED | CHECKING_DISABLED;

/// Response codes (RFC 1035, 4.1.1; RFC 6891, 9).
pub(crate) const FORMAT_ERROR: u16 = 1;
pub(crate) const SERVER_FAILURE: u16 = 2;
pub(crate) const NAME_ERROR: u16 = 3;
pub(crate) const NOT_IMPLEMENTED: u16 = 4;
pub(crate) const REFUSED: u16 = 5;
pub(crate) const BAD_VERSION: u16 = 16;

/// Types and class of records (RFC 1035, 3.2; RFC 3596).
pub(crate) const TYPE_A: u16 = 1;
pub(crate) const TYPE_PTR: u16 = 12;
pub(crate) const TYPE_AAAA: u16 = 28;
pub(crate) const CLASS_IN: u16 = 1;

/// The header, the only question, and the EDNS record of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message<'a> {
    pub id: u16,
    flags: u16,
    counts: [u16; 3],
    /// The question with name, type and class; empty if the message has none.
    question: &'a [u8],
    pub kind: u16,
    pub class: u16,
    pub edns: Edns,
}

impl<'a> Message<'a> {
    /// Parses a message with exactly one question, whose name is not compressed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Message<'a>> {
        let message = Self::parse_header(bytes)?;
        if word(bytes, 4)? != 1 {
            return None;
        }
        let mut at = HEADER;
        loop {
            let length = usize::from(*bytes.get(at)?);
            // Longer ones are compressed or reserved (RFC 1035, 4.1.4).
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
        Some(Message { question, kind, class, ..message })
    }

    /// Parses header and EDNS, whatever the questions are. `None` if the message is too short.
    pub(super) fn parse_header(bytes: &'a [u8]) -> Option<Message<'a>> {
        let counts = [word(bytes, 6)?, word(bytes, 8)?, word(bytes, 10)?];
        let skip = |at: usize, _| skip_name(bytes, at).map(|end| end + 4);
        let records = (0..word(bytes, 4)?).try_fold(HEADER, skip).and_then(|at| bytes.get(at..));
        let count = counts.iter().map(|count| usize::from(*count)).sum();
        let edns = records.map_or_else(Edns::default, |records| Edns::parse(records, count));
        let (id, flags) = (word(bytes, 0)?, word(bytes, 2)?);
        Some(Message { id, flags, counts, question: &[], kind: 0, class: 0, edns })
    }

    /// Whether it is a response.
    pub(super) fn is_response(&self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// Whether it is not a valid standard query: it does not have one question (RFC 9619), has
    /// records other than those of a query (EDNS, TSIG), or violates the rules of EDNS.
    pub(super) fn is_malformed(&self) -> bool {
        self.question.is_empty() || !matches!(self.counts, [0, 0, _]) || self.edns.is_malformed
    }

    /// Whether it is a standard query or the response to one.
    pub(super) fn is_standard(&self) -> bool {
        self.flags & OPCODE == 0
    }

    /// Whether it is the response to `asked`, sent under `id` (names are case-insensitive, RFC
    /// 4343).
    pub(super) fn is_answer_to(&self, id: u16, asked: &Message<'_>) -> bool {
        self.is_response()
            && self.is_standard()
            && self.id == id
            && self.question.eq_ignore_ascii_case(asked.question)
            && self.kind == asked.kind
            && self.class == asked.class
    }

    /// The lower four bits of the response code.
    pub(crate) fn code(&self) -> u16 {
        self.flags & CODE
    }

    /// The name in lower case with dots; `None` if it is not a host name.
    pub(crate) fn name(&self) -> Option<String> {
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

    /// A reply without records except EDNS, which has the upper bits of the code.
    pub(super) fn reply(&self, code: u16) -> Vec<u8> {
        self.compose(code, 0, 0, &[])
    }

    /// A server's answer as the client gets it: with the client's id, with an OPT record if the
    /// client sent one, and truncated if it exceeds `room` bytes (RFC 2181, 9).
    pub(super) fn relay(&self, mut answer: Vec<u8>, room: usize) -> Vec<u8> {
        let Some(read) = Message::parse(&answer) else { return self.reply(SERVER_FAILURE) };
        let (code, has_opt) = (read.code(), read.edns.opt.is_some());
        let records = read.counts[2];
        // Nothing may follow a signature (RFC 8945, 5.1) or a truncated record.
        if let (Some(opt), false) = (self.edns.opt, has_opt || self.edns.has_others)
            && let (false, Some(count)) = (read.edns.is_malformed, records.checked_add(1))
        {
            answer[10..HEADER].copy_from_slice(&count.to_be_bytes());
            answer.extend(opt.answer(0));
        }
        if answer.len() > room {
            return self.compose(code, TRUNCATED, 0, &[]);
        }
        answer[..2].copy_from_slice(&self.id.to_be_bytes());
        answer
    }

    /// The same query without EDNS; `None` if it has none, or is signed.
    pub(super) fn without_edns(&self) -> Option<Vec<u8>> {
        if self.edns.opt.is_none() || self.edns.has_others {
            return None;
        }
        let mut bytes = Vec::with_capacity(HEADER + self.question.len());
        for value in [self.id, self.flags, 1, 0, 0, 0] {
            bytes.extend(value.to_be_bytes());
        }
        bytes.extend(self.question);
        Some(bytes)
    }

    /// A reply with one record for each of `data`. Their TTL is zero, since they may change at any
    /// time.
    pub(super) fn answer(&self, data: &[Vec<u8>]) -> Vec<u8> {
        let mut records = Vec::new();
        for item in data {
            // A pointer to the name of the question.
            records.extend([0xc0, HEADER as u8]);
            records.extend(self.kind.to_be_bytes());
            records.extend(CLASS_IN.to_be_bytes());
            records.extend(0u32.to_be_bytes());
            records.extend((item.len() as u16).to_be_bytes());
            records.extend(item);
        }
        self.compose(0, 0, data.len() as u16, &records)
    }

    fn compose(&self, code: u16, flag: u16, answers: u16, records: &[u8]) -> Vec<u8> {
        let opt = self.edns.opt.map(|opt| opt.answer((code >> 4) as u8));
        let flags = RESPONSE | RECURSION_OFFERED | self.flags & REPEATED | flag | (code & CODE);
        let mut bytes = Vec::with_capacity(HEADER + self.question.len() + records.len());
        let questions = u16::from(!self.question.is_empty());
        for value in [self.id, flags, questions, answers, 0, opt.is_some().into()] {
            bytes.extend(value.to_be_bytes());
        }
        bytes.extend(self.question);
        bytes.extend(records);
        bytes.extend(opt.into_iter().flatten());
        bytes
    }
}

/// Whether a server's message reports that it does not understand the query with this id, and
/// repeats nothing of it.
pub(super) fn is_bare_error(bytes: &[u8], id: u16) -> bool {
    let understood = |code| ![FORMAT_ERROR, NOT_IMPLEMENTED].contains(&code);
    let header = Message::parse_header(bytes).filter(|header| header.id == id);
    header.is_some_and(|header| {
        header.is_response() && word(bytes, 4) == Some(0) && !understood(header.code())
    })
}

/// The wire format of a name; `None` if the name is not valid.
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

/// The same message with one more record, for tests.
#[cfg(test)]
pub(crate) fn with_opt(bytes: &[u8], record: &[u8]) -> Vec<u8> {
    let mut bytes = [bytes, record].concat();
    bytes[11] += 1;
    bytes
}

/// A client's query, for tests.
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
    use crate::dns::edns::opt;

    #[test]
    fn a_query_is_read_and_answered() {
        let bytes = query(7, "Web.Example", TYPE_A);
        let message = Message::parse(&bytes).unwrap();
        assert!(!message.is_response() && message.is_standard() && !message.is_malformed());
        assert_eq!(message.name().unwrap(), "web.example");
        let reply = message.answer(&[vec![10, 0, 2, 15]]);
        let read = Message::parse(&reply).unwrap();
        assert!(
            read.is_response() && read.is_answer_to(7, &message) && !read.is_answer_to(8, &message)
        );
        assert_eq!(reply[reply.len() - 4..], [10, 0, 2, 15]);
        let other = query(7, "web.example", TYPE_AAAA);
        assert!(!read.is_answer_to(7, &Message::parse(&other).unwrap()));
        let same = query(7, "WEB.example", TYPE_A);
        assert!(read.is_answer_to(7, &Message::parse(&same).unwrap()));
        // Types are case-sensitive: 65 (HTTPS) and 97 are "A" and "a".
        let (upper, lower) = (query(7, "a.b", 65), query(7, "a.b", 97));
        let reply = Message::parse(&lower).unwrap().reply(0);
        assert!(!Message::parse(&reply).unwrap().is_answer_to(7, &Message::parse(&upper).unwrap()));
    }

    #[test]
    fn an_invalid_query_is_not_parsed() {
        let whole = query(7, "a.b", TYPE_A);
        for cut in 0..whole.len() {
            assert_eq!(Message::parse(&whole[..cut]), None, "{cut} bytes");
        }
        let changed = |at: usize, value: u8| {
            let mut bytes = whole.clone();
            bytes[at] = value;
            bytes
        };
        let refused = [(5, 2, "two questions"), (5, 0, "none"), (12, 0xc0, "a compressed name")];
        for (at, value, what) in refused {
            assert_eq!(Message::parse(&changed(at, value)), None, "{what}");
        }
        assert!(Message::parse(&changed(2, 0x80)).unwrap().is_response());
        for (at, what) in [(7, "an answer"), (9, "an authority"), (11, "a record cut off")] {
            assert!(Message::parse(&changed(at, 1)).unwrap().is_malformed(), "{what}");
        }
        let long = vec!["a".repeat(63); 4].join(".");
        assert_eq!(encode_name(&long), None);
    }

    #[test]
    fn replies_have_an_opt_record_if_the_question_has() {
        let bare = query(7, "a.b", TYPE_A);
        assert_eq!(Message::parse(&bare).unwrap().reply(SERVER_FAILURE)[11], 0);
        let asked = with_opt(&bare, &opt(1400, 0, true, &[]));
        let question = Message::parse(&asked).unwrap();
        assert_eq!(question.edns.max_datagram(), 1400);
        for reply in [question.reply(NAME_ERROR), question.answer(&[vec![1, 2, 3, 4]])] {
            let read = Message::parse(&reply).unwrap();
            assert!(read.edns.opt.is_some() && reply[11] == 1, "{reply:?}");
            // The upper bits of the code, the version, and the client's DO.
            assert_eq!(reply[reply.len() - 6..], [0, 0, 0x80, 0, 0, 0]);
        }
        let reply = question.reply(BAD_VERSION);
        assert_eq!((reply[3] & 0x1f, reply[reply.len() - 6]), (0, 1), "16 is 1 and 0");
        // Without a valid question, EDNS is parsed nevertheless.
        let mut none = [&asked[..12], &asked[bare.len()..]].concat();
        none[5] = 0;
        let reply = Message::parse_header(&none).unwrap().reply(FORMAT_ERROR);
        assert_eq!((reply.len(), reply[3] & 15, reply[5], reply[11]), (23, 1, 0, 1));
    }

    #[test]
    fn an_answer_is_relayed_as_its_client_accepts_it() {
        let bare = query(7, "a.b", TYPE_A);
        let asked = with_opt(&bare, &opt(1400, 0, false, &[]));
        let (plain, edns) = (Message::parse(&bare).unwrap(), Message::parse(&asked).unwrap());
        let answer = Message::parse(&query(9, "A.b", TYPE_A)).unwrap().answer(&[vec![1; 4]]);
        let same = plain.relay(answer.clone(), 512);
        assert_eq!((&same[..2], &same[2..]), (&[0, 7][..], &answer[2..]));
        let with = edns.relay(answer.clone(), 512);
        assert_eq!(with.len(), answer.len() + 11);
        assert!(Message::parse(&with).unwrap().edns.opt.is_some());
        assert_eq!(edns.relay(with.clone(), 512), with, "it has one already");
        // It does not fit with the OPT record.
        let cut = edns.relay(answer.clone(), answer.len() + 10);
        assert_eq!((cut.len(), cut[2] & 2, cut[7], cut[11]), (bare.len() + 11, 2, 0, 1));
        let cut = plain.relay(answer.clone(), answer.len() - 1);
        assert_eq!((cut.len(), cut[2] & 2, cut[11]), (bare.len(), 2, 0));
        assert_eq!(edns.relay(answer[..12].to_vec(), 512)[3] & 15, 2, "no question in it");
        assert_eq!(edns.without_edns().as_deref(), Some(&bare[..]));
        assert_eq!(plain.without_edns(), None);
        let tsig = [&[0, 0, 250, 0, 255][..], &[0; 6]].concat();
        let signed = with_opt(&asked, &tsig);
        let signed = Message::parse(&signed).unwrap();
        assert!(!signed.is_malformed() && signed.without_edns().is_none());
        assert_eq!(signed.relay(answer.clone(), 512).len(), answer.len(), "nothing behind it");
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
                let _ = message.relay(bytes.clone(), 512);
            }
            if let Some(message) = Message::parse_header(&bytes) {
                prop_assert!(message.reply(FORMAT_ERROR).len() <= bytes.len());
            }
        }
    }
}
