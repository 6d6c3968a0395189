//! Assignment of cores.

use std::fs;
use std::path::Path;

use rustix::thread::sched_getaffinity;

/// The core dedicated to the switch, except in rounds with a far core.
pub(crate) const SWITCH_CORE: usize = 0;
/// The core of generator and sink, and of the benchmark itself.
pub(crate) const LOAD_CORE: usize = 1;

/// Returns the number of cores of the machine, whatever the affinity of this process.
pub(crate) fn count() -> usize {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let is_core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    stat.lines().filter(is_core).count()
}

/// Returns a core that this process may use and that shares no cache with `core`: one of another
/// core complex or socket.
pub(crate) fn far_core(core: usize) -> Option<usize> {
    let allowed = sched_getaffinity(None).ok()?;
    let near = cores_that_share_a_cache(Path::new("/sys/devices/system/cpu"), core)?;
    (0..count()).find(|other| allowed.is_set(*other) && !near.contains(other))
}

/// Returns the cores that share the last-level cache with `core`, itself included, according to
/// `cpus` (sysfs); `None` if sysfs does not tell.
fn cores_that_share_a_cache(cpus: &Path, core: usize) -> Option<Vec<usize>> {
    let caches = cpus.join(format!("cpu{core}/cache"));
    let lists = (0..=9).rev().map(|index| caches.join(format!("index{index}/shared_cpu_list")));
    let list = lists.filter_map(|path| fs::read_to_string(path).ok()).next()?;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    let ranges = list.trim().split(',').map(range).collect::<Option<Vec<_>>>()?;
    Some(ranges.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cache_says_which_cores_are_near() {
        let cpus = tempfile::tempdir().unwrap();
        let share = |index: usize, list: &str| {
            let folder = cpus.path().join(format!("cpu1/cache/index{index}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("shared_cpu_list"), list).unwrap();
        };
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), None);
        share(0, "1\n");
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), Some(vec![1]));
        share(3, "0-2,8\n");
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), Some(vec![0, 1, 2, 8]));
        share(3, "all of them\n");
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), None);
        // Whether the cores share a cache depends on the machine, but no core is far from itself.
        assert_ne!(far_core(0), Some(0));
    }
}
