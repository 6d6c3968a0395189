//! What a measurement borrows from the host, and gives back.
//!
//! [`isolate`] puts the whole benchmark into a mount and a network namespace of its own, so that
//! devices, bridges, named namespaces and mounts go with its last process, however that ends. Only
//! the number of reserved hugepages is the machine's; [`Hugepages`] gives them back when dropped.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::{Result, run, this_program};

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Set in the environment of a benchmark that is isolated already.
const ISOLATED: &str = "TRAMA_BENCH_ISOLATED";

/// For many short connections: a number that was in use rests for a minute.
const MANY_PORTS: &str = "net.ipv4.ip_local_port_range=1024 65535";

/// The TCP of all hosts. Some machines prefer BBR, whose timers and not the switch then set the
/// rate of a stream: twice as much passed without it. This one every kernel has and every namespace
/// may choose.
const RENO: &str = "net.ipv4.tcp_congestion_control=reno";

/// Whether [`isolate`] has been passed.
pub fn is_isolated() -> bool {
    env::var_os(ISOLATED).is_some()
}

/// Starts this program anew, isolated and on the load core; returns in the isolated one.
pub fn isolate(core: usize) -> Result<()> {
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
    // `ip netns` keeps its names, and DPDK its locks, here: on mounts of our own they are nobody
    // else's.
    for folder in ["/run/netns", "/run/dpdk"] {
        fs::create_dir_all(folder).map_err(|e| format!("{folder}: {e}"))?;
        run("mount", &["-t", "tmpfs", "none", folder])?;
    }
    run("ip", &["link", "set", "lo", "up"])?;
    // Of NATs, whose own connections begin here.
    run("sysctl", &["-q", RENO])?;
    allow_many_files()?;
    silence_ipv6("/proc/sys/net/ipv6/conf")
}

/// Thousands of connections at once, here and in what is started from here.
fn allow_many_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|e| format!("the limit of open files: {e}"))
}

/// Addresses that a kernel makes up for itself send frames that nobody asked for.
fn silence_ipv6(conf: &str) -> Result<()> {
    for which in ["all", "default"] {
        let path = format!("{conf}/{which}/disable_ipv6");
        if Path::new(&path).exists() {
            fs::write(&path, "1").map_err(|e| format!("{path}: {e}"))?;
        }
    }
    Ok(())
}

/// Has connections of the benchmark's own namespace use nearly all port numbers.
pub fn use_many_ports() -> Result<()> {
    run("sysctl", &["-q", MANY_PORTS]).map(|_| ())
}

/// 2 MiB pages reserved for DPDK, and a mount of their file system.
pub struct Hugepages {
    pages: usize,
    mount: PathBuf,
}

impl Hugepages {
    /// Reserves `pages` beside those in use and mounts them below `dir`.
    pub fn reserve(pages: usize, dir: &Path) -> Result<Self> {
        let cannot = |e| format!("hugepages cannot be reserved: {e}; DPDK needs {pages} of 2 MiB");
        let before = nr_hugepages().map_err(cannot)?;
        set_nr_hugepages(before + pages).map_err(cannot)?;
        // What the kernel did not have must not be given back.
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

    /// Where they are mounted.
    pub fn mount(&self) -> String {
        self.mount.to_string_lossy().into_owned()
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.mount()]);
        // What others have reserved meanwhile stays theirs.
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
pub struct Namespace(pub String);

impl Namespace {
    /// Makes the host with this number. Its address is [`Namespace::address`].
    pub fn new(number: usize) -> Result<Self> {
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

    /// The address of host `number`, without its prefix of 24 bits.
    pub fn address(number: usize) -> String {
        format!("10.77.0.{}", number + 1)
    }

    /// Gives `device`, which is in the namespace, an address and an MTU and sets it up.
    pub fn configure(&self, device: &str, address: &str, mtu: u32) -> Result<()> {
        run("ip", &["-n", &self.0, "addr", "add", address, "dev", device])?;
        run("ip", &["-n", &self.0, "link", "set", device, "mtu", &mtu.to_string(), "up"])
            .map(|_| ())
    }

    /// The file that stands for it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    /// Sets a `key=value` of sysctl.
    pub fn set(&self, setting: &str) -> Result<()> {
        run("ip", &["netns", "exec", &self.0, "sysctl", "-q", setting]).map(|_| ())
    }

    /// Has its connections use nearly all port numbers.
    pub fn use_many_ports(&self) -> Result<()> {
        self.set(MANY_PORTS)
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

/// A device of this run, deleted when dropped.
pub struct Link(pub String);

impl Link {
    /// Adds the device `name` of this kind and sets it up.
    pub fn add(name: &str, kind: &[&str]) -> Result<Self> {
        run("ip", &[&["link", "add", name], kind].concat())?;
        Self(name.to_owned()).up()
    }

    /// Adds a TAP that some program will open, and sets it up.
    pub fn add_tap(name: &str) -> Result<Self> {
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
