//! Software segmentation of one large TCP or UDP frame.

use std::fmt;

use crate::vnet::{HeaderError, VnetHeader};

/// Why a frame was not cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoError {
    /// The header does not fit the frame: it was not validated, or against other bytes.
    Header(HeaderError),
    /// `scratch` cannot hold the headers and one segment's payload.
    ScratchTooSmall,
}

impl fmt::Display for GsoError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GsoError::Header(cause) => cause.fmt(out),
            GsoError::ScratchTooSmall => out.write_str("scratch buffer is smaller than a segment"),
        }
    }
}

impl std::error::Error for GsoError {}

/// Cuts a large frame.
pub fn segment(
    frame: &[u8],
    header: &VnetHeader,
    scratch: &mut [u8],
    mut emit: impl FnMut(&[u8]),
) -> Result<usize, GsoError> {
    let _ = (frame, header, scratch, &mut emit);
    Err(GsoError::ScratchTooSmall)
}
