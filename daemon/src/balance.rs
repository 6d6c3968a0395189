//! Decides when a network moves to another worker.
//!
//! A pure function of the time each network kept its worker busy. A loaded worker reports once a
//! second; the others are not polled, so an idle daemon sleeps. A network moves if its worker stays
//! loaded for several samples in a row and the move would make the busier of the two workers
//! clearly less busy. A network alone on its worker stays: it would be as busy elsewhere.

use std::time::Duration;

use trama_switch::worker::{LOAD_WINDOW, LOADED_PERCENT};

/// Samples in a row that must favour a move. A burst of a second or two ends before a move pays.
const PATIENCE: usize = 3;
/// How much less busy, in percentage points, the busier of the two workers must become.
const GAIN: u64 = 15;
/// Samples that are further apart are not compared.
const STALE: Duration = Duration::from_secs(3);

/// How long a network has kept its worker busy since it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NetworkLoad {
    /// Its name.
    pub name: String,
    /// Its worker.
    pub worker: usize,
    /// Time spent on its frames so far.
    pub busy: Duration,
}

/// A network that should move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Move {
    /// Its name.
    pub network: String,
    /// Its present worker.
    pub from: usize,
    /// Its new worker.
    pub to: usize,
}

/// The last sample, and how many in a row favoured a move.
#[derive(Default, Debug)]
pub(crate) struct Balancer {
    last: Option<(Duration, Vec<NetworkLoad>)>,
    /// Samples in a row that favoured a move.
    wanted: usize,
}

impl Balancer {
    /// Takes a sample of all networks on `workers` workers and returns a move, if one is due. `now`
    /// is the time since any fixed moment.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        networks: Vec<NetworkLoad>,
        workers: usize,
    ) -> Option<Move> {
        let since = self.last.as_ref().map(|(then, _)| now.saturating_sub(*then));
        if since.is_some_and(|since| since < LOAD_WINDOW * 9 / 10) {
            return None;
        }
        let (_, before) = self.last.replace((now, networks)).unwrap_or_default();
        let (Some(since), Some((_, after))) = (since.filter(|s| *s < STALE), &self.last) else {
            self.wanted = 0;
            return None;
        };
        let chosen = choose(&shares(&before, after, since), workers);
        self.wanted = if chosen.is_some() { self.wanted + 1 } else { 0 };
        if self.wanted < PATIENCE {
            return None;
        }
        // The next move depends on new samples alone.
        *self = Balancer::default();
        chosen
    }
}

/// A network, its worker, and the percentage of the time for which it kept the worker busy.
type Share<'a> = (&'a str, usize, u64);

fn shares<'a>(before: &[NetworkLoad], after: &'a [NetworkLoad], since: Duration) -> Vec<Share<'a>> {
    let share = |network: &'a NetworkLoad| {
        let earlier = before.iter().find(|earlier| earlier.name == network.name)?;
        let busy = network.busy.saturating_sub(earlier.busy);
        let hundredths = busy.as_nanos() * 100 / since.as_nanos().max(1);
        Some((network.name.as_str(), network.worker, hundredths as u64))
    };
    after.iter().filter_map(share).collect()
}

