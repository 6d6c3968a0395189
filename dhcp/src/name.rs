//! Domain names and host names: checked once, then plain text everywhere.
//!
//! Names of guests reach a DNS forwarder and people's terminals, so only letters, digits, hyphens
//! and (in domains) underscores pass (RFC 952, RFC 1123). They are kept in lower case, without the
//! dot of the root, as DNS compares them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest name in text, without the root's dot (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
/// Top two bits of a compression pointer (RFC 1035, 4.1.4).
const POINTER: u16 = 0xc000;
/// Highest offset of a compression pointer.
const MAX_OFFSET: u16 = 0x3fff;

/// The text is no domain name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "not a domain name: write labels of 1 to 63 letters, digits or hyphens, joined by dots, \
     at most 253 characters, as in lab.example"
)]
pub struct ParseNameError;

/// A domain name such as `lab.example`, in lower case, without the final dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(Box<str>);

/// A name of one label, such as `vm1`, in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Box<str>);

macro_rules! is_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ParseNameError;

            fn try_from(text: String) -> Result<$name, ParseNameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }
    };
}

is_text!(DomainName);
is_text!(HostName);

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in the wire format of RFC 1035, 3.1, uncompressed, appended to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        for label in self.0.split('.') {
            emit_label(label, out);
        }
        out.push(0);
    }
}

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label of the name that a client asks for: `vm1` of `vm1` and of `vm1.lab.example`,
    /// with or without a trailing dot or NUL. `None` if that is no host name.
    pub fn from_client(text: &[u8]) -> Option<HostName> {
        let text = text.split(|byte| *byte == 0 || *byte == b'.').next()?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// The first label of an uncompressed name in wire format (RFC 1035, 3.1).
    pub fn from_wire(name: &[u8]) -> Option<HostName> {
        let (length, rest) = name.split_first()?;
        let label = rest.get(..usize::from(*length))?;
        std::str::from_utf8(label).ok()?.parse().ok()
    }
}

impl FromStr for DomainName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<DomainName, ParseNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let good = text.len() <= MAX_NAME && text.split('.').all(|label| is_label(label, true));
        if good { Ok(DomainName(text.to_ascii_lowercase().into())) } else { Err(ParseNameError) }
    }
}

impl FromStr for HostName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<HostName, ParseNameError> {
        let good = is_label(text, false);
        if good { Ok(HostName(text.to_ascii_lowercase().into())) } else { Err(ParseNameError) }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn is_label(label: &str, underscore: bool) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || (underscore && b == b'_');
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn emit_label(label: &str, out: &mut Vec<u8>) {
    // A checked label has at most 63 bytes.
    out.push(label.len() as u8);
    out.extend_from_slice(label.as_bytes());
}

/// A list of names in wire format, each tail that occurred before replaced by a pointer to it
/// (RFC 1035, 4.1.4), offsets from the start of the list (RFC 3397).
pub fn emit_compressed(names: &[DomainName]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seen: Vec<(&str, u16)> = Vec::new();
    for name in names {
        let mut rest = name.as_str();
        loop {
            if let Some((_, at)) = seen.iter().find(|(tail, _)| *tail == rest) {
                out.extend_from_slice(&(POINTER | at).to_be_bytes());
                break;
            }
            if let Ok(at) = u16::try_from(out.len())
                && at <= MAX_OFFSET
            {
                seen.push((rest, at));
            }
            let (label, tail) = rest.split_once('.').unwrap_or((rest, ""));
            emit_label(label, &mut out);
            if tail.is_empty() {
                out.push(0);
                break;
            }
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    /// Reads a list back, following pointers backwards only.
    fn expand(list: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = 0;
        while at < list.len() {
            let (mut labels, mut cursor, mut end) = (Vec::new(), at, None);
            loop {
                let length = usize::from(list[cursor]);
                if length >= 0xc0 {
                    end.get_or_insert(cursor + 2);
                    let target = (length & 0x3f) << 8 | usize::from(list[cursor + 1]);
                    assert!(target < cursor);
                    cursor = target;
                } else if length == 0 {
                    end.get_or_insert(cursor + 1);
                    break;
                } else {
                    let label = &list[cursor + 1..cursor + 1 + length];
                    labels.push(String::from_utf8(label.to_vec()).unwrap());
                    cursor += 1 + length;
                }
            }
            names.push(labels.join("."));
            at = end.unwrap();
        }
        names
    }

    #[test]
    fn search_list_of_rfc_3397() {
        let list = emit_compressed(&[domain("eng.apple.com"), domain("marketing.apple.com")]);
        let mut expected = b"\x03eng\x05apple\x03com\0".to_vec();
        expected.extend_from_slice(b"\x09marketing\xc0\x04");
        assert_eq!(list, expected);
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(64);
        let many = ["a"; 128].join(".");
        for text in ["", ".", "a..b", "-a", "a-", "a b", "ä", "a\0", long.as_str(), many.as_str()]
        {
            assert_eq!(text.parse::<DomainName>(), Err(ParseNameError), "{text:?}");
        }
        assert_eq!(domain("Lab.Example.").as_str(), "lab.example");
        assert_eq!("a.b".parse::<HostName>(), Err(ParseNameError));
        assert_eq!("a_b".parse::<HostName>(), Err(ParseNameError));
    }

    #[test]
    fn clients_names_lose_domain_and_terminator() {
        for text in ["VM1", "vm1.lab.example", "vm1.", "vm1\0\0"] {
            assert_eq!(HostName::from_client(text.as_bytes()).unwrap().as_str(), "vm1", "{text}");
        }
        for text in ["", ".", "localhost localdomain", "\x1b[31m"] {
            assert_eq!(HostName::from_client(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(HostName::from_wire(b"\x03vm1\x03lab\0").unwrap().as_str(), "vm1");
        assert_eq!(HostName::from_wire(b"\x09vm1"), None);
        assert_eq!(HostName::from_wire(b""), None);
    }

    proptest! {
        #[test]
        fn compression_loses_nothing(
            names in prop::collection::vec("[a-c]{1,3}(\\.[a-c]{1,3}){0,4}", 0..12),
        ) {
            let list: Vec<DomainName> = names.iter().map(|name| domain(name)).collect();
            let bytes = emit_compressed(&list);
            prop_assert_eq!(expand(&bytes), names);
            let plain: usize = list.iter().map(|name| name.as_str().len() + 2).sum();
            prop_assert!(bytes.len() <= plain);
        }
    }
}
