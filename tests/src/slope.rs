//! Whether something costs the more the more of it there is.

use std::time::Duration;

/// Parts of a row of costs, of each of which the cheapest counts: on a machine with other work, that
/// is the one which nothing held up.
const PARTS: usize = 100;

/// A line through costs, by least squares, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Slope {
    /// What the first cost.
    pub first: f64,
    /// What each thousandth more cost more.
    pub per_thousand: f64,
    /// What the last cost more than the first.
    pub growth: f64,
}

impl Slope {
    /// Of costs in their order, some hundreds at least.
    pub fn of(costs: &[Duration]) -> Slope {
        let micros = |cost: &Duration| cost.as_secs_f64() * 1e6;
        let cheapest = |part: &[Duration]| part.iter().map(micros).fold(f64::MAX, f64::min);
        let parts: Vec<f64> = costs.chunks(costs.len().div_ceil(PARTS)).map(cheapest).collect();
        let count = parts.len() as f64;
        let middle = (count - 1.0) / 2.0;
        let mean = parts.iter().sum::<f64>() / count;
        let offsets = (0..parts.len()).map(|place| place as f64 - middle);
        let spread: f64 = offsets.clone().map(|offset| offset * offset).sum();
        let rise: f64 = offsets.zip(&parts).map(|(offset, cost)| offset * (cost - mean)).sum();
        let growth = rise / spread * (count - 1.0);
        let per_thousand = growth / costs.len() as f64 * 1000.0;
        Slope { first: mean - growth / 2.0, per_thousand, growth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_among_delays() {
        let cost = |number: u64| {
            let delay = if number.is_multiple_of(3) { 1000 } else { 0 };
            Duration::from_micros(50 + number / 100 + delay)
        };
        let slope = Slope::of(&(0..10_000).map(cost).collect::<Vec<_>>());
        assert!((49.0..51.0).contains(&slope.first), "{slope:?}");
        assert!((9.9..10.1).contains(&slope.per_thousand), "{slope:?}");
        assert!((98.0..101.0).contains(&slope.growth), "{slope:?}");
    }
}
