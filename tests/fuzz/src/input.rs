//! Reads an input piece by piece. Where it ends, the rest is zeros and empty pieces, so that every
//! input has a meaning.

/// The part of an input that has not been read.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// Returns whether all was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads up to `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Reads `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// Reads one byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Reads a number of two bytes, the lower first.
    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Reads a number of eight bytes, the lowest first.
    pub(crate) fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Reads a piece that follows its length.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let len = self.short();
        self.take(usize::from(len))
    }

    /// Reads all that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Appends a piece as [`Input::piece`] reads it.
pub(crate) fn put_piece(input: &mut Vec<u8>, piece: &[u8]) {
    input.extend_from_slice(&(piece.len() as u16).to_le_bytes());
    input.extend_from_slice(piece);
}
