//! Reads the blocks that [`Writer`](super::Writer) writes, from bytes as they come.

use std::borrow::Cow;
use std::time::Duration;

use super::{
    BYTE_ORDER, Block, DIRECTION, Frame, Interface, MAX_SNAPLEN, OUTBOUND, Statistics, Way, kind,
    option,
};

/// The largest block: a frame and its options.
const MAX_BLOCK: usize = MAX_SNAPLEN as usize + (1 << 17);
/// The type and the length of a block.
const HEAD: usize = 8;
/// The length again.
const TAIL: usize = 4;

/// The bytes are no capture of trama's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the capture cannot be read: {0}; does tramad have another version than this program?")]
pub struct Unreadable(String);

/// Takes bytes, and returns the blocks that they make.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
    /// Where the next block begins.
    start: usize,
}

impl Reader {
    /// Adds what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns whether the bytes so far end with a block.
    pub fn is_whole(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// Returns the next block, as bytes and as what they say; `None` until more bytes come.
    ///
    /// # Errors
    /// The bytes are not those of a capture.
    #[allow(clippy::should_implement_trait, reason = "the block borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<(&[u8], Block<'_>)>, Unreadable> {
        let bytes = &self.buffer[self.start..];
        let mut head = Fields(bytes);
        let (Some(kind), Some(length)) = (head.word(), head.word()) else { return Ok(None) };
        let length = length as usize;
        if !(HEAD + TAIL..=MAX_BLOCK).contains(&length) || !length.is_multiple_of(4) {
            return Err(Unreadable(format!("a block has {length} bytes")));
        }
        let Some(bytes) = bytes.get(..length) else { return Ok(None) };
        self.start += length;
        let mut body = Fields(&bytes[HEAD..length - TAIL]);
        let block = match kind {
            kind::SECTION => body.section(),
            kind::INTERFACE => body.interface().map(Block::Interface),
            kind::FRAME => body.frame().map(Block::Frame),
            kind::STATISTICS => body.statistics().map(Block::Statistics),
            _ => None,
        };
        let block = block.ok_or_else(|| Unreadable(format!("a block of type {kind} is wrong")))?;
        Ok(Some((bytes, block)))
    }
}

/// The rest of a block. What is not there is `None`.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Takes this many bytes, and what pads them.
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length.next_multiple_of(4))?;
        self.0 = rest;
        bytes.get(..length)
    }

    fn word(&mut self) -> Option<u32> {
        number(self.bytes(4)?).map(u32::from_le_bytes)
    }

    fn time(&mut self) -> Option<Duration> {
        let (high, low) = (self.word()?, self.word()?);
        Some(Duration::from_nanos(u64::from(high) << 32 | u64::from(low)))
    }

    /// Takes the next option; `None` at the end of the block.
    fn option(&mut self) -> Option<(u16, &'a [u8])> {
        let head = self.word()?;
        let (code, length) = (head as u16, head >> 16);
        if code == option::END {
            return None;
        }
        Some((code, self.bytes(length as usize)?))
    }

    fn section(&mut self) -> Option<Block<'a>> {
        (self.word()? == BYTE_ORDER).then_some(Block::Section)
    }

    fn interface(&mut self) -> Option<Interface<'a>> {
        self.bytes(8)?;
        let mut interface = Interface { name: "".into(), description: "".into() };
        while let Some((code, value)) = self.option() {
            match code {
                option::IF_NAME => interface.name = text(value),
                option::IF_DESCRIPTION => interface.description = text(value),
                _ => {}
            }
        }
        Some(interface)
    }

    fn frame(&mut self) -> Option<Frame<'a>> {
        let (interface, time) = (self.word()?, self.time()?);
        let (captured, len) = (self.word()?, self.word()?);
        let bytes = Cow::Borrowed(self.bytes(captured as usize)?);
        let (way, id, queue, missed, comment) = (Way::In, 0, 0, 0, None);
        let mut frame = Frame { interface, time, way, id, queue, missed, comment, len, bytes };
        while let Some((code, value)) = self.option() {
            match code {
                option::EPB_FLAGS => {
                    let flags = number(value).map(u32::from_le_bytes)?;
                    frame.way = if flags & DIRECTION == OUTBOUND { Way::Out } else { Way::In };
                }
                option::EPB_PACKETID => frame.id = number(value).map(u64::from_le_bytes)?,
                option::EPB_QUEUE => frame.queue = number(value).map(u32::from_le_bytes)?,
                option::EPB_DROPCOUNT => frame.missed = number(value).map(u64::from_le_bytes)?,
                option::COMMENT => frame.comment = Some(text(value)),
                _ => {}
            }
        }
        Some(frame)
    }

    fn statistics(&mut self) -> Option<Statistics<'a>> {
        let (interface, time) = (self.word()?, self.time()?);
        let (mut received, mut missed, mut comment) = (0_u64, 0, None);
        while let Some((code, value)) = self.option() {
            match code {
                option::ISB_IFRECV => received = number(value).map(u64::from_le_bytes)?,
                option::ISB_IFDROP => missed = number(value).map(u64::from_le_bytes)?,
                option::COMMENT => comment = Some(text(value)),
                _ => {}
            }
        }
        let captured = received.saturating_sub(missed);
        Some(Statistics { interface, time, captured, missed, comment })
    }
}

fn number<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.first_chunk().copied()
}

fn text(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value)
}
