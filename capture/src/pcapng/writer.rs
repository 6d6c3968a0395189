//! Writes the blocks.

use std::io::{self, Write};
use std::time::Duration;

use super::{
    BYTE_ORDER, ETHERNET, Frame, INBOUND, Interface, NANOSECONDS, OUTBOUND, Statistics, Way, kind,
    option,
};

/// Writes a capture, one block a call to the output.
pub struct Writer<W> {
    out: W,
    /// The block that is being made.
    block: Vec<u8>,
    snaplen: u32,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Begins a section. `application` writes it; `snaplen` bytes of a frame are captured at most.
    ///
    /// # Errors
    /// `out` fails.
    pub fn new(out: W, application: &str, snaplen: u32) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, block: Vec::new(), snaplen, interfaces: 0 };
        writer.begin(kind::SECTION);
        writer.word(BYTE_ORDER);
        // Version 1.0, and no length: the file goes on to its end.
        writer.block.extend([1, 0, 0, 0]);
        writer.block.extend([0xff; 8]);
        writer.option(option::SHB_USERAPPL, application.as_bytes());
        writer.end()?;
        Ok(writer)
    }

    /// Where the blocks are written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Adds a port; returns its place among the interfaces.
    ///
    /// # Errors
    /// The output fails.
    pub fn interface(&mut self, interface: &Interface<'_>) -> io::Result<u32> {
        self.begin(kind::INTERFACE);
        self.block.extend(ETHERNET.to_le_bytes());
        self.block.extend([0; 2]);
        self.word(self.snaplen);
        self.option(option::IF_NAME, interface.name.as_bytes());
        self.option(option::IF_DESCRIPTION, interface.description.as_bytes());
        self.option(option::IF_TSRESOL, &[NANOSECONDS]);
        self.end()?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// The output fails.
    pub fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        self.begin(kind::FRAME);
        self.word(frame.interface);
        self.time(frame.time);
        self.word(frame.bytes.len() as u32);
        self.word(frame.len);
        self.block.extend_from_slice(&frame.bytes);
        self.pad();
        let direction = match frame.way {
            Way::In => INBOUND,
            Way::Out => OUTBOUND,
        };
        self.option(option::EPB_FLAGS, &direction.to_le_bytes());
        self.option(option::EPB_PACKETID, &frame.id.to_le_bytes());
        self.option(option::EPB_QUEUE, &frame.queue.to_le_bytes());
        if frame.missed > 0 {
            self.option(option::EPB_DROPCOUNT, &frame.missed.to_le_bytes());
        }
        if let Some(comment) = &frame.comment {
            self.option(option::COMMENT, comment.as_bytes());
        }
        self.end()
    }

    /// Ends a port.
    ///
    /// # Errors
    /// The output fails.
    pub fn statistics(&mut self, statistics: &Statistics<'_>) -> io::Result<()> {
        let Statistics { captured, missed, .. } = *statistics;
        self.begin(kind::STATISTICS);
        self.word(statistics.interface);
        self.time(statistics.time);
        self.option(option::ISB_IFRECV, &captured.saturating_add(missed).to_le_bytes());
        self.option(option::ISB_IFDROP, &missed.to_le_bytes());
        if let Some(comment) = &statistics.comment {
            self.option(option::COMMENT, comment.as_bytes());
        }
        self.end()
    }

    /// Begins a block; its length is filled in by `end`.
    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.word(kind);
        self.word(0);
    }

    fn word(&mut self, word: u32) {
        self.block.extend_from_slice(&word.to_le_bytes());
    }

    /// The upper half of the nanoseconds, then the lower one; until the year 2554.
    fn time(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.word((nanoseconds >> 32) as u32);
        self.word(nanoseconds as u32);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        // A longer text is cut; it has no meaning that its reader depends on.
        let value = &value[..value.len().min(u16::MAX.into())];
        self.block.extend_from_slice(&code.to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }

    /// Fills up to a multiple of four bytes.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// Ends the options and the block, and writes it.
    fn end(&mut self) -> io::Result<()> {
        self.option(option::END, &[]);
        let length = self.block.len() as u32 + 4;
        self.word(length);
        self.block[4..8].copy_from_slice(&length.to_le_bytes());
        self.out.write_all(&self.block)
    }
}
