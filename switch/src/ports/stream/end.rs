//! Why a connection ends, and which lengths frames have.

use std::fmt;
use std::io;

use trama_frame::ethernet::MIN_HEADER;

/// Bytes of the length in front of a frame.
pub(super) const LENGTH: usize = 4;
/// Shortest frame: an Ethernet header.
pub(super) const MIN_LENGTH: usize = MIN_HEADER;
/// Longest frame.
pub(super) const MAX_LENGTH: usize = 65_550;

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The peer has closed it.
    Closed,
    /// The peer has sent a length that no frame has.
    Length(u32),
    /// The operating system's error, by number.
    Error(i32),
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamEnd::Closed => f.write_str("the peer has closed the connection"),
            StreamEnd::Length(length) => write!(
                f,
                "the peer has sent a frame length of {length}, and a frame has {MIN_LENGTH} to \
                 {MAX_LENGTH} bytes: does it put 4 bytes of length, big-endian, before each frame?"
            ),
            StreamEnd::Error(error) => {
                write!(f, "the connection broke: {}", io::Error::from_raw_os_error(*error))
            }
        }
    }
}
