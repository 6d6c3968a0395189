//! SSDP messages (UPnP Device Architecture 2.0, 1): searches of guests, responses and announcements
//! of devices.

/// Longest message: one packet on most networks.
const LONGEST: usize = 1472;
const SEARCH: &str = "M-SEARCH * HTTP/1.1";
const NOTIFY: &str = "NOTIFY * HTTP/1.1";
const FOUND: &str = "HTTP/1.1 200";

/// The kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A search (1.3.2).
    Search,
    /// A response to a search (1.3.3).
    Found,
    /// A device's announcement (1.2).
    Notify,
    Malformed,
}

/// The kind of a message, by its first line and required fields.
pub(super) fn kind(bytes: &[u8]) -> Kind {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LONGEST);
    let Some((first, rest)) = text.and_then(|text| text.split_once("\r\n")) else {
        return Kind::Malformed;
    };
    let has = |name: &str, value: &str| {
        rest.split("\r\n").filter_map(|line| line.split_once(':')).any(|(field, content)| {
            field.eq_ignore_ascii_case(name) && content.to_ascii_lowercase().contains(value)
        })
    };
    match first {
        SEARCH if has("MAN", "ssdp:discover") => Kind::Search,
        NOTIFY if has("NTS", "ssdp:") => Kind::Notify,
        found if found.starts_with(FOUND) && has("ST", "") => Kind::Found,
        _ => Kind::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_first_line_and_its_fields() {
        let kinds = [
            ("M-SEARCH * HTTP/1.1\r\nMan: \"ssdp:discover\"\r\nST: ssdp:all\r\n\r\n", Kind::Search),
            ("M-SEARCH * HTTP/1.1\r\nST: ssdp:all\r\n\r\n", Kind::Malformed),
            ("NOTIFY * HTTP/1.1\r\nNTS:ssdp:alive\r\nNT: a\r\n\r\n", Kind::Notify),
            ("NOTIFY /x HTTP/1.1\r\nNTS:ssdp:alive\r\nNT: a\r\n\r\n", Kind::Malformed),
            ("HTTP/1.1 200 OK\r\nST: ssdp:all\r\nLOCATION: x\r\n\r\n", Kind::Found),
            ("HTTP/1.1 404 Not Found\r\nST: ssdp:all\r\n\r\n", Kind::Malformed),
            ("", Kind::Malformed),
        ];
        for (text, wanted) in kinds {
            assert_eq!(kind(text.as_bytes()), wanted, "{text}");
        }
        let long = format!("{}{}", kinds[0].0, "x".repeat(LONGEST));
        assert_eq!(kind(long.as_bytes()), Kind::Malformed);
        assert_eq!(kind(b"\xff\xff\r\n"), Kind::Malformed);
    }
}
