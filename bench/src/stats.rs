//! Medians and ratios. Peers are measured in turn (A B C, A B C, …), so a ratio is taken round by
//! round and holds even where the machine's speed drifts between rounds.

/// The median of `values`; `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Round-by-round ratios ours/theirs: (smallest, median, largest).
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Option<(f64, f64, f64)> {
    let mut all: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .filter(|&(&a, &b)| a.is_finite() && b.is_finite() && b > 0.0)
        .map(|(a, b)| a / b)
        .collect();
    all.sort_by(f64::total_cmp);
    Some((*all.first()?, median(&all)?, *all.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_pair_rounds_and_skip_failed_ones() {
        let ours = [2.0, f64::NAN, 9.0];
        let theirs = [1.0, 1.0, 3.0];
        assert_eq!(ratios(&ours, &theirs), Some((2.0, 2.5, 3.0)));
        assert_eq!(ratios(&[1.0], &[0.0]), None);
    }
}
