//! Codes that open a session each, for a short time.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::random;

/// How long a code is good for.
const LIFE: Duration = Duration::from_secs(120);
/// Most codes at a time; then the oldest goes.
const MOST: usize = 16;

/// The codes that were made and not used yet, with the times at which they end.
#[derive(Default)]
pub(super) struct Codes(Mutex<HashMap<String, Instant>>);

impl Codes {
    /// Makes a code of 128 random bits.
    pub(super) fn make(&self) -> String {
        self.make_at(Instant::now())
    }

    fn make_at(&self, now: Instant) -> String {
        let code = random::<16>().iter().fold(String::new(), |mut code, byte| {
            // Writing to a string does not fail.
            let _ = write!(code, "{byte:02x}");
            code
        });
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, end| *end > now);
        if codes.len() >= MOST
            && let Some(oldest) =
                codes.iter().min_by_key(|(_, end)| **end).map(|(it, _)| it.clone())
        {
            codes.remove(&oldest);
        }
        codes.insert(code.clone(), now + LIFE);
        code
    }

    /// Takes a code, which is none after that; returns whether it was one.
    pub(super) fn take(&self, code: &str) -> bool {
        self.take_at(code, Instant::now())
    }

    fn take_at(&self, code: &str, now: Instant) -> bool {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.remove(code).is_some_and(|end| end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_once_and_for_two_minutes() {
        let (codes, now) = (Codes::default(), Instant::now());
        let [first, late] = [codes.make_at(now), codes.make_at(now)];
        assert_ne!(first, late);
        assert!(!codes.take_at("", now) && !codes.take_at("00", now));
        assert!(codes.take_at(&first, now + LIFE - Duration::from_nanos(1)));
        assert!(!codes.take_at(&first, now), "used");
        assert!(!codes.take_at(&late, now + LIFE), "late");
    }

    #[test]
    fn the_oldest_of_too_many_goes() {
        let (codes, now) = (Codes::default(), Instant::now());
        let at = |second| now + Duration::from_secs(second);
        let made: Vec<String> = (0..=MOST as u64).map(|second| codes.make_at(at(second))).collect();
        assert!(!codes.take_at(&made[0], at(20)));
        assert!(made[1..].iter().all(|code| codes.take_at(code, at(20))));
    }
}
