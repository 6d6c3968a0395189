//! The machine of a run, and the installed software.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::thread::sched_getaffinity;
use serde::{Deserialize, Serialize};

use crate::cores;
use crate::process::{Result, run};
use crate::program::Program;

/// Properties of the machine that a reader of the figures needs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's model name.
    pub cpu: String,
    /// Number of cores.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Whether the processor reports a hypervisor.
    pub virtual_machine: bool,
    /// Versions of trama and of the peers' programs, by name.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// Describes this machine, with the versions of `tramad` in `bin` and of `programs`.
    pub(crate) fn here<'a>(bin: &Path, programs: impl Iterator<Item = &'a Program>) -> Self {
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
            cores: cores::count(),
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

/// Returns the version of a program's package: not every program prints its own.
fn version(program: &Program) -> Option<String> {
    run("dpkg-query", &["-W", "-f", "${Version}", program.package]).ok()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Checks that this process may use these cores.
pub(crate) fn require(cores: [usize; 2]) -> Result<()> {
    let allowed = sched_getaffinity(None).map_err(|e| format!("sched_getaffinity: {e}"))?;
    match cores.iter().all(|&core| allowed.is_set(core)) {
        true => Ok(()),
        false => Err(format!(
            "cores {} and {} are needed, one for the switch and one for the load; this process may use {} \
             core(s), not both of these",
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
    fn cores_that_are_not_there_are_named() {
        assert!(require([1000, 1001]).unwrap_err().contains("cores 1000 and 1001 are needed"));
    }
}
