//! Pseudo-random numbers (xorshift64).

/// A generator. Its state, which is its last number, must not be 0.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Returns a number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
