//! Things that a restricted process must not be able to do, each tried for a test.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::net::ipproto::ICMP;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::Pid;

use crate::kernel;

type Attempt = fn() -> io::Result<()>;

/// What is tried, by its name. What fails for another reason than a restriction is not here.
const PROBES: &[(&str, Attempt)] = &[
    ("exec", || Err(Command::new("/bin/true").exec())),
    ("spawn", || Command::new("/bin/true").spawn()?.wait().map(drop)),
    ("thread", thread),
    ("ptrace", kernel::trace_self),
    ("exec-memory", kernel::map_executable),
    ("socket-unix", || open(AddressFamily::UNIX, SocketType::STREAM)),
    ("socket-netlink", || open(AddressFamily::NETLINK, SocketType::RAW)),
    ("socket-packet", || open(AddressFamily::PACKET, SocketType::RAW)),
    ("socket-vsock", || open(AddressFamily::VSOCK, SocketType::STREAM)),
    ("socket-raw", || Ok(socket(AddressFamily::INET, SocketType::RAW, Some(ICMP)).map(drop)?)),
    ("socket-tcp", || open(AddressFamily::INET, SocketType::STREAM)),
    ("socket-udp6", || open(AddressFamily::INET6, SocketType::DGRAM)),
    ("listen", || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
    ("bind-udp", || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
    ("open-shadow", || File::open("/etc/shadow").map(drop)),
    ("open-program", || File::open("/bin/sh").map(drop)),
    ("write-file", || File::create("/tmp/trama-probe").map(drop)),
    ("unshare", kernel::unshare_root),
    ("signal", || Ok(rustix::process::test_kill_process(Pid::INIT)?)),
    ("unlisted", || Ok(rustix::process::getpriority_process(None).map(drop)?)),
];

/// Tries what `name` stands for; `None` if there is no such name.
pub fn attempt(name: &str) -> Option<io::Result<()>> {
    PROBES.iter().find(|(probe, _)| *probe == name).map(|(_, attempt)| attempt())
}

fn open(family: AddressFamily, kind: SocketType) -> io::Result<()> {
    Ok(socket(family, kind, None).map(drop)?)
}

fn thread() -> io::Result<()> {
    let started = std::thread::Builder::new().name("probe".into()).spawn(|| ())?;
    started.join().map_err(|_| io::Error::other("the thread panicked"))
}
