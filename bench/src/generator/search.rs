//! Search for the highest loads that keep a loss ratio: MLRsearch (RFC 9971).
//!
//! A trial offers one load for one duration and has a loss ratio. A goal states the acceptable loss
//! ratio, the final trial duration, the total duration of the trials that decide about a load, and
//! the fraction of it that may exceed the loss ratio, so that a single disturbance of a shared
//! machine decides nothing. A load is then a lower bound, an upper bound, or undecided. A goal is
//! reached when its two bounds are no further apart than its width.
//!
//! Each goal is approached in phases: first short trials and wide bounds, then longer trials and
//! narrower bounds around the result of the previous phase. All trials count for all goals.

use std::time::Duration;

/// Phases before the last one, at most; each has twice the width of the next.
const PHASES: i32 = 4;
/// Trials of one search, at most: bounds the search on any device, however unstable.
const TRIALS: usize = 1000;

/// A search goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The highest acceptable loss ratio of a trial, from 0 to below 1.
    pub loss_ratio: f64,
    /// The fraction of the time that may be spent in bad trials, from 0 to below 1.
    pub exceed_ratio: f64,
    /// The final distance of the bounds, relative to the upper one.
    pub width: f64,
    /// Duration of the first trials.
    pub initial_trial: Duration,
    /// Duration of the final trials, which decide.
    pub final_trial: Duration,
    /// Total duration of the trials at one load.
    pub duration_sum: Duration,
}

impl Goal {
    /// Returns a goal of at most `loss_ratio` in half of the time, within 0.5 %. Trials take from
    /// 50 ms to 0.1 s, and ten decide. They are short so that a machine that stalls a few times a
    /// second spoils fewer of them.
    pub fn new(loss_ratio: f64) -> Goal {
        Goal {
            loss_ratio,
            exceed_ratio: 0.5,
            width: 0.005,
            initial_trial: Duration::from_millis(50),
            final_trial: Duration::from_millis(100),
            duration_sum: Duration::from_secs(1),
        }
    }
}

/// The range of loads of a search, in frames a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The lowest.
    pub min: f64,
    /// The highest: the generator's limit.
    pub max: f64,
}

/// The result of a search for a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GoalResult {
    /// The highest load that keeps the goal, below all that do not; `None` if even the lowest does
    /// not.
    pub lower: Option<f64>,
    /// The lowest load that does not keep the goal; `None` if even the highest does, where the
    /// generator is the limit.
    pub upper: Option<f64>,
    /// Throughput at the lower bound: that load less the loss in its worst trial that counts (RFC
    /// 9971: Conditional Throughput).
    pub throughput: Option<f64>,
}

/// Searches for the highest load of each goal. `measure` runs a trial of a load in frames a second
/// and a duration, and returns the loss ratio.
///
/// # Errors
/// The first error of `measure`.
pub fn search<E>(
    goals: &[Goal],
    limits: Limits,
    mut measure: impl FnMut(f64, Duration) -> Result<f64, E>,
) -> Result<Vec<GoalResult>, E> {
    let mut trials = Trials::default();
    let mut start = None;
    let mut reach = |trials: &mut Trials, goal: &Goal| {
        while trials.count() < TRIALS
            && let Some(load) = trials.next_load(goal, limits, start)
        {
            let loss = measure(load, goal.final_trial)?.clamp(0.0, 1.0);
            trials.add(load, Trial { nanos: nanos(goal.final_trial), loss });
            // Starts at the throughput of the highest load.
            start = start.or(Some(load * (1.0 - loss)));
        }
        Ok(())
    };
    for phase in goals.iter().flat_map(phases) {
        reach(&mut trials, &phase)?;
    }
    // Trials for a later goal may have moved the bounds of an earlier one.
    while trials.count() < TRIALS
        && let Some(goal) = goals.iter().find(|goal| trials.next_load(goal, limits, None).is_some())
    {
        reach(&mut trials, goal)?;
    }
    Ok(goals.iter().map(|goal| trials.result(goal)).collect())
}

