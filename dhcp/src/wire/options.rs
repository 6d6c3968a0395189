//! DHCP options as they lie in a message: code, length, value, in up to three fields.
//!
//! An option may occur several times; its value is the concatenation in the order of RFC 3396:
//! the options field, then `file`, then `sname` where option 52 says that they hold options. Only
//! such an option is copied when it is read.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use crate::DropReason;

/// Option codes (RFC 2132 unless said otherwise).
#[allow(missing_docs)]
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

/// The options of a message, in the order in which they are to be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options<'a> {
    pieces: Vec<(u8, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Reads the options field, and `file` and `sname` if option 52 says so.
    ///
    /// # Errors
    /// [`DropReason::OptionOverrun`] if an option does not fit its field, or the options field has
    /// no End; [`DropReason::OptionLength`] if option 52 is not one octet of 1, 2 or 3.
    pub fn parse(
        field: &'a [u8],
        file: &'a [u8],
        sname: &'a [u8],
    ) -> Result<Options<'a>, DropReason> {
        let mut options = Options::default();
        options.read_field(field)?;
        let overload = match options.pieces.iter().find(|(code, _)| *code == code::OVERLOAD) {
            None => 0,
            Some((_, [overload @ 1..=3])) => *overload,
            Some(_) => return Err(DropReason::OptionLength),
        };
        if overload & 1 != 0 {
            options.read_field(file)?;
        }
        if overload & 2 != 0 {
            options.read_field(sname)?;
        }
        Ok(options)
    }

    fn read_field(&mut self, mut field: &'a [u8]) -> Result<(), DropReason> {
        loop {
            field = match *field {
                [code::END, ..] => return Ok(()),
                [code::PAD, ref rest @ ..] => rest,
                [code, length, ref rest @ ..] => {
                    let (value, rest) = rest
                        .split_at_checked(usize::from(length))
                        .ok_or(DropReason::OptionOverrun)?;
                    self.pieces.push((code, value));
                    rest
                }
                _ => return Err(DropReason::OptionOverrun),
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

    /// The value of an option that has exactly `N` octets.
    ///
    /// # Errors
    /// [`DropReason::OptionLength`] if it has another length.
    pub fn fixed<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, DropReason> {
        let exact = |value: Cow<'_, [u8]>| {
            <[u8; N]>::try_from(value.as_ref()).map_err(|_| DropReason::OptionLength)
        };
        self.get(code).map(exact).transpose()
    }

    /// An option that holds one address; the unspecified address counts as absent.
    ///
    /// # Errors
    /// [`DropReason::OptionLength`] if it is not four octets.
    pub fn address(&self, code: u8) -> Result<Option<Ipv4Addr>, DropReason> {
        let address = self.fixed::<4>(code)?.map(Ipv4Addr::from);
        Ok(address.filter(|address| !address.is_unspecified()))
    }

    /// The value of an option with a length from `min` to `max`, copied.
    ///
    /// # Errors
    /// [`DropReason::OptionLength`] if its length is out of that range.
    pub fn bytes(&self, code: u8, min: usize, max: usize) -> Result<Option<Vec<u8>>, DropReason> {
        match self.get(code) {
            Some(value) if !(min..=max).contains(&value.len()) => Err(DropReason::OptionLength),
            value => Ok(value.map(Cow::into_owned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(field: &'a [u8], file: &'a [u8], sname: &'a [u8]) -> Options<'a> {
        Options::parse(field, file, sname).unwrap()
    }

    #[test]
    fn pads_and_what_follows_end_are_skipped() {
        let options = parse(&[0, 0, 53, 1, 3, 0, 255, 12, 9], &[], &[]);
        assert_eq!(options.codes().collect::<Vec<_>>(), [53]);
        assert_eq!(options.fixed::<1>(53), Ok(Some([3])));
        assert_eq!(options.get(12), None);
    }

    #[test]
    fn overruns_are_refused() {
        for field in [&[53, 2, 1][..], &[53], &[53, 1, 1], &[], &[0, 0], &[53, 1, 1, 61, 255]] {
            assert_eq!(
                Options::parse(field, &[], &[]),
                Err(DropReason::OptionOverrun),
                "{field:?}"
            );
        }
    }

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
        for bad in [&[52, 1, 0, 255][..], &[52, 1, 4, 255], &[52, 2, 1, 1, 255], &[52, 0, 255]] {
            let result = Options::parse(bad, &file, &sname);
            assert_eq!(result, Err(DropReason::OptionLength), "{bad:?}");
        }
    }

    #[test]
    fn an_overloaded_field_must_hold_whole_options() {
        let result = Options::parse(&[52, 1, 1, 255], &[12, 9, 0], &[]);
        assert_eq!(result, Err(DropReason::OptionOverrun));
    }

    #[test]
    fn pieces_are_joined_over_other_options() {
        let options = parse(&[121, 2, 1, 2, 12, 1, b'a', 121, 0, 121, 1, 3, 255], &[], &[]);
        assert_eq!(options.get(121).unwrap().as_ref(), [1, 2, 3]);
        assert!(matches!(options.get(12), Some(Cow::Borrowed(b"a"))));
    }

    #[test]
    fn lengths_are_checked() {
        let options = parse(&[50, 4, 10, 0, 0, 1, 54, 4, 0, 0, 0, 0, 51, 2, 0, 1, 255], &[], &[]);
        assert_eq!(options.address(50), Ok(Some(Ipv4Addr::new(10, 0, 0, 1))));
        assert_eq!(options.address(54), Ok(None));
        assert_eq!(options.fixed::<4>(51), Err(DropReason::OptionLength));
        assert_eq!(options.bytes(51, 2, 2), Ok(Some(vec![0, 1])));
        assert_eq!(options.bytes(51, 3, 9), Err(DropReason::OptionLength));
        assert_eq!(options.bytes(51, 0, 1), Err(DropReason::OptionLength));
        assert_eq!(options.bytes(99, 3, 9), Ok(None));
    }
}
