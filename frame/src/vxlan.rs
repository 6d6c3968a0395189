//! The header of VXLAN (RFC 7348, section 5): a frame in a datagram of UDP, with the number of the
//! segment that it belongs to.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! | R R R R I R R R |                 reserved                    |
//! |                VNI                            |   reserved    |
//! ```

use std::fmt;

/// Bytes of the header.
pub const LEN: usize = 8;

/// The UDP port that IANA has assigned.
pub const PORT: u16 = 4789;

/// The flag I: the header has a VNI.
const HAS_VNI: u8 = 0x08;

/// A VXLAN network identifier: a number of 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Vni(u32);

impl Vni {
    /// The largest number.
    pub const MAX: u32 = (1 << 24) - 1;

    /// Returns the identifier of this number; `None` if it has more than 24 bits.
    pub const fn new(number: u32) -> Option<Vni> {
        if number <= Vni::MAX { Some(Vni(number)) } else { None }
    }

    /// Returns its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a datagram is not one of VXLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VxlanError {
    /// It ends within the header.
    Short,
    /// The flag I is not set.
    NoVni,
}

/// Returns the header of a frame; all reserved bits are zero.
pub const fn header(vni: Vni) -> [u8; LEN] {
    let [_, a, b, c] = vni.0.to_be_bytes();
    [HAS_VNI, 0, 0, 0, a, b, c, 0]
}

/// Returns the VNI of a datagram. Reserved bits are ignored. The frame follows after [`LEN`] bytes.
///
/// # Errors
/// The datagram is too short, or its header has no VNI.
pub fn parse(datagram: &[u8]) -> Result<Vni, VxlanError> {
    let Some([flags, _, _, _, a, b, c, _]) = datagram.first_chunk::<LEN>() else {
        return Err(VxlanError::Short);
    };
    if flags & HAS_VNI == 0 {
        return Err(VxlanError::NoVni);
    }
    Ok(Vni(u32::from_be_bytes([0, *a, *b, *c])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_is_that_of_the_rfc() {
        let vni = Vni::new(0x01_0203).unwrap();
        assert_eq!(header(vni), [0x08, 0, 0, 0, 1, 2, 3, 0]);
        assert_eq!(Vni::new(1 << 24), None);
        assert_eq!(Vni::new(Vni::MAX).map(Vni::get), Some(0xff_ffff));
    }

    #[test]
    fn what_has_no_vni_is_refused() {
        assert_eq!(parse(&[8; 7]), Err(VxlanError::Short));
        assert_eq!(parse(&[]), Err(VxlanError::Short));
        assert_eq!(parse(&[0xf7, 0, 0, 0, 0, 0, 1, 0]), Err(VxlanError::NoVni));
    }

    proptest! {
        #[test]
        fn a_header_is_read_whatever_its_reserved_bits(
            number in 0..=Vni::MAX,
            flags: u8,
            reserved: [u8; 3],
            last: u8,
            frame: Vec<u8>,
        ) {
            let vni = Vni::new(number).unwrap();
            let mut datagram = header(vni).to_vec();
            datagram.extend(frame);
            prop_assert_eq!(parse(&datagram), Ok(vni));
            datagram[0] |= flags;
            datagram[1..4].copy_from_slice(&reserved);
            datagram[7] = last;
            prop_assert_eq!(parse(&datagram), Ok(vni));
        }
    }
}