/// Returns the goal preceded by wider ones with shorter trials, of which one decides.
fn phases(goal: &Goal) -> Vec<Goal> {
    let ratio = goal.final_trial.as_secs_f64() / goal.initial_trial.as_secs_f64();
    let early = (0..PHASES).map(|phase| {
        let part = ratio.powf(f64::from(phase) / f64::from(PHASES));
        let trial = goal.initial_trial.mul_f64(part).min(goal.final_trial);
        let width = (goal.width * 2f64.powi(PHASES - phase)).min(0.5);
        Goal { width, final_trial: trial, duration_sum: trial, ..goal.clone() }
    });
    early.chain([goal.clone()]).collect()
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Whole nanoseconds, so that sums are exact.
    nanos: f64,
    loss: f64,
}

fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// The classification of a load for a goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Lower,
    Upper,
    Undecided,
}

/// All trials, by load, the lowest first.
#[derive(Default)]
struct Trials(Vec<(f64, Vec<Trial>)>);

impl Trials {
    fn count(&self) -> usize {
        self.0.iter().map(|(_, trials)| trials.len()).sum()
    }

    fn add(&mut self, load: f64, trial: Trial) {
        match self.0.binary_search_by(|(known, _)| known.total_cmp(&load)) {
            Ok(at) => self.0[at].1.push(trial),
            Err(at) => self.0.insert(at, (load, vec![trial])),
        }
    }

    /// Returns the relevant bounds: the lowest upper one, and the highest lower one below it.
    fn bounds(&self, goal: &Goal) -> (Option<f64>, Option<f64>) {
        let mut lower = None;
        for (load, trials) in &self.0 {
            match classify(trials, goal) {
                Class::Lower => lower = Some(*load),
                Class::Upper => return (lower, Some(*load)),
                Class::Undecided => {}
            }
        }
        (lower, None)
    }

    /// Returns the load to try next; `None` if the goal is reached or cannot be.
    fn next_load(&self, goal: &Goal, limits: Limits, start: Option<f64>) -> Option<f64> {
        let inside = |load: f64| load.clamp(limits.min, limits.max);
        let load = match self.bounds(goal) {
            (None, None) => start.map_or(limits.max, inside),
            // No upper bound yet: go up in growing steps.
            (Some(lower), None) => inside(lower / (1.0 - 4.0 * goal.width.min(0.125))),
            (None, Some(upper)) => inside(upper * (1.0 - 4.0 * goal.width.min(0.125))),
            (Some(lower), Some(upper)) => {
                if upper - lower <= upper * goal.width {
                    return None;
                }
                (lower * upper).sqrt()
            }
        };
        // Completes a load that is partly tried, if it is as informative.
        let load = self.undecided_near(goal, load).unwrap_or(load);
        (self.class_of(load, goal) == Class::Undecided).then_some(load)
    }

    fn class_of(&self, load: f64, goal: &Goal) -> Class {
        match self.0.binary_search_by(|(known, _)| known.total_cmp(&load)) {
            Ok(at) => classify(&self.0[at].1, goal),
            Err(_) => Class::Undecided,
        }
    }

    /// Returns a tried but undecided load between the bounds, close to `load`.
    fn undecided_near(&self, goal: &Goal, load: f64) -> Option<f64> {
        let (lower, upper) = self.bounds(goal);
        let between = |known: f64| {
            lower.is_none_or(|lower| known > lower) && upper.is_none_or(|upper| known < upper)
        };
        let known = self.0.iter().map(|(known, _)| *known).filter(|known| between(*known));
        { known }
            .filter(|known| self.class_of(*known, goal) == Class::Undecided)
            .filter(|known| (known / load - 1.0).abs() <= goal.width)
            .min_by(|a, b| (a - load).abs().total_cmp(&(b - load).abs()))
    }

    fn result(&self, goal: &Goal) -> GoalResult {
        let (lower, upper) = self.bounds(goal);
        let trials = |load| self.0.iter().find(|(known, _)| *known == load);
        let throughput =
            lower.and_then(trials).map(|(load, trials)| load * (1.0 - quantile_loss(trials, goal)));
        GoalResult { lower, upper, throughput }
    }
}

