//! The host's resolvers and search list, which follow changes of `resolv.conf`.
//!
//! A resolver on the host's loopback is only used if there is no other. Behind the stub of
//! systemd-resolved are the servers that it uses, which it lists in another file. The gateway may
//! query a loopback resolver; guests cannot reach it.
//!
//! The files are read again when the process has work and [`RELOAD_INTERVAL`] has passed. Reading
//! costs no more than checking for a change, and notices what a watch would not: a link into a
//! folder that is created later, a file below a mount, an interface in the zone of a server's
//! address that appears later. An idle gateway does not wake up for it.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use trama_dhcp::name::DomainName;

use super::resolv_conf::ResolvConf;
use super::resolver_files::{RESOLV_CONF, STUB_UPSTREAM};
use crate::control::ResolverFiles;

/// Most servers used, as in the C library (MAXNS).
const MAX_SERVERS: usize = 3;
/// A change takes effect within this time.
const RELOAD_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes read from a file.
const MAX_FILE: u64 = 64 << 10;

/// The resolvers and search domains of the host.
pub(crate) struct Resolvers {
    file: PathBuf,
    stub_upstream: PathBuf,
    read_at: Duration,
    current: ResolvConf,
    /// Whether the file could not be opened for want of permission, and whether the daemon was not
    /// asked for it since.
    is_denied: bool,
    wants_help: bool,
}

impl Resolvers {
    /// The resolvers of this host.
    pub(crate) fn of_host(now: Duration) -> Resolvers {
        Self::new(now, RESOLV_CONF.into(), STUB_UPSTREAM.into())
    }

    fn new(now: Duration, file: PathBuf, stub_upstream: PathBuf) -> Resolvers {
        let (current, is_denied) = read_all(&file, &stub_upstream);
        let wants_help = is_denied;
        Resolvers { file, stub_upstream, read_at: now, current, is_denied, wants_help }
    }

    /// Whether the daemon must be asked for the files; at most once in [`RELOAD_INTERVAL`].
    pub(crate) fn wants_help(&mut self) -> bool {
        std::mem::take(&mut self.wants_help)
    }

    /// Takes the files that the daemon has read. Returns whether servers or search domains have
    /// changed.
    pub(crate) fn take(&mut self, files: &ResolverFiles) -> bool {
        if !self.is_denied {
            return false;
        }
        let parsed = |bytes: &[u8]| Ok(ResolvConf::parse(bytes, index_of));
        let (found, _) = combine(parsed(&files.resolv_conf), || parsed(&files.stub_upstream));
        let changed = found != self.current;
        self.current = found;
        changed
    }

    /// The servers as last read.
    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.current.servers
    }

    /// The domains of `search` or `domain`, as last read.
    pub(crate) fn search(&self) -> &[DomainName] {
        &self.current.search
    }

    /// Reads the files again if it is time. Returns whether servers or search domains have changed.
    pub(crate) fn refresh(&mut self, now: Duration) -> bool {
        if now < self.read_at + RELOAD_INTERVAL {
            return false;
        }
        self.read_at = now;
        let (found, is_denied) = read_all(&self.file, &self.stub_upstream);
        (self.is_denied, self.wants_help) = (is_denied, is_denied);
        if is_denied {
            return false;
        }
        let changed = found != self.current;
        self.current = found;
        changed
    }
}

/// Reads the files; also returns whether the first one could not be opened for want of permission.
fn read_all(file: &Path, stub_upstream: &Path) -> (ResolvConf, bool) {
    combine(read(file), || read(stub_upstream))
}

fn combine(
    read_first: io::Result<ResolvConf>,
    read_upstream: impl FnOnce() -> io::Result<ResolvConf>,
) -> (ResolvConf, bool) {
    let is_denied = read_first.as_ref().is_err_and(|it| it.kind() == ErrorKind::PermissionDenied);
    let ResolvConf { servers, search } = read_first.unwrap_or_default();
    let (local, mut servers): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|server| is_local(server.ip()));
    if servers.is_empty() && !local.is_empty() {
        servers = read_upstream().unwrap_or_default().servers;
        servers.retain(|server| !is_local(server.ip()));
    }
    let mut servers = if servers.is_empty() { local } else { servers };
    servers.truncate(MAX_SERVERS);
    (ResolvConf { servers, search }, is_denied)
}

