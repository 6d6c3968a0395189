//! Medians, ratios and their confidence intervals.
//!
//! Peers are measured in turn (A B C, A B C, …), so a ratio is taken round by round and holds even
//! if the machine's speed drifts between rounds. No distribution is assumed: the interval of a
//! median lies between two order statistics.

use serde::{Deserialize, Serialize};

/// The confidence level of an interval, if there are enough values.
const CONFIDENCE: f64 = 0.95;

/// A median with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    /// The sample's median.
    pub median: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// The probability that the interval contains the true median: at least 0.95 from six values
    /// on, less with fewer, 0 with one.
    pub confidence: f64,
}

/// Returns the median of `values`; `None` if there are none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Returns the median with its narrowest symmetric interval of sufficient confidence, or else with
/// the whole range; `None` if there are no values.
///
/// The number of values below the true median is binomial with p = 1/2, so the interval between the
/// k-th smallest and the k-th largest of n values contains it unless fewer than k lie on a side.
pub(crate) fn estimate(values: &[f64]) -> Option<Estimate> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let median = median(&sorted)?;
    let at = |k: usize| Estimate {
        median,
        low: sorted[k],
        high: sorted[n - 1 - k],
        confidence: coverage(n, k),
    };
    (0..n.div_ceil(2)).rev().map(at).find(|e| e.confidence >= CONFIDENCE).or_else(|| Some(at(0)))
}

/// Returns the probability that the true median lies between the values of rank `k` (from 0) from
/// either end.
fn coverage(n: usize, k: usize) -> f64 {
    let mut term = 0.5_f64.powi(n as i32);
    let mut tail = 0.0;
    for i in 0..=k {
        tail += term;
        term *= (n - i) as f64 / (i + 1) as f64;
    }
    (1.0 - 2.0 * tail).max(0.0)
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
    fn coverage_is_the_binomial_one() {
        // Tabulated: n = 6 between the extremes 96.875 %, n = 10 between the second ones 97.85 %.
        assert!((coverage(6, 0) - 0.96875).abs() < 1e-12);
        assert!((coverage(10, 1) - 0.978515625).abs() < 1e-12);
        assert_eq!(coverage(1, 0), 0.0);
    }

    #[test]
    fn few_values_give_their_range_and_admit_it() {
        let three = estimate(&[3.0, 1.0, 2.0]);
        assert_eq!(three, Some(Estimate { median: 2.0, low: 1.0, high: 3.0, confidence: 0.75 }));
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn many_values_lose_their_extremes() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        let e = estimate(&values).unwrap();
        assert_eq!((e.low, e.high), (2.0, 9.0));
        assert!(e.confidence >= 0.95);
    }

    #[test]
    fn an_interval_holds_the_true_median_at_its_confidence() {
        // Eight values of a generator whose median is 1/2, many times.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let trials = 4000;
        let held = (0..trials)
            .filter(|_| {
                let values: Vec<f64> = (0..8).map(|_| next()).collect();
                let e = estimate(&values).unwrap();
                e.low <= 0.5 && 0.5 <= e.high
            })
            .count();
        let wanted = coverage(8, 0); // 0.992; rank 1 would have 0.930
        assert!((held as f64 / f64::from(trials) - wanted).abs() < 0.02, "{held} of {trials}");
    }
}