/// Long trials count in full. Short ones count only against a load, and only as far as the bad ones
/// outweigh what the good ones excuse.
fn classify(trials: &[Trial], goal: &Goal) -> Class {
    let sum = |is_long: bool, is_bad: bool| -> f64 {
        let wanted = trials.iter().filter(|trial| {
            is_full(trial, goal) == is_long && (trial.loss > goal.loss_ratio) == is_bad
        });
        wanted.map(|trial| trial.nanos).sum()
    };
    let excused = sum(false, false) * goal.exceed_ratio / (1.0 - goal.exceed_ratio);
    let bad = sum(true, true) + (sum(false, true) - excused).max(0.0);
    let good = sum(true, false);
    // Remaining time may turn out either way.
    let whole = (good + bad).max(nanos(goal.duration_sum));
    let allowed = whole * goal.exceed_ratio;
    if whole - good <= allowed {
        Class::Lower
    } else if bad > allowed {
        Class::Upper
    } else {
        Class::Undecided
    }
}

fn is_full(trial: &Trial, goal: &Goal) -> bool {
    trial.nanos >= nanos(goal.final_trial)
}

/// Returns the loss ratio that holds for the time that must be good: that of the last long trial
/// needed to fill it, best first.
fn quantile_loss(trials: &[Trial], goal: &Goal) -> f64 {
    let mut long: Vec<_> = trials.iter().filter(|trial| is_full(trial, goal)).collect();
    long.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    let sum: f64 = long.iter().map(|trial| trial.nanos).sum();
    let mut needed = sum.max(nanos(goal.duration_sum)) * (1.0 - goal.exceed_ratio);
    let mut loss = long.first().map_or(1.0, |trial| trial.loss);
    for trial in long {
        if needed <= 0.0 {
            return loss;
        }
        loss = trial.loss;
        needed -= trial.nanos;
    }
    if needed > 0.0 { 1.0 } else { loss }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { min: 1e3, max: 100e6 };

    /// A device that carries `capacity` frames a second, of which a trial may lose a fraction up to
    /// `noise`.
    struct Device {
        capacity: f64,
        noise: f64,
        random: u64,
        trials: usize,
        seconds: f64,
    }

    impl Device {
        fn new(capacity: f64, noise: f64, seed: u64) -> Device {
            Device { capacity, noise, random: seed | 1, trials: 0, seconds: 0.0 }
        }

        fn measure(&mut self, load: f64, duration: Duration) -> Result<f64, Infallible> {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let part = (self.random >> 11) as f64 / (1u64 << 53) as f64;
            let capacity = self.capacity * (1.0 - self.noise * part);
            self.trials += 1;
            self.seconds += duration.as_secs_f64();
            Ok((1.0 - capacity / load).max(0.0))
        }

        fn search(&mut self, goals: &[Goal]) -> Vec<GoalResult> {
            let Ok(results) = search(goals, LIMITS, |load, time| self.measure(load, time));
            results
        }
    }

    fn trials(list: &[(f64, f64)]) -> Vec<Trial> {
        list.iter().map(|(seconds, loss)| Trial { nanos: *seconds * 1e9, loss: *loss }).collect()
    }

    /// A goal that three trials of one second decide.
    fn goal() -> Goal {
        let second = Duration::from_secs(1);
        Goal { final_trial: second, duration_sum: 3 * second, ..Goal::new(0.005) }
    }

    #[test]
    fn loads_are_classified_by_their_trials() {
        let goal = goal();
        let class = |list: &[(f64, f64)]| classify(&trials(list), &goal);
        assert_eq!(class(&[]), Class::Undecided);
        assert_eq!(class(&[(1.0, 0.0)]), Class::Undecided, "the rest may be bad");
        assert_eq!(class(&[(1.0, 0.0), (1.0, 0.005)]), Class::Lower, "two of three");
        assert_eq!(class(&[(1.0, 0.0), (1.0, 0.1), (1.0, 0.0)]), Class::Lower);
        assert_eq!(class(&[(1.0, 0.1), (1.0, 0.1)]), Class::Upper);
        assert_eq!(class(&[(1.0, 0.1), (1.0, 0.0)]), Class::Undecided, "even so far");
        assert_eq!(class(&[(0.9, 0.0); 9]), Class::Undecided, "short ones prove nothing good");
        assert_eq!(class(&[(0.9, 0.1); 2]), Class::Upper, "but they prove something bad");
        assert_eq!(class(&[(0.9, 0.1), (0.9, 0.1), (0.9, 0.0)]), Class::Undecided, "excused");
        let strict = Goal { exceed_ratio: 0.0, ..goal.clone() };
        assert_eq!(classify(&trials(&[(1.0, 0.0), (1.0, 0.006)]), &strict), Class::Upper);
        assert_eq!(classify(&trials(&[(1.0, 0.0); 3]), &strict), Class::Lower);
    }

    #[test]
    fn throughput_is_what_came_through() {
        let goal = goal();
        let loss = |list: &[(f64, f64)]| quantile_loss(&trials(list), &goal);
        assert_eq!(loss(&[(1.0, 0.004), (1.0, 0.001), (1.0, 0.3)]), 0.004);
        assert_eq!(loss(&[(1.0, 0.002), (2.0, 0.001)]), 0.001);
        assert_eq!(loss(&[(1.0, 0.001), (0.5, 0.0)]), 1.0, "half a second is missing");
        assert_eq!(loss(&[]), 1.0);
    }

    #[test]
    fn a_device_beyond_the_range_leaves_a_bound_open() {
        let goals = [Goal::new(0.0)];
        let fast = Device::new(200e6, 0.0, 1).search(&goals)[0];
        assert_eq!((fast.lower, fast.upper), (Some(LIMITS.max), None));
        let dead = Device::new(1.0, 0.0, 1).search(&goals)[0];
        assert_eq!((dead.lower, dead.upper, dead.throughput), (None, Some(LIMITS.min), None));
    }

    #[test]
    fn a_failing_trial_ends_the_search() {
        let mut count = 0;
        let failed = search(&[Goal::new(0.0)], LIMITS, |_, _| {
            count += 1;
            if count < 4 { Ok(0.5) } else { Err("gone") }
        });
        assert_eq!((failed, count), (Err("gone"), 4));
    }

    /// The search must be fast to be useful: a bisection by final trials alone would take more than
    /// 60 seconds.
    #[test]
    fn short_trials_save_time() {
        let mut device = Device::new(17e6, 0.0, 1);
        device.search(&[Goal::new(0.0), Goal::new(0.005)]);
        assert!(device.seconds < 30.0, "{} s in {} trials", device.seconds, device.trials);
    }

    proptest! {
        #[test]
        fn a_steady_device_is_found_to_the_width(
            capacity in 2e3..99e6f64,
            loss_ratio in prop_oneof![Just(0.0), 0.0..0.1f64],
            exceed_ratio in prop_oneof![Just(0.0), Just(0.5)],
        ) {
            let goals = [
                Goal { exceed_ratio, ..Goal::new(0.0) },
                Goal { exceed_ratio, ..Goal::new(loss_ratio) },
            ];
            let mut device = Device::new(capacity, 0.0, 1);
            for (goal, found) in goals.iter().zip(device.search(&goals)) {
                // The load at which exactly the goal's ratio is lost.
                let exact = (capacity / (1.0 - goal.loss_ratio)).min(LIMITS.max);
                let lower = found.lower.unwrap();
                prop_assert!(lower <= exact * 1.000_001, "{lower} above {exact}");
                prop_assert!(lower >= exact * (1.0 - goal.width) * 0.999_999, "{lower}, {exact}");
                let upper = found.upper.unwrap_or(LIMITS.max);
                prop_assert!(upper >= exact * 0.999_999 && lower <= upper);
                let throughput = found.throughput.unwrap();
                prop_assert!(throughput <= capacity * 1.000_001);
                prop_assert!(throughput >= lower * (1.0 - goal.loss_ratio) * 0.999_999);
            }
            prop_assert!(device.trials < 300, "{} trials", device.trials);
        }

        /// With noise the bounds are samples: they stay within the noise, and the search
        /// terminates.
        #[test]
        fn a_noisy_device_is_found_within_its_noise(
            capacity in 1e4..99e6f64,
            noise in 0.0..0.1f64,
            seed: u64,
        ) {
            let goals = [Goal::new(0.0), Goal::new(0.005)];
            let mut device = Device::new(capacity, noise, seed);
            for (goal, found) in goals.iter().zip(device.search(&goals)) {
                let (lower, upper) = (found.lower.unwrap(), found.upper.unwrap());
                let least = capacity * (1.0 - noise) * (1.0 - goal.width) * 0.999_999;
                let most = capacity / (1.0 - goal.loss_ratio) * 1.000_001;
                prop_assert!(least <= lower && lower <= most, "{lower} of {capacity}");
                prop_assert!(lower < upper && upper * (1.0 - goal.width) <= lower * 1.000_001);
            }
            prop_assert!(device.trials < TRIALS);
        }
    }
}
