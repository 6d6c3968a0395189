//! The machine of a run, and what was installed on it.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::thread::sched_getaffinity;
use serde::{Deserialize, Serialize};

use crate::peers::Program;
use crate::process::{Result, run};

/// What a reader of figures has to know of the machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name for itself.
    pub cpu: String,
    /// How many cores there are.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Whether the processor says that there is a hypervisor.
    pub virtual_machine: bool,
    /// Versions of trama and of the programs that took part, by name.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// This machine, with the versions of `tramad` in `bin` and of `programs`.
    pub fn here<'a>(bin: &Path, programs: impl Iterator<Item = &'a Program>) -> Self {
        let cpu = read("/proc/cpuinfo");
        let field = |name: &str| cpu.lines().find(|line| line.starts_with(name));
        let value = |line: &str| line.split(':').nth(1).unwrap_or("").trim().to_owned();
        let memory = read("/proc/meminfo");
        let mut versions: BTreeMap<String, String> = programs
            .filter_map(|program| Some((program.name.to_owned(), version(program)?)))
            .collect();
        let tramad = run(&bin.join("tramad").to_string_lossy(), &["--version"]);
        versions.extend(tramad.map(|text| ("tramad".to_owned(), text.trim().to_owned())));
        Self {
            cpu: field("model name").map(value).unwrap_or_default(),
            cores: cores(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            memory_mib: memory
                .split_whitespace()
                .nth(1)
                .and_then(|word| word.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            virtual_machine: field("flags").is_some_and(|line| line.contains(" hypervisor")),
            versions,
        }
    }
}

/// The version of a program's package: not every program tells its own.
fn version(program: &Program) -> Option<String> {
    run("dpkg-query", &["-W", "-f", "${Version}", program.package]).ok()
}

/// How many cores the machine has, whatever this program is pinned to.
pub fn cores() -> usize {
    let is_core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    read("/proc/stat").lines().filter(is_core).count()
}

/// A core that this process may use and that shares no cache with `core`: of another core complex,
/// or of another socket.
pub fn far_core(core: usize) -> Option<usize> {
    let allowed = sched_getaffinity(None).ok()?;
    let near = cores_that_share_a_cache(Path::new("/sys/devices/system/cpu"), core)?;
    (0..cores()).find(|other| allowed.is_set(*other) && !near.contains(other))
}

/// Cores with which `core` has its last cache in common, itself included, as `cpus` (sysfs) says.
/// `None`: it does not say.
fn cores_that_share_a_cache(cpus: &Path, core: usize) -> Option<Vec<usize>> {
    let caches = cpus.join(format!("cpu{core}/cache"));
    let lists = (0..=9).rev().map(|index| caches.join(format!("index{index}/shared_cpu_list")));
    let list = lists.filter_map(|path| std::fs::read_to_string(path).ok()).next()?;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    let ranges = list.trim().split(',').map(range).collect::<Option<Vec<_>>>()?;
    Some(ranges.into_iter().flatten().collect())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// An error unless this process may use these cores.
pub fn require(cores: [usize; 2]) -> Result<()> {
    let allowed = sched_getaffinity(None).map_err(|e| format!("sched_getaffinity: {e}"))?;
    match cores.iter().all(|&core| allowed.is_set(core)) {
        true => Ok(()),
        false => Err(format!(
            "cores {} and {} are needed, one for the switch and one for the load; this process may use {} \
             core(s) and not both of these",
            cores[0],
            cores[1],
            allowed.count()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cache_says_which_cores_are_near() {
        let cpus = tempfile::tempdir().unwrap();
        let share = |index: usize, list: &str| {
            let folder = cpus.path().join(format!("cpu1/cache/index{index}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("shared_cpu_list"), list).unwrap();
        };
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), None);
        share(0, "1\n");
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), Some(vec![1]));
        share(3, "0-2,8\n");
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), Some(vec![0, 1, 2, 8]));
        share(3, "all of them\n");
        assert_eq!(cores_that_share_a_cache(cpus.path(), 1), None);
        // All cores of the machines that this runs on share one, or not: no core is far from
        // itself.
        assert_ne!(far_core(0), Some(0));
    }

    #[test]
    fn cores_that_are_not_there_are_named() {
        assert!(require([1000, 1001]).unwrap_err().contains("cores 1000 and 1001 are needed"));
    }
}
