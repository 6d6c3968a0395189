//! The virtio-net header in front of every frame, and its validation.
//!
//! A hostile sender may set any field: a checksum that starts outside the frame, a segment size of
//! zero, a protocol that the frame does not carry. [`validate()`] checks all of it once, at
//! ingress; after it the header fits the frame and contains only what the frame needs. A header
//! that requests no offload, by far the most common, costs one comparison.

mod validate;

use std::fmt;

use crate::ethernet::{MAX_TAGS, MIN_HEADER, TAG_LEN};
pub use validate::validate;

/// Length of the header on a ring and on a TAP set to it.
pub const LEN: usize = 12;
/// Number of first bytes of a frame that suffice to check any valid header: eight tags, an IPv4
/// header with all its options (60) and the fixed part of TCP (20) end at 126.
pub const PRIVATE_HEAD: usize = 128;
const _: () = assert!(MIN_HEADER + MAX_TAGS * TAG_LEN + 60 + 20 <= PRIVATE_HEAD);

/// Flag: the receiver has to fill in the checksum, see `csum_start` and `csum_offset`.
pub const NEEDS_CSUM: u8 = 1;
/// Flag: the checksums in the frame have been verified.
pub const DATA_VALID: u8 = 2;
/// Flag: the header describes a frame coalesced by the device. Never negotiated here.
pub const RSC_INFO: u8 = 4;

/// `gso_type`: not a large frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: UDP fragmentation (UFO), which is obsolete. Always refused.
pub const GSO_UDP: u8 = 3;
/// `gso_type`: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: a batch of UDP datagrams (USO).
pub const GSO_UDP_L4: u8 = 5;
/// Bit of `gso_type` for either TCP type: the segment uses explicit congestion notification.
pub const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6), little endian on the ring, in native byte order
/// here.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`], [`RSC_INFO`].
    pub flags: u8,
    /// One of the `GSO_` constants, with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of the frame before the payload of its transport protocol. Only a hint as received;
    /// after [`validate()`], exact for a large frame and 0 for others.
    pub hdr_len: u16,
    /// Payload bytes in each segment (the last may have fewer).
    pub gso_size: u16,
    /// Offset in the frame where the checksum starts.
    pub csum_start: u16,
    /// Offset from `csum_start` of the checksum field.
    pub csum_offset: u16,
    /// Number of buffers that hold the frame; set only by the receiving ring.
    pub num_buffers: u16,
}

impl VnetHeader {
    /// Decodes the header from a ring.
    #[inline]
    pub const fn from_bytes(bytes: &[u8; LEN]) -> VnetHeader {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = *bytes;
        VnetHeader {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    /// Encodes the header for a ring.
    #[inline]
    pub const fn to_bytes(&self) -> [u8; LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1]
    }

    /// Whether the frame is complete: no flag set, not large.
    #[inline]
    pub const fn is_plain(&self) -> bool {
        self.flags == 0 && self.gso_type == GSO_NONE
    }

    /// Whether the checksum has yet to be filled in.
    #[inline]
    pub const fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Whether the frame has to be cut into segments.
    #[inline]
    pub const fn is_gso(&self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// Moves the offsets in the header by `delta` bytes: +4 when a tag is pushed, -4 when one is
    /// popped. Offsets that are not in use stay unchanged.
    #[inline]
    pub const fn shift(&mut self, delta: i16) {
        if self.needs_csum() {
            self.csum_start = self.csum_start.saturating_add_signed(delta);
        }
        if self.is_gso() {
            self.hdr_len = self.hdr_len.saturating_add_signed(delta);
        }
    }

    /// The header after [`shift`](Self::shift).
    #[inline]
    #[must_use]
    pub const fn shifted(mut self, delta: i16) -> VnetHeader {
        self.shift(delta);
        self
    }

    /// Number of frames that [`crate::gso::segment`] makes of a frame of `len` bytes, against which
    /// this header was validated; 1 for a frame that is not large. Lets the caller set a limit.
    #[inline]
    pub const fn segments(&self, len: usize) -> usize {
        let payload = len.saturating_sub(self.hdr_len as usize);
        if self.is_gso() && self.gso_size != 0 {
            payload.div_ceil(self.gso_size as usize)
        } else {
            1
        }
    }
}

/// Why a header does not fit its frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HeaderError {
    /// `csum_start` and `csum_offset` do not lie between the Ethernet header and the end.
    ChecksumOutOfFrame,
    /// A large frame without [`NEEDS_CSUM`].
    GsoWithoutChecksum,
    /// The checksum of a large frame is not where its protocol has it.
    GsoChecksumPlace,
    /// `gso_size` is zero, or there is no payload to cut.
    GsoSize,
    /// Unknown `gso_type`, UFO, or the ECN bit without TCP.
    GsoType,
    /// The frame, or the part of it that was passed, ends before its headers do.
    HeadersTruncated,
    /// EtherType, IP version or protocol do not match `gso_type`, or a header length is impossible.
    ProtocolMismatch,
    /// The IP or UDP length field does not agree with the length of the frame.
    LengthMismatch,
    /// More than [`MAX_TAGS`] VLAN tags before the IP header of a large frame.
    TooManyTags,
    /// IPv6 extension headers before the TCP or UDP header of a large frame.
    ExtensionHeaders,
    /// The large frame is a fragment.
    Fragment,
    /// SYN, RST or URG, which must not be repeated in each segment.
    TcpFlags,
}

impl HeaderError {
    /// One line for users.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::ChecksumOutOfFrame => "checksum start or offset lies outside the frame",
            Self::GsoWithoutChecksum => "large frame without a checksum to fill in",
            Self::GsoChecksumPlace => "checksum of a large frame is not at its protocol's place",
            Self::GsoSize => "large frame with segment size zero or without payload",
            Self::GsoType => "segmentation type is unknown or was never offered",
            Self::HeadersTruncated => "frame ends inside its headers",
            Self::ProtocolMismatch => "segmentation type does not match the frame's protocols",
            Self::LengthMismatch => "IP or UDP length of a large frame is not its length",
            Self::TooManyTags => "large frame with more than eight VLAN tags",
            Self::ExtensionHeaders => "large frame with IPv6 extension headers",
            Self::Fragment => "large frame is an IP fragment",
            Self::TcpFlags => "large frame with SYN, RST or URG",
        }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.describe())
    }
}

impl std::error::Error for HeaderError {}

#[cfg(test)]
mod tests;
