//! The wire format of names and words (RFC 1035, section 4).

/// The 16-bit word at offset `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The offset after the name at `at`, which may be compressed.
pub(super) fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            // A pointer ends the name (RFC 1035, 4.1.4).
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}
