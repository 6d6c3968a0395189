//! DHCP options as they lie in a message: code, length, value, in up to three fields.
//!
//! An option may occur several times; its value is the concatenation in the order of RFC 3396:
//! the options field, then `file`, then `sname` where option 52 says that they hold options. Only
//! such an option is copied when it is read.

use std::borrow::Cow;
use std::net::Ipv4Addr;

/// Option codes (RFC 2132 unless said otherwise).
#[allow(missing_docs, reason = "the names are those of the standards")]
pub mod code {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// RFC 3004.
    pub const USER_CLASS: u8 = 77;
    /// RFC 4039.
    pub const RAPID_COMMIT: u8 = 80;
    /// RFC 4702.
    pub const CLIENT_FQDN: u8 = 81;
    /// RFC 3046.
    pub const RELAY_INFO: u8 = 82;
    /// RFC 4578.
    pub const CLIENT_ARCH: u8 = 93;
    /// RFC 4578.
    pub const MACHINE_ID: u8 = 97;
    /// RFC 3397.
    pub const DOMAIN_SEARCH: u8 = 119;
    /// RFC 3442.
    pub const STATIC_ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

/// The options of a message, in reading order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options<'a> {
    pieces: Vec<(u8, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Reads the options field, and `file` and `sname` if option 52 says so.
    pub fn parse(field: &'a [u8], file: &'a [u8], sname: &'a [u8]) -> Options<'a> {
        let mut options = Options::default();
        options.read_field(field);
        // spec: rfc2131 fields-in-order
        let [overload] = options.fixed(code::OVERLOAD).unwrap_or_default();
        if overload & 1 != 0 {
            options.read_field(file);
        }
        if overload & 2 != 0 {
            options.read_field(sname);
        }
        options
    }

    /// Takes options up to End, the end of the field, or the first that runs past it.
    fn read_field(&mut self, mut field: &'a [u8]) {
        loop {
            field = match *field {
                [code::PAD, ref rest @ ..] => rest,
                [code, length, ref rest @ ..] if code != code::END => {
                    let Some((value, rest)) = rest.split_at_checked(length.into()) else { return };
                    self.pieces.push((code, value));
                    rest
                }
                _ => return,
            }
        }
    }

    /// The value of an option, its pieces joined.
    pub fn get(&self, code: u8) -> Option<Cow<'a, [u8]>> {
        let mut pieces = self.pieces.iter().filter(|piece| piece.0 == code).map(|piece| piece.1);
        let first = pieces.next()?;
        Some(match pieces.next() {
            None => Cow::Borrowed(first),
            Some(second) => {
                let mut joined = [first, second].concat();
                pieces.for_each(|piece| joined.extend_from_slice(piece));
                Cow::Owned(joined)
            }
        })
    }

    /// The codes that occur, in order, an option in several pieces several times.
    pub fn codes(&self) -> impl Iterator<Item = u8> + '_ {
        self.pieces.iter().map(|piece| piece.0)
    }

    /// The first `N` octets of an option; `None` if it is shorter.
    pub fn fixed<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.get(code)?.first_chunk().copied()
    }

    /// An option that holds one address; the unspecified address counts as absent.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let address = self.fixed::<4>(code).map(Ipv4Addr::from);
        address.filter(|address| !address.is_unspecified())
    }

    /// The value of an option, copied; `None` if its length is not from `min` to 255.
    pub fn bytes(&self, code: u8, min: usize) -> Option<Vec<u8>> {
        self.get(code).filter(|value| (min..=255).contains(&value.len())).map(Cow::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(field: &'a [u8], file: &'a [u8], sname: &'a [u8]) -> Options<'a> {
        Options::parse(field, file, sname)
    }

    #[test]
    fn pads_and_what_follows_end_are_skipped() {
        let options = parse(&[0, 0, 53, 1, 3, 0, 255, 12, 9], &[], &[]);
        assert_eq!(options.codes().collect::<Vec<_>>(), [53]);
        assert_eq!(options.fixed::<1>(53), Some([3]));
        assert_eq!(options.get(12), None);
    }

    #[test]
    fn a_field_ends_without_end_and_before_what_runs_past_it() {
        for (field, codes) in [
            (&[53, 1, 1][..], &[53][..]),
            (&[53, 1, 1, 0, 0], &[53]),
            (&[53, 1, 1, 61, 255], &[53]),
            (&[53, 1, 1, 61], &[53]),
            (&[53, 2, 1], &[]),
            (&[53], &[]),
            (&[0, 0], &[]),
            (&[], &[]),
        ] {
            assert_eq!(parse(field, &[], &[]).codes().collect::<Vec<_>>(), codes, "{field:?}");
        }
    }

    // spec-test: rfc2131 fields-in-order
    #[test]
    fn overload_adds_file_then_sname() {
        let file = [12, 1, b'b', 255];
        let sname = [12, 1, b'c', 255];
        for (overload, expected) in [(1, "ab"), (2, "ac"), (3, "abc")] {
            let field = [12, 1, b'a', 52, 1, overload, 255];
            let options = parse(&field, &file, &sname);
            assert_eq!(options.get(12).unwrap().as_ref(), expected.as_bytes(), "{overload}");
        }
        // The fields hold no options unless option 52 says so.
        assert_eq!(parse(&[12, 1, b'a', 255], &file, &sname).get(12).unwrap().as_ref(), b"a");
        for lie in [&[52, 1, 0, 255][..], &[52, 1, 4, 255], &[52, 0, 255]] {
            assert_eq!(parse(lie, &file, &sname).get(12), None, "{lie:?}");
        }
    }

    #[test]
    fn an_overloaded_field_without_whole_options_adds_none() {
        let options = parse(&[53, 1, 1, 52, 1, 3, 255], &[12, 9, 0], b"boot.example");
        assert_eq!(options.codes().collect::<Vec<_>>(), [53, 52]);
        // What an overloaded field says of overloading counts for nothing.
        let options = parse(&[52, 1, 1, 255], &[52, 1, 2, 255], &[12, 1, b'c', 255]);
        assert_eq!(options.get(12), None);
    }

    #[test]
    fn pieces_are_joined_over_other_options() {
        let options = parse(&[121, 2, 1, 2, 12, 1, b'a', 121, 0, 121, 1, 3, 255], &[], &[]);
        assert_eq!(options.get(121).unwrap().as_ref(), [1, 2, 3]);
        assert!(matches!(options.get(12), Some(Cow::Borrowed(b"a"))));
    }

    #[test]
    fn an_option_that_is_too_short_counts_as_absent() {
        let options = parse(&[50, 5, 10, 0, 0, 1, 9, 54, 4, 0, 0, 0, 0, 51, 2, 0, 1], &[], &[]);
        assert_eq!(options.address(50), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(options.address(54), None);
        assert_eq!(options.fixed::<4>(51), None);
        assert_eq!(options.bytes(51, 2), Some(vec![0, 1]));
        assert_eq!(options.bytes(51, 3), None);
        assert_eq!(options.bytes(99, 3), None);
    }
}
