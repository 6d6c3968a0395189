//! MAC addresses: six octets, compared and hashed as a value, written `52:54:00:00:00:01`.

use std::fmt;
use std::str::FromStr;

/// An IEEE 802 MAC address (EUI-48), octets in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The broadcast address, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// `00:00:00:00:00:00`: never a valid source.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Group address (I/G bit set): multicast or broadcast.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// All octets zero.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }

    /// `01:80:c2:00:00:00` to `:0f`, the group addresses that a bridge never forwards
    /// (IEEE 802.1Q-2022, table 8-1).
    #[inline]
    pub const fn is_reserved_group(self) -> bool {
        self.to_u64() & !0xf == 0x0180_c200_0000
    }

    /// The address in the low 48 bits, first octet most significant.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The low 48 bits of `value`, first octet most significant; the rest is ignored.
    #[inline]
    pub const fn from_u64(value: u64) -> MacAddr {
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        MacAddr([a, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The text is not six pairs of hexadecimal digits joined by colons.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(
            "not a MAC address: write six pairs of hexadecimal digits as in 52:54:00:00:00:01",
        )
    }
}

impl std::error::Error for ParseMacError {}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<MacAddr, ParseMacError> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            *octet = parts.next().and_then(parse_octet).ok_or(ParseMacError)?;
        }
        if parts.next().is_some() { Err(ParseMacError) } else { Ok(MacAddr(octets)) }
    }
}

fn parse_octet(text: &str) -> Option<u8> {
    // from_str_radix alone would accept "+1".
    let is_pair = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_pair { u8::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_group_is_sixteen_addresses() {
        let base = 0x0180_c200_0000;
        for low in 0..16 {
            assert!(MacAddr::from_u64(base + low).is_reserved_group());
        }
        assert!(!MacAddr::from_u64(base + 16).is_reserved_group());
        assert!(!MacAddr::from_u64(base - 1).is_reserved_group());
        assert!(!MacAddr::BROADCAST.is_reserved_group());
    }

    #[test]
    fn group_bit_is_the_lowest_of_the_first_octet() {
        assert!(MacAddr::BROADCAST.is_multicast());
        assert!(MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_multicast());
        assert!(!MacAddr([0x52, 0xff, 0xff, 0xff, 0xff, 0xff]).is_multicast());
        assert!(MacAddr::ZERO.is_zero());
        assert!(!MacAddr([0, 0, 0, 0, 0, 1]).is_zero());
    }

    #[test]
    fn bad_text_is_refused() {
        for text in [
            "",
            "52:54:00:00:00",
            "52:54:00:00:00:01:02",
            "52:54:00:00:00:1",
            "52:54:00:00:00:+1",
            "52:54:00:00:00:0g",
            "52-54-00-00-00-01",
            "52:54:00:00:00:01 ",
            "52:54:00:00:00:é",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(ParseMacError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_number_round_trip(octets: [u8; 6]) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_uppercase().parse::<MacAddr>(), Ok(mac));
            prop_assert_eq!(MacAddr::from_u64(mac.to_u64() | 0xabcd << 48), mac);
        }
    }
}
