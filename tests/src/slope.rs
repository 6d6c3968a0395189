//! Whether something costs the more the more of it there is.

/// A line through costs, by least squares.
#[derive(Clone, Copy, Debug)]
pub struct Slope {
    /// What it costs at first.
    pub first: f64,
    /// What it costs more at last.
    pub growth: f64,
}

/// Parts of a row of costs of each of which the median counts: on a machine with other work, some
/// are far off.
const PARTS: usize = 10;

impl Slope {
    /// Of costs in their order, some for each of the parts.
    pub fn of(costs: &[f64]) -> Slope {
        let parts: Vec<f64> = costs.chunks(costs.len().div_ceil(PARTS)).map(median).collect();
        let count = parts.len() as f64;
        let mean = parts.iter().sum::<f64>() / count;
        let offsets = (0..parts.len()).map(|place| place as f64 - (count - 1.0) / 2.0);
        let spread: f64 = offsets.clone().map(|offset| offset * offset).sum();
        let rise: f64 = offsets.zip(&parts).map(|(offset, cost)| offset * (cost - mean)).sum();
        // Over all of it, from before the first part's middle to behind the last one's.
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
