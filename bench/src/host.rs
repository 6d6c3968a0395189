//! What a measurement borrows from the host, and gives back when dropped: hugepages and namespaces.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Result, run};

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";

/// 2 MiB pages reserved for DPDK, and a mount of their file system.
pub struct Hugepages {
    before: String,
    mount: PathBuf,
}

impl Hugepages {
    /// Reserves `pages` and mounts them below `dir`.
    pub fn reserve(pages: usize, dir: &Path) -> Result<Self> {
        let before =
            fs::read_to_string(NR_HUGEPAGES).map_err(|e| format!("{NR_HUGEPAGES}: {e}"))?;
        let mount = dir.join("huge");
        let this = Self { before, mount };
        fs::write(NR_HUGEPAGES, pages.to_string()).map_err(|e| format!("{NR_HUGEPAGES}: {e}"))?;
        let got = fs::read_to_string(NR_HUGEPAGES).unwrap_or_default();
        if got.trim().parse::<usize>().unwrap_or(0) < pages {
            return Err(format!("{pages} hugepages wanted, {} had; free some memory", got.trim()));
        }
        fs::create_dir_all(&this.mount).map_err(|e| format!("{}: {e}", this.mount.display()))?;
        run("mount", &["-t", "hugetlbfs", "none", &this.mount.to_string_lossy()])?;
        Ok(this)
    }

    /// Where they are mounted.
    pub fn mount(&self) -> String {
        self.mount.to_string_lossy().into_owned()
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.mount()]);
        let _ = fs::write(NR_HUGEPAGES, self.before.trim());
    }
}

/// A named network namespace of this run.
pub struct Namespace(pub String);

impl Namespace {
    /// Makes the namespace `bench-<pid>-<suffix>`.
    pub fn new(suffix: &str) -> Result<Self> {
        let name = format!("bench-{}-{suffix}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let this = Self(name);
        run("ip", &["-n", &this.0, "link", "set", "lo", "up"])?;
        Ok(this)
    }

    /// Gives `device`, which is in the namespace, an address and sets it up.
    pub fn configure(&self, device: &str, address: &str) -> Result<()> {
        run("ip", &["-n", &self.0, "addr", "add", address, "dev", device])?;
        run("ip", &["-n", &self.0, "link", "set", device, "up"]).map(|_| ())
    }

    /// Moves a device of this namespace in.
    pub fn adopt(&self, device: &str) -> Result<()> {
        run("ip", &["link", "set", device, "netns", &self.0]).map(|_| ())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "del", &self.0]);
    }
}
