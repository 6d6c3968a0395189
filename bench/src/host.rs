//! Resources of the host that a measurement uses, and their return.
//!
//! [`isolate`] moves the benchmark into its own mount and network namespace: devices, bridges,
//! named namespaces and mounts vanish with its last process, however it ends. Only the number of
//! reserved hugepages is global; [`Hugepages`] restores it when dropped.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::{Result, run, this_program};

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Set in the environment of an isolated benchmark.
const ISOLATED: &str = "TRAMA_BENCH_ISOLATED";

/// For many short connections: a used L4 port is unavailable for a minute.
const MANY_PORTS: &str = "net.ipv4.ip_local_port_range=1024 65535";

/// Congestion control of all hosts. Some machines prefer BBR, whose pacing timers then limit a
/// stream instead of the switch: without it the rate doubled. Every kernel has Reno, and every
/// namespace may choose it.
const RENO: &str = "net.ipv4.tcp_congestion_control=reno";

/// Returns whether [`isolate`] has run.
pub(crate) fn is_isolated() -> bool {
    env::var_os(ISOLATED).is_some()
}

/// Re-executes this program in its own namespaces and on the load core; returns in the new one.
pub(crate) fn isolate(core: usize) -> Result<()> {
    if !is_isolated() {
        let error = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "--"])
            .args(["taskset", "-c", &core.to_string()])
            .arg(this_program()?)
            .args(env::args_os().skip(1))
            .env(ISOLATED, "yes")
            .exec();
        return Err(format!("unshare cannot be started: {error}"));
    }
    // `ip netns` keeps its names here, and DPDK its locks: private mounts separate them from those
    // of other processes.
    for folder in ["/run/netns", "/run/dpdk"] {
        fs::create_dir_all(folder).map_err(|e| format!("{folder}: {e}"))?;
        run("mount", &["-t", "tmpfs", "none", folder])?;
    }
    run("ip", &["link", "set", "lo", "up"])?;
    // For NATs, whose host-side connections start here.
    run("sysctl", &["-q", RENO])?;
    raise_file_limit()?;
    disable_ipv6("/proc/sys/net/ipv6/conf")
}

/// Raises the file limit for thousands of connections, for this process and its children.
fn raise_file_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|e| format!("the limit of open files: {e}"))
}

/// Disables automatic IPv6 addresses, which would send unsolicited frames.
fn disable_ipv6(conf: &str) -> Result<()> {
    for which in ["all", "default"] {
        let path = format!("{conf}/{which}/disable_ipv6");
        if Path::new(&path).exists() {
            fs::write(&path, "1").map_err(|e| format!("{path}: {e}"))?;
        }
    }
    Ok(())
}

/// Lets connections of the benchmark's own namespace use nearly all L4 ports.
pub(crate) fn widen_port_range() -> Result<()> {
    run("sysctl", &["-q", MANY_PORTS]).map(|_| ())
}

/// 2 MiB hugepages reserved for DPDK, with a hugetlbfs mount.
pub(crate) struct Hugepages {
    pages: usize,
    mount: PathBuf,
}

impl Hugepages {
    /// Reserves `pages` in addition to those in use, and mounts them below `dir`.
    pub(crate) fn reserve(pages: usize, dir: &Path) -> Result<Self> {
        let cannot = |e| format!("hugepages cannot be reserved: {e}; DPDK needs {pages} of 2 MiB");
        let before = nr_hugepages().map_err(cannot)?;
        set_nr_hugepages(before + pages).map_err(cannot)?;
        // The kernel may have found fewer; only those are returned.
        let got = nr_hugepages()?.saturating_sub(before);
        let this = Self { pages: got, mount: dir.join("huge") };
        if got < pages {
            return Err(format!(
                "{pages} hugepages of 2 MiB are needed and the kernel had only {got}; \
                 free some memory, or `echo 1 > /proc/sys/vm/compact_memory`"
            ));
        }
        fs::create_dir_all(&this.mount).map_err(|e| format!("{}: {e}", this.mount.display()))?;
        run("mount", &["-t", "hugetlbfs", "none", &this.mount()])?;
        Ok(this)
    }

    /// Returns the mount point.
    pub(crate) fn mount(&self) -> String {
        self.mount.to_string_lossy().into_owned()
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.mount()]);
        // Pages reserved by others meanwhile stay.
        let _ = nr_hugepages().and_then(|now| set_nr_hugepages(now.saturating_sub(self.pages)));
    }
}

fn nr_hugepages() -> Result<usize> {
    let text = fs::read_to_string(NR_HUGEPAGES).map_err(|e| format!("{NR_HUGEPAGES}: {e}"))?;
    text.trim().parse().map_err(|e| format!("{NR_HUGEPAGES}: {e}"))
}

fn set_nr_hugepages(number: usize) -> Result<()> {
    fs::write(NR_HUGEPAGES, number.to_string()).map_err(|e| format!("{NR_HUGEPAGES}: {e}"))
}

/// A host: a named network namespace of this run.
pub(crate) struct Namespace(pub String);

impl Namespace {
    /// Creates host `number`. Its address is [`Namespace::address`].
    pub(crate) fn new(number: usize) -> Result<Self> {
        let this = Self(format!("host{number}"));
        run("ip", &["netns", "add", &this.0])?;
        run("ip", &["-n", &this.0, "link", "set", "lo", "up"])?;
        for which in ["all", "default"] {
            let key = format!("net.ipv6.conf.{which}.disable_ipv6=1");
            run("ip", &["netns", "exec", &this.0, "sysctl", "-qe", &key])?;
        }
        this.set(RENO)?;
        Ok(this)
    }

    /// Returns the address of host `number`, without its prefix length of 24.
    pub(crate) fn address(number: usize) -> String {
        format!("10.77.0.{}", number + 1)
    }

    /// Configures `device`, which is in the namespace: address, MTU, up.
    pub(crate) fn configure(&self, device: &str, address: &str, mtu: u32) -> Result<()> {
        run("ip", &["-n", &self.0, "addr", "add", address, "dev", device])?;
        run("ip", &["-n", &self.0, "link", "set", device, "mtu", &mtu.to_string(), "up"])
            .map(|_| ())
    }

    /// Returns the path of its file.
    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    /// Applies a `key=value` of sysctl.
    pub(crate) fn set(&self, setting: &str) -> Result<()> {
        run("ip", &["netns", "exec", &self.0, "sysctl", "-q", setting]).map(|_| ())
    }

    /// Lets its connections use nearly all L4 ports.
    pub(crate) fn widen_port_range(&self) -> Result<()> {
        self.set(MANY_PORTS)
    }

    /// Moves a device of this namespace into it.
    pub(crate) fn adopt(&self, device: &str) -> Result<()> {
        run("ip", &["link", "set", device, "netns", &self.0]).map(|_| ())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "del", &self.0]);
    }
}

/// A device of this run, deleted when dropped.
pub(crate) struct Link(pub String);

impl Link {
    /// Adds a device of this kind and sets it up.
    pub(crate) fn add(name: &str, kind: &[&str]) -> Result<Self> {
        run("ip", &[&["link", "add", name], kind].concat())?;
        Self(name.to_owned()).up()
    }

    /// Adds a persistent TAP, which another program opens, and sets it up.
    pub(crate) fn add_tap(name: &str) -> Result<Self> {
        run("ip", &["tuntap", "add", name, "mode", "tap"])?;
        Self(name.to_owned()).up()
    }

    fn up(self) -> Result<Self> {
        run("ip", &["link", "set", &self.0, "up"])?;
        Ok(self)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &self.0]);
    }
}
