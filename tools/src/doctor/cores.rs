//! Threads that never sleep and share a core with one of tramad's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::Finding;
use super::system::System;

/// The time over which threads are watched.
const SAMPLE: Duration = Duration::from_millis(250);
/// A thread that ran for this share of the time may be one that never sleeps, in percent: two on
/// one core have half of it each, and less if others run there.
const BUSY: u64 = 30;
/// Ticks of a second in /proc: USER_HZ (proc(5)), the same on all architectures that Linux has
/// processes of other programs for.
const TICKS: u64 = 100;

/// A thread's processor time in ticks, and the core where it was seen.
#[derive(Clone, Debug)]
struct Seen {
    process: String,
    ticks: u64,
    core: u64,
}

type Threads = BTreeMap<(u32, u32), Seen>;

pub(super) fn check(system: &System) -> Vec<Finding> {
    let before = threads(system);
    std::thread::sleep(SAMPLE);
    let shared = contended(&before, &threads(system), SAMPLE);
    let finding = |(core, names): (u64, Vec<String>)| {
        let text = format!("core {core} is shared by {}, which never sleep", names.join(" and "));
        let remedy = "pin them apart (taskset, CPUAffinity), or set `spin` so that workers sleep";
        Finding::warn("cores", text, remedy)
    };
    let findings = shared.into_iter().map(finding).collect();
    super::finding::or_ok("cores", findings, "no other busy loop shares a core with a worker")
}

/// Cores with several busy threads of which one is tramad's, and the names of their processes.
fn contended(before: &Threads, after: &Threads, time: Duration) -> Vec<(u64, Vec<String>)> {
    let enough = time.as_millis() as u64 * TICKS * BUSY / 100 / 1000;
    let mut busy: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (id, now) in after {
        let Some(earlier) = before.get(id) else { continue };
        if now.core == earlier.core && now.ticks.saturating_sub(earlier.ticks) >= enough {
            busy.entry(now.core).or_default().push(now.process.clone());
        }
    }
    let is_ours = |names: &[String]| names.iter().any(|name| name == "tramad");
    busy.into_iter().filter(|(_, names)| names.len() > 1 && is_ours(names)).collect()
}

fn threads(system: &System) -> Threads {
    let mut threads = Threads::new();
    for process in system.processes() {
        let folder = format!("/proc/{}/task", process.id);
        let entries = std::fs::read_dir(system.path(&folder)).into_iter().flatten().flatten();
        for thread in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let stat = system.read(&format!("{folder}/{thread}/stat"));
            if let Some((ticks, core)) = stat.as_deref().and_then(parse) {
                let seen = Seen { process: process.name.clone(), ticks, core };
                threads.insert((process.id, thread), seen);
            }
        }
    }
    threads
}

/// Processor time and core of a line of /proc/PID/task/TID/stat (proc(5)).
fn parse(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    // The first after the name is field 3: utime is 14, stime 15, processor 39.
    let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
    Some((number(14)? + number(15)?, number(39)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(process: &str, ticks: u64, core: u64) -> Seen {
        Seen { process: process.to_owned(), ticks, core }
    }

    #[test]
    fn only_busy_threads_on_one_core_with_ours_count() {
        let threads = |ticks: [u64; 4]| -> Threads {
            let all = [
                ((1, 1), seen("tramad", ticks[0], 0)),
                ((2, 2), seen("testpmd", ticks[1], 0)),
                ((3, 3), seen("idle", ticks[2], 0)),
                ((4, 4), seen("other", ticks[3], 1)),
            ];
            all.into()
        };
        let time = Duration::from_secs(1);
        let shared = contended(&threads([0; 4]), &threads([50, 49, 1, 100]), time);
        assert_eq!(shared, [(0, vec!["tramad".to_owned(), "testpmd".to_owned()])]);
        assert!(contended(&threads([0; 4]), &threads([0, 100, 1, 100]), time).is_empty());
        assert!(contended(&threads([0; 4]), &threads([100, 1, 1, 100]), time).is_empty());
    }

    #[test]
    fn a_line_of_stat_may_have_any_name_in_it() {
        let line = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 \
                    0 17 1 0 0";
        assert_eq!(parse(line), Some((100, 1)));
        assert_eq!(parse("7 (x) S 1"), None);
        assert!(parse(&std::fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }
}