/// Returns the move that balances the load best, if it gains enough.
fn choose(shares: &[Share<'_>], workers: usize) -> Option<Move> {
    let on = |worker: usize| -> u64 {
        shares.iter().filter(|(_, on, _)| *on == worker).map(|(_, _, share)| share).sum()
    };
    let from = (0..workers).max_by_key(|worker| on(*worker))?;
    let to = (0..workers).filter(|worker| *worker != from).min_by_key(|worker| on(*worker))?;
    if on(from) < LOADED_PERCENT {
        return None;
    }
    let peak_without = |share: u64| (on(from) - share).max(on(to) + share);
    let candidates = shares.iter().filter(|(_, on, _)| *on == from);
    let (network, _, share) =
        candidates.min_by_key(|(_, _, share)| (peak_without(*share), *share))?;
    let is_worth_it = peak_without(*share) + GAIN <= on(from);
    is_worth_it.then(|| Move { network: (*network).to_owned(), from, to })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(shares: &[Share<'_>], workers: usize) -> Option<(String, usize, usize)> {
        choose(shares, workers).map(|m| (m.network, m.from, m.to))
    }

    #[test]
    fn the_move_that_evens_out_is_chosen() {
        let moved = |name: &str, from, to| Some((name.to_owned(), from, to));
        assert_eq!(chosen(&[("a", 0, 50), ("b", 0, 45)], 2), moved("b", 0, 1));
        assert_eq!(chosen(&[("a", 0, 60), ("b", 0, 30), ("c", 1, 20)], 2), moved("b", 0, 1));
        assert_eq!(chosen(&[("a", 0, 60), ("b", 0, 30), ("c", 1, 20)], 3), moved("b", 0, 2));
    }

    #[test]
    fn nothing_moves_without_need_or_gain() {
        assert_eq!(chosen(&[("a", 0, 40), ("b", 0, 39)], 2), None, "not loaded");
        assert_eq!(chosen(&[("a", 0, 99), ("b", 0, 1)], 2), None, "as busy elsewhere");
        assert_eq!(chosen(&[("a", 0, 50), ("b", 0, 40), ("c", 1, 70)], 2), None, "no room");
        assert_eq!(chosen(&[("a", 0, 50), ("b", 0, 50)], 1), None, "nowhere to go");
        assert_eq!(chosen(&[], 2), None);
    }

    proptest! {
        #[test]
        fn moves_come_to_an_end(
            loads in prop::collection::vec((0..4usize, 0..60u64), 0..12),
            workers in 1..5usize,
        ) {
            let names: Vec<String> = (0..loads.len()).map(|i| i.to_string()).collect();
            let mut shares: Vec<Share<'_>> = names
                .iter()
                .zip(&loads)
                .map(|(name, (worker, share))| (name.as_str(), worker % workers, *share))
                .collect();
            let total: u64 = loads.iter().map(|(_, share)| share).sum();
            let peak = |shares: &[Share<'_>]| {
                let on = |worker| shares.iter().filter(|s| s.1 == worker).map(|s| s.2).sum::<u64>();
                (0..workers).map(on).max().unwrap_or(0)
            };
            let mut moves = 0;
            while let Some(next) = choose(&shares, workers) {
                let before = peak(&shares);
                for share in &mut shares {
                    if share.0 == next.network {
                        prop_assert_eq!(share.1, next.from);
                        share.1 = next.to;
                    }
                }
                prop_assert!(peak(&shares) <= before);
                moves += 1;
                prop_assert!(moves <= 4 * loads.len(), "{} moves, total {}", moves, total);
            }
        }
    }

    /// Runs two networks on worker 0 that are busy for these percentages of each second.
    fn run(balancer: &mut Balancer, seconds: &[[u64; 2]]) -> Vec<Option<Move>> {
        let mut busy = [Duration::ZERO; 2];
        let mut look = |(second, shares): (usize, &[u64; 2])| {
            let networks =
                ["a", "b"].iter().zip(shares).zip(&mut busy).map(|((name, share), busy)| {
                    *busy += Duration::from_millis(share * 10);
                    NetworkLoad { name: (*name).to_owned(), worker: 0, busy: *busy }
                });
            balancer.look(Duration::from_secs(second as u64), networks.collect(), 2)
        };
        seconds.iter().enumerate().map(&mut look).collect()
    }

    #[test]
    fn a_load_must_last() {
        let mut balancer = Balancer::default();
        let busy = [60, 39];
        let seen = run(&mut balancer, &[busy; 4]);
        assert_eq!(seen[..3], [None, None, None], "the first look has nothing to compare with");
        let expected = Move { network: "b".into(), from: 0, to: 1 };
        assert_eq!(seen[3], Some(expected), "both even out alike, b has less to move");
        let with_pause = [busy, busy, busy, [10, 10], busy, busy];
        assert_eq!(run(&mut Balancer::default(), &with_pause), [const { None }; 6]);
    }

    #[test]
    fn looks_that_are_close_or_far_apart_do_not_count() {
        let mut balancer = Balancer::default();
        let busy = Duration::from_millis;
        let networks = |millis| {
            let network =
                |name: &str| NetworkLoad { name: name.into(), worker: 0, busy: busy(millis) };
            vec![network("a"), network("b")]
        };
        // Two loaded workers each report once a second, at any distance.
        for look in 0..3 {
            let now = Duration::from_secs(look);
            assert_eq!(balancer.look(now, networks(look * 500), 2), None);
            let soon = now + Duration::from_millis(300);
            assert_eq!(balancer.look(soon, networks(look * 500 + 150), 2), None);
        }
        assert_eq!(balancer.look(Duration::from_secs(60), networks(30_000), 2), None, "stale");
        for second in 61..63 {
            assert_eq!(balancer.look(Duration::from_secs(second), networks(second * 500), 2), None);
        }
        let last = balancer.look(Duration::from_secs(63), networks(63 * 500), 2);
        assert_eq!(last.map(|m| m.to), Some(1));
    }
}
