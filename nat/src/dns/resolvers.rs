//! The host's resolvers, as `resolv.conf` names them, followed as it changes.
//!
//! A resolver on the host's loopback is not used where there is another way: behind
//! systemd-resolved's stub there are the servers that it uses itself, in a file of its own. Only if
//! nothing else is known (a resolver that the host runs for itself) is the loopback one asked; it
//! is the gateway that asks, a guest never learns of it.
//!
//! Files and the directories that hold them are watched, as editors, resolved and VPN clients
//! replace the file, write into it, or point the symbolic link elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use super::PORT;
use super::forwarder::is_loopback;

/// Most servers taken from a file, as in the C library (MAXNS).
const MOST: usize = 3;

/// The resolvers of the host.
pub(crate) struct Resolvers {
    file: PathBuf,
    /// Where systemd-resolved keeps the servers that it asks.
    behind_stub: PathBuf,
    inotify: OwnedFd,
    servers: Vec<SocketAddr>,
}

impl Resolvers {
    /// Those of this host.
    pub fn of_host() -> io::Result<Resolvers> {
        Self::new("/etc/resolv.conf".into(), "/run/systemd/resolve/resolv.conf".into())
    }

    fn new(file: PathBuf, behind_stub: PathBuf) -> io::Result<Resolvers> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut resolvers = Resolvers { file, behind_stub, inotify, servers: Vec::new() };
        resolvers.look();
        Ok(resolvers)
    }

    /// The servers as of the last look.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Looks again after the descriptor became readable. True: the servers are others now.
    pub fn refresh(&mut self) -> bool {
        // What changed does not matter; the files say what there is now.
        while rustix::io::read(&self.inotify, &mut [0; 4096]).is_ok_and(|length| length > 0) {}
        let before = std::mem::take(&mut self.servers);
        self.look();
        before != self.servers
    }

    /// Reads the files; watches first, so that no change slips through between.
    fn look(&mut self) {
        self.watch(&self.file);
        if let Ok(target) = self.file.canonicalize() {
            self.watch(&target);
        }
        self.watch(&self.behind_stub);
        let named = read(&self.file);
        let (local, mut servers): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|server| is_loopback(server.ip()));
        if servers.is_empty() && !local.is_empty() {
            servers = read(&self.behind_stub);
            servers.retain(|server| !is_loopback(server.ip()));
        }
        self.servers = if servers.is_empty() { local } else { servers };
        self.servers.truncate(MOST);
    }

    fn watch(&self, file: &Path) {
        // A file that is not there is noticed by its directory. Where that is missing, too, a
        // change of the other file makes us look again.
        let written = WatchFlags::CLOSE_WRITE;
        let moved = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        if let Some(directory) = file.parent() {
            let _ = add_watch(&self.inotify, directory, written | moved | WatchFlags::ONLYDIR);
        }
        let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let _ = add_watch(&self.inotify, file, written | gone);
    }
}

impl AsFd for Resolvers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The servers that a file names; none if it cannot be read (resolv.conf(5)).
fn read(file: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        // An address with a zone is of one link of the host; those are passed over.
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, PORT))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    struct Lab {
        dir: tempfile::TempDir,
        resolvers: Resolvers,
    }

    impl Lab {
        fn new(text: &str) -> Lab {
            let dir = tempfile::tempdir().unwrap();
            for sub in ["etc", "run", "other"] {
                fs::create_dir(dir.path().join(sub)).unwrap();
            }
            let (file, stub) = (dir.path().join("etc/resolv.conf"), dir.path().join("run/r.conf"));
            fs::write(&file, text).unwrap();
            let resolvers = Resolvers::new(file, stub).unwrap();
            Lab { dir, resolvers }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn servers(&self) -> Vec<String> {
            self.resolvers.servers().iter().map(|server| server.ip().to_string()).collect()
        }

        /// The servers after the next change, which must show within a second.
        fn after_change(&mut self) -> Vec<String> {
            let second = Timespec::try_from(Duration::from_secs(1)).unwrap();
            loop {
                let mut waiting = [PollFd::new(&self.resolvers, PollFlags::IN)];
                let ready = poll(&mut waiting, Some(&second)).unwrap();
                assert_eq!(ready, 1, "no change was seen; servers: {:?}", self.servers());
                if self.resolvers.refresh() {
                    return self.servers();
                }
            }
        }
    }

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let text = "# nameserver 192.0.2.9\nsearch a.b\n nameserver  192.0.2.1 \n\
                    nameserver\nnameserver x\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        assert_eq!(Lab::new(text).servers(), ["192.0.2.1", "2001:db8::1", "192.0.2.3"]);
    }

    #[test]
    fn loopback_is_the_last_resort() {
        assert_eq!(Lab::new("nameserver 127.0.0.1\nnameserver 192.0.2.1").servers(), ["192.0.2.1"]);
        let mut lab = Lab::new("nameserver 127.0.0.53");
        assert_eq!(lab.servers(), ["127.0.0.53"]);
        fs::write(lab.path("run/r.conf"), "nameserver 192.0.2.7\nnameserver ::1").unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.7"]);
        fs::write(lab.path("run/r.conf"), "nameserver 192.0.2.8").unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.8"], "a VPN came up behind the stub");
    }

    #[test]
    fn every_way_of_changing_the_file_is_followed() {
        let mut lab = Lab::new("nameserver 192.0.2.1");
        fs::write(lab.path("etc/resolv.conf"), "nameserver 192.0.2.2").unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.2"], "written in place");
        fs::write(lab.path("etc/new"), "nameserver 192.0.2.3").unwrap();
        fs::rename(lab.path("etc/new"), lab.path("etc/resolv.conf")).unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.3"], "renamed over");
        fs::write(lab.path("other/a"), "nameserver 192.0.2.4").unwrap();
        symlink(lab.path("other/a"), lab.path("etc/link")).unwrap();
        fs::rename(lab.path("etc/link"), lab.path("etc/resolv.conf")).unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.4"], "a link now");
        fs::write(lab.path("other/b"), "nameserver 192.0.2.5").unwrap();
        fs::rename(lab.path("other/b"), lab.path("other/a")).unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.5"], "the link's target was replaced");
        fs::remove_file(lab.path("other/a")).unwrap();
        assert!(lab.after_change().is_empty(), "the link points nowhere");
        fs::write(lab.path("other/a"), "nameserver 192.0.2.9").unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.9"], "the target is there again");
        fs::remove_file(lab.path("etc/resolv.conf")).unwrap();
        assert!(lab.after_change().is_empty());
        fs::write(lab.path("etc/resolv.conf"), "nameserver 192.0.2.6").unwrap();
        assert_eq!(lab.after_change(), ["192.0.2.6"], "there again");
    }
}
