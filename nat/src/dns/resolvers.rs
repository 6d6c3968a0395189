//! The host's resolvers and search list, as `resolv.conf` gives them, followed as it changes.
//!
//! A resolver on the host's loopback is not used where there is another way: behind
//! systemd-resolved's stub there are the servers that it uses itself, in a file of its own. Only if
//! nothing else is known (a resolver that the host runs for itself) is the loopback one asked; it
//! is the gateway that asks, a guest never learns of it.
//!
//! The file is read again when the process has something to do and the last look is older than
//! [`LOOK_EVERY`]. Reading is as cheap as asking whether it has changed, and sees what a watch does
//! not: a link into a folder that is made later, a file below a mount, an interface that a server's
//! zone names and that comes later. A gateway without work does not wake up for it.

use std::fs::OpenOptions;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use rustix::fs::OFlags;
use trama_dhcp::name::DomainName;

use super::resolv_conf::ResolvConf;

/// Most servers taken from a file, as in the C library (MAXNS).
const MOST: usize = 3;
/// A change is in force after this time at the latest.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes of a file that are read.
const MAX_FILE: u64 = 64 << 10;

/// The resolvers of the host, and the domains that it searches.
pub(crate) struct Resolvers {
    file: PathBuf,
    /// Where systemd-resolved keeps the servers that it asks.
    behind_stub: PathBuf,
    looked: Duration,
    found: ResolvConf,
}

impl Resolvers {
    /// Those of this host.
    pub fn of_host(now: Duration) -> Resolvers {
        Self::new(now, "/etc/resolv.conf".into(), "/run/systemd/resolve/resolv.conf".into())
    }

    fn new(now: Duration, file: PathBuf, behind_stub: PathBuf) -> Resolvers {
        let found = look(&file, &behind_stub);
        Resolvers { file, behind_stub, looked: now, found }
    }

    /// The servers as of the last look.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.found.servers
    }

    /// The domains that the host searches, as of the last look: those of `search` or `domain`.
    pub fn search(&self) -> &[DomainName] {
        &self.found.search
    }

    /// Looks again if it is time. True: [`Resolvers::servers`] or [`Resolvers::search`] are others
    /// now.
    pub fn follow(&mut self, now: Duration) -> bool {
        if now < self.looked + LOOK_EVERY {
            return false;
        }
        self.looked = now;
        let found = look(&self.file, &self.behind_stub);
        let changed = found != self.found;
        self.found = found;
        changed
    }
}

/// What the files say now.
fn look(file: &Path, behind_stub: &Path) -> ResolvConf {
    let ResolvConf { servers, search } = read(file);
    let (local, mut servers): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|server| is_of_host(server.ip()));
    if servers.is_empty() && !local.is_empty() {
        servers = read(behind_stub).servers;
        servers.retain(|server| !is_of_host(server.ip()));
    }
    let mut servers = if servers.is_empty() { local } else { servers };
    servers.truncate(MOST);
    ResolvConf { servers, search }
}

/// Whether a resolver is the host's own. The unspecified address leads there as well.
fn is_of_host(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// What a file says; nothing if it cannot be read.
fn read(file: &Path) -> ResolvConf {
    // A FIFO in its place must not stop the process.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let mut bytes = Vec::new();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
    if opened.and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).is_err() {
        return ResolvConf::default();
    }
    if bytes.len() as u64 == MAX_FILE {
        // What the end cuts in two would say something else.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        bytes.truncate(whole);
    }
    ResolvConf::parse(&bytes, |name| if_nametoindex(name).ok())
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
        /// A host whose resolv.conf has this text; `None`: it has no such file yet.
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

        /// The servers after the next change, which must show within a second.
        fn after_change(&mut self) -> Vec<String> {
            self.now += Duration::from_secs(1);
            assert!(self.resolvers.follow(self.now), "no change; servers: {:?}", self.servers());
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
        // A chain of links into folders that are not there.
        symlink(lab.path("other/deep/down/a"), lab.path("etc/resolv.conf")).unwrap();
        fs::create_dir_all(lab.path("other/deep")).unwrap();
        assert!(!lab.resolvers.follow(Duration::from_secs(1)));
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
    fn the_files_are_read_now_and_then_alone() {
        let mut lab = Lab::new(Some("search a.b\nnameserver 192.0.2.1"));
        lab.write("etc/resolv.conf", "192.0.2.2");
        assert!(!lab.resolvers.follow(LOOK_EVERY / 2), "it was read a moment ago");
        assert!(lab.resolvers.follow(LOOK_EVERY));
        assert!(!lab.resolvers.follow(LOOK_EVERY * 2), "nothing changed");
        fs::write(lab.path("etc/resolv.conf"), "nameserver 192.0.2.2\nsearch c.d").unwrap();
        assert!(lab.resolvers.follow(LOOK_EVERY * 3), "another search list");
    }

    #[test]
    fn what_is_no_file_has_no_servers_and_a_huge_one_is_cut_at_a_line() {
        let mut lab = Lab::new(None);
        let path = lab.path("etc/resolv.conf");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(!lab.resolvers.follow(Duration::from_secs(1)), "a FIFO");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!lab.resolvers.follow(Duration::from_secs(2)), "a folder");
        fs::remove_dir(&path).unwrap();
        // The end is reached inside the second address.
        let mut text = "nameserver 192.0.2.1\n".to_owned();
        text += &"#".repeat(MAX_FILE as usize - text.len() - 22);
        text += "\nnameserver 192.0.2.222\nnameserver 192.0.2.3";
        fs::write(&path, text).unwrap();
        lab.now = Duration::from_secs(2);
        assert_eq!(lab.after_change(), ["192.0.2.1"]);
    }

    #[test]
    fn a_server_is_used_once_its_link_is_there() {
        // The loopback interface is the one that every host has.
        let mut lab = Lab::new(Some("nameserver fe80::1%none0"));
        assert!(lab.servers().is_empty());
        fs::write(lab.path("etc/resolv.conf"), "nameserver fe80::1%lo").unwrap();
        lab.after_change();
        let SocketAddr::V6(server) = lab.resolvers.servers()[0] else { panic!("an IPv6 server") };
        assert_eq!(server.scope_id(), if_nametoindex("lo").unwrap());
    }
}
