//! Changes inputs: bytes, numbers, pieces, and parts of other inputs.

/// Numbers at the limits of fields.
const LIMITS: [u64; 12] =
    [0, 1, 2, 16, 127, 128, 255, 256, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff_ffff_ffff];

/// A source of inputs; equal seeds give equal inputs.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Makes one.
    pub fn new(seed: u64) -> Mutator {
        // The state of the generator must not be zero.
        Mutator { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// Returns a number below `end`, which is not 0 (xorshift64*, Vigna 2016).
    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (number >> 20) as usize % end
    }

    /// Returns an input: one of the corpus, changed in up to eight places.
    pub fn next(&mut self, corpus: &[Vec<u8>], most: usize) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..1 << self.below(4) {
            self.change(&mut input, corpus);
        }
        input.truncate(most);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let other = &corpus[self.below(corpus.len())];
        if input.is_empty() {
            input.extend_from_slice(other);
            return;
        }
        let at = self.below(input.len());
        match self.below(10) {
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = self.below(256) as u8,
            2 => input[at] = input[at].wrapping_add(self.below(9) as u8).wrapping_sub(4),
            3 | 4 => self.write_number(&mut input[at..]),
            5 => drop(input.drain(at..self.end(at, input.len()))),
            6 => {
                let piece = input[at..self.end(at, input.len())].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, piece);
            }
            7 => {
                let piece: Vec<u8> =
                    (0..1 + self.below(8)).map(|_| self.below(256) as u8).collect();
                input.splice(at..at, piece);
            }
            8 => self.splice(input, at, other),
            _ => input.truncate(at),
        }
    }

    /// Writes one of the [`LIMITS`] in one, two, four or eight bytes, in either order.
    fn write_number(&mut self, to: &mut [u8]) {
        let number = LIMITS[self.below(LIMITS.len())];
        let len = (1 << self.below(4)).min(to.len());
        let bytes = if self.below(2) == 0 {
            number.to_le_bytes()
        } else {
            number.rotate_right(8 * len as u32).to_be_bytes()
        };
        to[..len].copy_from_slice(&bytes[..len]);
    }

    /// Puts a part of another input in the place of a part of this one.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize, other: &[u8]) {
        if other.is_empty() {
            return;
        }
        let from = self.below(other.len());
        let part = &other[from..self.end(from, other.len())];
        let end = self.end(at, input.len());
        input.splice(at..end, part.iter().copied());
    }

    /// Returns an end for a part that begins at `start`: mostly near.
    fn end(&mut self, start: usize, len: usize) -> usize {
        let left = len - start;
        let most = if self.below(4) == 0 { left } else { left.min(16) };
        start + 1 + self.below(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_inputs_and_others_do_not() {
        let corpus = [b"one input".to_vec(), b"another".to_vec(), Vec::new()];
        let inputs = |seed: u64| {
            let mut mutator = Mutator::new(seed);
            (0..1000).map(|_| mutator.next(&corpus, 64)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(3));
        assert!(inputs(1).iter().all(|input| input.len() <= 64));
    }

    #[test]
    fn a_number_stands_in_either_order() {
        let mut mutator = Mutator::new(5);
        let mut seen = [false; 2];
        for _ in 0..10_000 {
            let mut bytes = [7; 4];
            mutator.write_number(&mut bytes);
            seen[0] |= bytes == [0, 1, 7, 7];
            seen[1] |= bytes == [1, 0, 7, 7];
        }
        assert_eq!(seen, [true; 2]);
    }
}
