//! DHCP exchanges by perfdhcp: the highest rate without a failure.

use std::time::Duration;

use super::{Context, Exchanges, Measured};
use crate::cores::LOAD_CORE;
use crate::peers::dhcp::DEVICE;
use crate::process::{Process, Result, pause, pinned};
use crate::usage::{Usage, Window};

/// The rate tried first, in exchanges a second.
const FIRST: u32 = 64;
/// The search ends when the failed rate is at most this factor above the successful one.
const MAX_GAP_FACTOR: f64 = 1.1;
/// Attempts after which a rate has failed: other work on the machine fails an exchange now and
/// then.
const ATTEMPTS: u8 = 2;
/// Addresses for new clients.
const ADDRESSES: u32 = 60_000;
/// Clients of a measurement of renewals.
const RENEWING: u32 = 200;
/// Pause after an attempt, for answers in flight and for a server that is still busy with requests
/// of a failed one.
const REST: Duration = Duration::from_secs(1);
/// Below this fraction of the requested rate, perfdhcp itself is the limit.
const OFFERED_FRACTION: f64 = 0.95;
const LIMIT: Duration = Duration::from_secs(30);

/// One attempt.
struct Attempt {
    /// Exchanges started a second.
    rate: f64,
    /// Messages without an answer.
    failed: f64,
    /// Whether perfdhcp, or its number of clients, was the limit.
    is_generators: bool,
    usage: Usage,
}

/// Measures exchanges a second.
pub(super) fn measure(context: &Context, exchanges: Exchanges) -> Result<Measured> {
    let renew = exchanges == Exchanges::Renewals;
    let mut search = Search { best: None, failed_at: None };
    let (mut rate, mut used) = (Some(FIRST), 0);
    while let Some(next) = rate {
        let clients = if renew { RENEWING } else { next * context.seconds as u32 + 1 };
        let mut failed = 0;
        rate = loop {
            let first_client = if renew { 0 } else { used };
            if first_client + clients > ADDRESSES {
                search.end_by_generator();
                break None;
            }
            used += clients;
            let found = attempt(context, next, exchanges, first_client, clients)?;
            if found.failed == 0.0 {
                break search.after(next, Some(found));
            }
            pause(REST)?;
            failed += 1;
            if failed == ATTEMPTS {
                break search.after(next, None);
            }
        };
    }
    let best = search.best.ok_or("exchanges failed at every rate")?;
    let ceiling = best.is_generators.then_some(best.rate);
    let failed_at =
        search.failed_at.map(|rate| ("failed_at_per_second".to_owned(), f64::from(rate)));
    let details = failed_at.into_iter().collect();
    Ok(Measured { ceiling, details, ..Measured::of(best.rate, best.usage) })
}

/// State of the search for the highest rate.
struct Search {
    best: Option<Attempt>,
    /// The lowest rate at which something failed.
    failed_at: Option<u32>,
}

impl Search {
    /// Ends the search when the clients run out: the rate reached is a lower bound for the server.
    fn end_by_generator(&mut self) {
        if let Some(best) = &mut self.best {
            best.is_generators = true;
        }
    }

    /// Returns the rate to try after this one succeeded or failed.
    fn after(&mut self, rate: u32, passed: Option<Attempt>) -> Option<u32> {
        match passed {
            Some(passed) => self.best = Some(passed),
            None => self.failed_at = Some(rate),
        }
        match (&self.best, self.failed_at) {
            (Some(best), _) if best.is_generators => None,
            (Some(_), None) => Some(rate * 2),
            (None, _) => Some(rate / 2).filter(|&next| next > 0),
            (Some(best), Some(high)) => {
                let next = (best.rate * f64::from(high)).sqrt().ceil() as u32;
                let is_close = f64::from(high) < best.rate * MAX_GAP_FACTOR;
                Some(next).filter(|&next| !is_close && next < high)
            }
        }
    }
}

/// Tries this rate, with clients numbered from `first` on.
fn attempt(
    context: &Context,
    rate: u32,
    exchanges: Exchanges,
    first: u32,
    clients: u32,
) -> Result<Attempt> {
    let [client] = context.switch.hosts()[..] else {
        return Err("this load needs one host".into());
    };
    let [_, a, b, c] = first.to_be_bytes();
    let (rate_text, base) = (rate.to_string(), format!("mac=02:00:00:{a:02x}:{b:02x}:{c:02x}"));
    let mut command = pinned(LOAD_CORE, "ip");
    command.args(["netns", "exec", &client.0, "perfdhcp", "-4", "-l", DEVICE, "-b", &base]);
    command.args(["-r", &rate_text, "-R", &clients.to_string()]);
    command.args(["-p", &context.seconds.to_string(), "-W", &REST.as_micros().to_string()]);
    if exchanges == Exchanges::Renewals {
        command.args(["-f", &rate_text]);
    }
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let process = Process::spawn("perfdhcp", command)?;
    // A failed exchange also fails perfdhcp; its figures are in the output in both cases.
    let (Ok(text) | Err(text)) = process.finish(Duration::from_secs(context.seconds) + LIMIT);
    let usage = window.close();
    let sums = |name| sums(&text, name);
    let (Some(&begun), failed) = (sums("sent packets:").first(), sums("drops:")) else {
        return Err(text);
    };
    let begun = begun / context.seconds as f64;
    let is_generators = begun < f64::from(rate) * OFFERED_FRACTION;
    Ok(Attempt { rate: begun, failed: failed.iter().sum(), is_generators, usage })
}

/// Returns the figures with this name in perfdhcp's report, one for each kind of exchange.
fn sums(text: &str, name: &str) -> Vec<f64> {
    let figures = text.lines().filter_map(|line| line.trim().strip_prefix(name));
    figures.filter_map(|figure| figure.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_perfdhcps_report() {
        let text = "***Statistics for: DISCOVER-OFFER***\nsent packets: 999\nreceived packets: 346\n\
                    drops: 653\ndrops ratio: 65.3654 %\n***Statistics for: REQUEST-ACK***\n\
                    sent packets: 346\ndrops: 8\ndrops ratio: 2.312 %\n";
        assert_eq!(sums(text, "sent packets:"), [999.0, 346.0]);
        assert_eq!(sums(text, "drops:"), [653.0, 8.0]);
    }

    #[test]
    fn the_search_ends_close_below_the_first_rate_that_fails() {
        for limit in [3, 64, 1000, 7777] {
            let mut search = Search { best: None, failed_at: None };
            let (mut rate, mut tries) = (Some(FIRST), 0);
            while let Some(next) = rate {
                let passed = Attempt {
                    rate: f64::from(next),
                    failed: 0.0,
                    is_generators: false,
                    usage: Usage::default(),
                };
                rate = search.after(next, (next <= limit).then_some(passed));
                tries += 1;
                assert!(tries < 30, "{limit}");
            }
            let found = search.best.unwrap().rate;
            let failed_at = f64::from(search.failed_at.unwrap());
            assert!(found <= f64::from(limit) && f64::from(limit) < failed_at, "{limit}: {found}");
            assert!(
                failed_at < found * MAX_GAP_FACTOR || failed_at - found <= 1.0,
                "{limit}: {found}"
            );
        }
    }
}
