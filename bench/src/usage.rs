//! Costs during a measurement: processor time of the switch, and steal time of the hypervisor.

use std::time::Instant;
use std::{fs, iter};

/// Index of the steal time in a processor's line of `/proc/stat`, after its name.
const STEAL_FIELD: usize = 7;

/// An open measurement window.
pub(crate) struct Window<'a> {
    begin: Instant,
    pids: &'a [u32],
    scheduled: Scheduled,
    cores: Vec<CoreTimes>,
}

/// The totals of a closed window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Its length in seconds.
    pub seconds: f64,
    /// Cores that the switch's processes kept busy; `None` if it has none.
    pub cores: Option<f64>,
    /// Seconds a second that they waited for a core.
    pub waited: Option<f64>,
    /// The largest fraction of steal time of any core.
    pub steal: f64,
}

impl<'a> Window<'a> {
    /// Opens a window on these processes.
    pub(crate) fn open(pids: &'a [u32]) -> Self {
        Self { begin: Instant::now(), pids, scheduled: scheduled(pids), cores: core_times() }
    }

    /// Closes the window; returns the usage in it.
    pub(crate) fn close(self) -> Usage {
        let seconds = self.begin.elapsed().as_secs_f64();
        let now = scheduled(self.pids);
        let share = |nanos: u64| (!self.pids.is_empty()).then_some(nanos as f64 / 1e9 / seconds);
        Usage {
            seconds,
            cores: share(now.ran.saturating_sub(self.scheduled.ran)),
            waited: share(now.waited.saturating_sub(self.scheduled.waited)),
            steal: largest_steal(&self.cores, &core_times()),
        }
    }
}

/// Nanoseconds that threads spent on a core and waiting for one.
#[derive(Clone, Copy, Debug, Default)]
struct Scheduled {
    ran: u64,
    waited: u64,
}

/// Returns the sum over all threads of these processes.
fn scheduled(pids: &[u32]) -> Scheduled {
    let mut sum = Scheduled::default();
    let threads = pids
        .iter()
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok())
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    for text in threads {
        let mut fields = text.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        sum.ran += fields.next().unwrap_or(0);
        sum.waited += fields.next().unwrap_or(0);
    }
    sum
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CoreTimes {
    all: u64,
    steal: u64,
}

fn core_times() -> Vec<CoreTimes> {
    parse_core_times(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parse_core_times(stat: &str) -> Vec<CoreTimes> {
    stat.lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .map(|line| {
            // Guest time, in the ninth and tenth field, is part of user time.
            let ticks = line.split_whitespace().skip(1).take(STEAL_FIELD + 1);
            let ticks: Vec<u64> = ticks.filter_map(|word| word.parse().ok()).collect();
            let steal = ticks.get(STEAL_FIELD).copied().unwrap_or(0);
            CoreTimes { all: ticks.iter().sum(), steal }
        })
        .collect()
}

fn largest_steal(before: &[CoreTimes], after: &[CoreTimes]) -> f64 {
    let share = |(a, b): (&CoreTimes, &CoreTimes)| {
        let all = b.all.saturating_sub(a.all).max(1);
        b.steal.saturating_sub(a.steal) as f64 / all as f64
    };
    before.iter().zip(after).map(share).fold(0.0, f64::max)
}

/// Returns a process and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers = |text: String| -> Vec<u32> {
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let children: Vec<u32> = children.flat_map(numbers).collect();
    iter::once(pid).chain(children.into_iter().flat_map(family)).collect()
}

/// Returns the voluntary context switches of a process's threads: each costs a wake-up.
pub(crate) fn voluntary_switches(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .filter_map(|text| field(&text, "voluntary_ctxt_switches:"))
        .sum()
}

/// Returns the bytes of a process's own memory: its proportional set size without shared memory
/// files, which are guests' memory.
pub(crate) fn own_memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some((field(&text, "Pss:")? - field(&text, "Pss_Shmem:").unwrap_or(0)) * 1024)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_worst_cores_share() {
        let before = parse_core_times(
            "cpu  9 9 9\ncpu0 10 0 10 80 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 5 7 7\nintr 1",
        );
        let after = parse_core_times(
            "cpu  9 9 9\ncpu0 20 0 10 160 0 0 0 10 0 0\ncpu1 95 0 0 0 0 0 0 10 9 9\n",
        );
        assert_eq!(before, [CoreTimes { all: 100, steal: 0 }, CoreTimes { all: 5, steal: 5 }]);
        assert_eq!(largest_steal(&before, &after), 0.1);
    }

    #[test]
    fn a_busy_thread_uses_about_a_core_and_its_memory_is_its_own() {
        let pids = [std::process::id()];
        let window = Window::open(&pids);
        while window.begin.elapsed().as_millis() < 50 {
            std::hint::spin_loop();
        }
        assert!(window.close().cores.is_some_and(|cores| cores > 0.0));
        assert!(own_memory(pids[0]).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(Window::open(&[]).close().cores, None);
    }

    #[test]
    fn a_family_has_those_that_were_started() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = family(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family[0] == std::process::id() && family.contains(&child.id()), "{family:?}");
    }

    #[test]
    fn voluntary_is_not_mistaken_for_nonvoluntary() {
        let status = "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t4\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(4));
    }
}
