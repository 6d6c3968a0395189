//! Which frames of a port are sampled.
//!
//! The distance to the next one is random and uniform from 1 to twice the rate less one, so its
//! mean is the rate, and no rhythm of the traffic meets one of the sampler (RFC 5475, section
//! 5.2.2.2; sFlow version 5, section 3.1).

use super::types::Sampling;
use crate::forward::{FrameSet, members};

/// The countdown of one port.
pub(super) struct Sampler {
    /// Frames up to and with the next one that is chosen.
    left: u32,
    /// The longest distance.
    longest: u64,
    /// State of the generator (xorshift64), never 0.
    random: u64,
}

impl Sampler {
    /// `port` makes the distances of each port its own.
    pub(super) fn new(sampling: Sampling, port: u64) -> Sampler {
        let longest = 2 * u64::from(sampling.rate.get()) - 1;
        let random = (sampling.seed ^ port.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        let mut sampler = Sampler { left: 0, longest, random };
        sampler.left = sampler.distance();
        sampler
    }

    /// Returns those of `frames`, in order of arrival, that are chosen.
    #[inline]
    pub(super) fn choose(&mut self, frames: FrameSet) -> FrameSet {
        let count = frames.count_ones();
        if self.left > count {
            self.left -= count;
            return 0;
        }
        self.choose_some(frames)
    }

    #[cold]
    fn choose_some(&mut self, frames: FrameSet) -> FrameSet {
        let mut chosen = 0;
        for i in members(frames) {
            self.left -= 1;
            if self.left == 0 {
                chosen |= 1 << i;
                self.left = self.distance();
            }
        }
        chosen
    }

    fn distance(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let scaled = (u128::from(self.random) * u128::from(self.longest)) >> u64::BITS;
        // At most the longest, which may be one bit too long for the counter.
        u32::try_from(scaled + 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// How many of `total` frames, in bursts of 64, are chosen at this rate.
    fn chosen(rate: u32, seed: u64, total: u32) -> u32 {
        let rate = NonZeroU32::new(rate).unwrap();
        let mut sampler = Sampler::new(Sampling { rate, seed }, 3);
        (0..total / 64).map(|_| sampler.choose(FrameSet::MAX).count_ones()).sum()
    }

    #[test]
    fn one_in_one_is_every_frame() {
        assert_eq!(chosen(1, 9, 6400), 6400);
    }

    #[test]
    fn one_in_many_is_that_part_of_them() {
        for rate in [2, 64, 1000, 65_536] {
            let total = 64_000 * rate;
            for seed in 1..4 {
                let share = f64::from(chosen(rate, seed, total)) / 64_000.0;
                // Four standard deviations of the sum of that many distances.
                assert!((share - 1.0).abs() < 0.0095, "{rate}: {share}");
            }
        }
    }

    #[test]
    fn the_longest_distance_fits() {
        let mut sampler = Sampler::new(Sampling { rate: NonZeroU32::MAX, seed: 1 }, 1);
        assert!((0..1000).all(|_| sampler.distance() > 0));
    }

    #[test]
    fn frames_are_counted_one_by_one_and_in_any_bursts() {
        let sampling = Sampling { rate: NonZeroU32::new(10).unwrap(), seed: 5 };
        let (mut whole, mut split) = (Sampler::new(sampling, 1), Sampler::new(sampling, 1));
        for _ in 0..1000 {
            let parts = [0xffff_ff00_0000_0000, 0x0000_00ff_ffff_ff00, 0xff_u64];
            let in_order = parts.iter().rev().map(|part| split.choose(*part));
            assert_eq!(whole.choose(FrameSet::MAX), in_order.fold(0, |all, it| all | it));
        }
    }
}
