//! Makes a failing input short: leaves out parts, then makes bytes zero, while it still fails.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::run::{Failure, IS_QUIET, run_one};
use crate::targets::Target;

/// Most inputs that are tried.
const TRIES: usize = 20_000;
/// For how long: an input may make something hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a shorter input that makes the target panic, or this one.
pub fn shrink(target: &Target, failure: Failure) -> Failure {
    IS_QUIET.store(true, Ordering::SeqCst);
    let until = Instant::now() + PATIENCE;
    let fails = |input: &[u8]| {
        let is_over = Instant::now() > until;
        if is_over { None } else { run_one(target, input).err() }
    };
    let shorter = shrink_by(failure, fails);
    IS_QUIET.store(false, Ordering::SeqCst);
    shorter
}

fn shrink_by(mut found: Failure, fails: impl Fn(&[u8]) -> Option<Failure>) -> Failure {
    let mut tries = TRIES;
    let mut part = found.input.len().div_ceil(2);
    while part > 0 && tries > 0 {
        let mut at = 0;
        while at < found.input.len() && tries > 0 {
            tries -= 1;
            let end = (at + part).min(found.input.len());
            let without = [&found.input[..at], &found.input[end..]].concat();
            match fails(&without) {
                Some(shorter) => found = shorter,
                None => at = end,
            }
        }
        part /= 2;
    }
    for at in 0..found.input.len().min(tries) {
        let mut plain = found.input.clone();
        if std::mem::take(&mut plain[at]) != 0 {
            found = fails(&plain).unwrap_or(found);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_it_fail_is_left() {
        let fails = |input: &[u8]| {
            let fails = input.windows(3).any(|it| it[0] == 7 && it[2] == 9);
            fails.then(|| Failure { input: input.to_vec(), message: String::new() })
        };
        let long: Vec<u8> = (0..200).chain([7, 8, 9]).chain(0..100).collect();
        let found = shrink_by(fails(&long).unwrap(), fails);
        assert_eq!(found.input, [7, 0, 9]);
    }
}
