//! Flood ping: one request at a time, the next as soon as the reply arrives.

use std::time::Duration;

use super::{Context, Measured, wait_for_reach};
use crate::cores::LOAD_CORE;
use crate::host::Namespace;
use crate::process::{Process, Result, pinned};
use crate::usage::Window;

/// Measures the average round trip in seconds.
pub(super) fn flood(context: &Context) -> Result<Measured> {
    let hosts = context.switch.hosts();
    let address = Namespace::address(1);
    wait_for_reach(hosts[0], &address)?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let mut command = pinned(LOAD_CORE, "ip");
    command.args(["netns", "exec", &hosts[0].0, "ping", "-f", "-q", "-w"]);
    command.args([&context.seconds.to_string(), &address]);
    let ping = Process::spawn("ping", command)?;
    let text = ping.finish(Duration::from_secs(context.seconds + 10))?;
    let usage = window.close();
    let (average, deviation) =
        parse(&text).ok_or_else(|| format!("unexpected output of ping: {text}"))?;
    let details = [("deviation_us".to_owned(), deviation * 1e6)].into();
    Ok(Measured { value: average, details, usage, ceiling: None })
}

/// Returns average and mean deviation in seconds from `rtt min/avg/max/mdev = a/b/c/d ms`.
fn parse(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().find(|line| line.starts_with("rtt "))?;
    let figures = line.split('=').nth(1)?.trim().split(' ').next()?;
    let figures: Vec<f64> = figures.split('/').filter_map(|word| word.parse().ok()).collect();
    Some((figures.get(1)? / 1e3, figures.get(3)? / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pings_closing_line() {
        let text = "--- 10.77.0.2 ping statistics ---\n\
                    rtt min/avg/max/mdev = 0.001/0.025/0.9/0.004 ms, ipg/ewma 0.03/0.02 ms";
        let (average, deviation) = parse(text).unwrap();
        assert!((average - 25e-6).abs() < 1e-12 && (deviation - 4e-6).abs() < 1e-12);
        assert_eq!(parse("100% packet loss"), None);
    }
}
