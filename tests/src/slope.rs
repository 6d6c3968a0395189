//! Detects costs that grow with the number of items.

/// A least-squares line through costs.
#[derive(Clone, Copy, Debug)]
pub struct Slope {
    /// The cost at the start.
    pub first: f64,
    /// The additional cost at the end.
    pub growth: f64,
}

/// Number of sections of the costs whose medians are used: on a busy machine, some costs are
/// outliers.
const PARTS: usize = 10;

impl Slope {
    /// Fits costs in their order, several for each section.
    pub fn of(costs: &[f64]) -> Slope {
        let parts: Vec<f64> = costs.chunks(costs.len().div_ceil(PARTS)).map(median).collect();
        let count = parts.len() as f64;
        let mean = parts.iter().sum::<f64>() / count;
        let offsets = (0..parts.len()).map(|place| place as f64 - (count - 1.0) / 2.0);
        let spread: f64 = offsets.clone().map(|offset| offset * offset).sum();
        let rise: f64 = offsets.zip(&parts).map(|(offset, cost)| offset * (cost - mean)).sum();
        // Over the full length, from before the first section's middle to after the last one's.
        let growth = rise / spread * count;
        Slope { first: mean - growth / 2.0, growth }
    }
}

fn median(costs: &[f64]) -> f64 {
    let mut sorted = costs.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_among_delays() {
        let cost = |number: u32| {
            let delay = if number.is_multiple_of(3) { 1000.0 } else { 0.0 };
            50.0 + f64::from(number) + delay
        };
        let slope = Slope::of(&(0..100).map(cost).collect::<Vec<_>>());
        assert!((45.0..60.0).contains(&slope.first), "{slope:?}");
        assert!((90.0..110.0).contains(&slope.growth), "{slope:?}");
    }
}