/// Whether a resolver is on the host. The unspecified address leads there, too.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// Reads a file.
fn read(file: &Path) -> io::Result<ResolvConf> {
    // Does not block on a FIFO.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let mut bytes = Vec::new();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    opened.take(MAX_FILE).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == MAX_FILE {
        // A truncated last line is dropped.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        bytes.truncate(whole);
    }
    Ok(ResolvConf::parse(&bytes, index_of))
}

/// The number of an interface. `if_nametoindex` of some C libraries asks by a Unix socket, which a
/// gateway may not have.
fn index_of(name: &str) -> Option<u32> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).ok()?;
    name_to_index(&socket, name).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Lab {
        dir: tempfile::TempDir,
        resolvers: Resolvers,
        now: Duration,
    }

    impl Lab {
        /// A host whose `resolv.conf` has this text; `None` if the file does not exist.
        fn new(text: Option<&str>) -> Lab {
            let dir = tempfile::tempdir().unwrap();
            for sub in ["etc", "run", "other"] {
                fs::create_dir(dir.path().join(sub)).unwrap();
            }
            let (file, stub) = (dir.path().join("etc/resolv.conf"), dir.path().join("run/r.conf"));
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            let now = Duration::ZERO;
            Lab { dir, resolvers: Resolvers::new(now, file, stub), now }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, server: &str) {
            fs::write(self.path(name), format!("nameserver {server}\n")).unwrap();
        }

        fn servers(&self) -> Vec<String> {
            self.resolvers.servers().iter().map(|server| server.ip().to_string()).collect()
        }

        /// The servers after the next change, which must be noticed within a second.
        fn after_change(&mut self) -> Vec<String> {
            self.now += Duration::from_secs(1);
            assert!(self.resolvers.refresh(self.now), "no change; servers: {:?}", self.servers());
            self.servers()
        }
    }

    #[test]
    fn servers_are_limited_as_in_the_c_library() {
        let text = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.1\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        assert_eq!(Lab::new(Some(text)).servers(), ["192.0.2.1", "2001:db8::1", "192.0.2.3"]);
    }

    #[test]
    fn loopback_is_the_last_resort() {
        let both = "nameserver 127.0.0.1\nnameserver 192.0.2.1";
        assert_eq!(Lab::new(Some(both)).servers(), ["192.0.2.1"]);
        for own in ["127.0.0.53", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            let mut lab = Lab::new(Some(&format!("nameserver {own}")));
            assert_eq!(lab.servers(), [own.trim_start_matches("::ffff:")]);
            fs::write(lab.path("run/r.conf"), "nameserver 192.0.2.7\nnameserver ::1").unwrap();
            assert_eq!(lab.after_change(), ["192.0.2.7"]);
            lab.write("run/r.conf", "192.0.2.8");
            assert_eq!(lab.after_change(), ["192.0.2.8"], "a VPN came up behind the stub");
        }
    }

    #[test]
    fn every_way_of_changing_the_file_is_followed() {
        let mut lab = Lab::new(Some("nameserver 192.0.2.1"));
        lab.write("etc/resolv.conf", "192.0.2.2");
        assert_eq!(lab.after_change(), ["192.0.2.2"], "written in place");
        lab.write("etc/new", "192.0.2.3");
        fs::rename(lab.path("etc/new"), lab.path("etc/resolv.conf")).unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.3"], "renamed over");
        lab.write("other/a", "192.0.2.4");
        symlink(lab.path("other/a"), lab.path("etc/link")).unwrap();
        fs::rename(lab.path("etc/link"), lab.path("etc/resolv.conf")).unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.4"], "a link now");
        lab.write("other/b", "192.0.2.5");
        fs::rename(lab.path("other/b"), lab.path("other/a")).unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.5"], "the link's target was replaced");
        fs::remove_file(lab.path("other/a")).unwrap();
        assert!(lab.after_change().is_empty(), "the link points nowhere");
        lab.write("other/a", "192.0.2.9");
        assert_eq!(lab.after_change(), ["192.0.2.9"], "the target is there again");
        fs::remove_file(lab.path("etc/resolv.conf")).unwrap();
        assert!(lab.after_change().is_empty());
        lab.write("etc/resolv.conf", "192.0.2.6");
        assert_eq!(lab.after_change(), ["192.0.2.6"], "there again");
    }

    #[test]
    fn what_comes_later_is_followed() {
        let mut lab = Lab::new(None);
        // A chain of links into folders that do not exist.
        symlink(lab.path("other/deep/down/a"), lab.path("etc/resolv.conf")).unwrap();
        fs::create_dir_all(lab.path("other/deep")).unwrap();
        assert!(!lab.resolvers.refresh(Duration::from_secs(1)));
        lab.now = Duration::from_secs(1);
        fs::create_dir(lab.path("other/deep/down")).unwrap();
        symlink("../b", lab.path("other/deep/down/a")).unwrap();
        lab.write("other/deep/b", "192.0.2.1");
        assert_eq!(lab.after_change(), ["192.0.2.1"], "link, folder and file are there");
        fs::remove_dir_all(lab.path("other/deep")).unwrap();
        assert!(lab.after_change().is_empty(), "the folder is gone");
        fs::create_dir_all(lab.path("other/deep/down")).unwrap();
        lab.write("other/deep/down/a", "192.0.2.2");
        assert_eq!(lab.after_change(), ["192.0.2.2"], "the folder is there again");
        fs::rename(lab.path("etc"), lab.path("old")).unwrap();
        fs::create_dir(lab.path("etc")).unwrap();
        lab.write("etc/resolv.conf", "192.0.2.3");
        assert_eq!(lab.after_change(), ["192.0.2.3"], "another folder has the place");
        let time = fs::metadata(lab.path("etc/resolv.conf")).unwrap().modified().unwrap();
        lab.write("etc/resolv.conf", "192.0.2.4");
        let file = fs::File::options().write(true).open(lab.path("etc/resolv.conf")).unwrap();
        file.set_modified(time).unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.4"], "as long and as old as before");
    }

    #[test]
    fn the_files_are_read_at_intervals_only() {
        let mut lab = Lab::new(Some("search a.b\nnameserver 192.0.2.1"));
        lab.write("etc/resolv.conf", "192.0.2.2");
        assert!(!lab.resolvers.refresh(RELOAD_INTERVAL / 2), "it was read a moment ago");
        assert!(lab.resolvers.refresh(RELOAD_INTERVAL));
        assert!(!lab.resolvers.refresh(RELOAD_INTERVAL * 2), "nothing changed");
        fs::write(lab.path("etc/resolv.conf"), "nameserver 192.0.2.2\nsearch c.d").unwrap();
        assert!(lab.resolvers.refresh(RELOAD_INTERVAL * 3), "another search list");
    }

    #[test]
    fn what_is_no_file_has_no_servers_and_a_huge_one_is_cut_at_a_line() {
        let mut lab = Lab::new(None);
        let path = lab.path("etc/resolv.conf");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(!lab.resolvers.refresh(Duration::from_secs(1)), "a FIFO");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!lab.resolvers.refresh(Duration::from_secs(2)), "a folder");
        fs::remove_dir(&path).unwrap();
        // The limit is inside the second address.
        let mut text = "nameserver 192.0.2.1\n".to_owned();
        text += &"#".repeat(MAX_FILE as usize - text.len() - 22);
        text += "\nnameserver 192.0.2.222\nnameserver 192.0.2.3";
        fs::write(&path, text).unwrap();
        lab.now = Duration::from_secs(2);
        assert_eq!(lab.after_change(), ["192.0.2.1"]);
    }

    #[test]
    fn a_server_is_used_once_its_link_is_there() {
        // Every host has a loopback interface.
        let mut lab = Lab::new(Some("nameserver fe80::1%none0"));
        assert!(lab.servers().is_empty());
        fs::write(lab.path("etc/resolv.conf"), "nameserver fe80::1%lo").unwrap();
        lab.after_change();
        let SocketAddr::V6(server) = lab.resolvers.servers()[0] else { panic!("an IPv6 server") };
        assert_eq!(server.scope_id(), index_of("lo").unwrap());
    }
}
