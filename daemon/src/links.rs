//! Changes of interfaces, for ports that have joined one or wait for one.
//!
//! A port whose interface is missing, down or too small is not tried again by time. A thread hears
//! of each change of a link (rtnetlink(7)) in the namespaces of such ports, and of the end of
//! processes whose namespace a path names (`/proc/4711/ns/net`). Its sockets are the helper's.
//! A socket keeps its namespace alive, so it is closed with the last port that is there.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::net::{RecvFlags, recv};

/// Changes within this time are reported together: a bridge with many ports reports each of them.
const SETTLE: Duration = Duration::from_millis(20);
/// What epoll reports of the descriptor that ends the thread.
const STOP: u64 = 0;
/// Most that epoll reports at once.
const AT_ONCE: usize = 16;

/// A namespace: its name or path; empty for the daemon's own.
type Netns = String;

/// What a port that does not run waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waits {
    /// A change of a link.
    Link,
    /// A command: its namespace belonged to a process that has ended, and another one may have got
    /// the number.
    Command,
}

/// The links that ports depend on.
#[derive(Default)]
pub(crate) struct Links {
    waiting: HashMap<String, Waits>,
    watched: HashMap<Netns, Watched>,
    /// Started with the first namespace.
    watch: Option<Watch>,
    /// Whether ports must be tried again although no link has changed since.
    is_due: bool,
}

/// A namespace that is watched.
struct Watched {
    /// What epoll reports of its descriptors.
    keys: Vec<u64>,
    ports: HashSet<String>,
}

impl Links {
    /// Watches the namespace of a port; `open` has its descriptors opened.
    ///
    /// # Errors
    /// It cannot be watched; the text says why.
    pub(crate) fn watch(
        &mut self,
        port: &str,
        netns: &str,
        event: &UnixStream,
        open: impl FnOnce() -> Result<Vec<OwnedFd>, String>,
    ) -> Result<(), String> {
        if let Some(watched) = self.watched.get_mut(netns) {
            watched.ports.insert(port.to_owned());
            return Ok(());
        }
        let fds = open()?;
        let keys = self.started(event).and_then(|watch| watch.add(netns, fds));
        let keys = keys.map_err(|error| error.to_string())?;
        let ports = HashSet::from([port.to_owned()]);
        self.watched.insert(netns.to_owned(), Watched { keys, ports });
        Ok(())
    }

    fn started(&mut self, event: &UnixStream) -> io::Result<&mut Watch> {
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => Watch::start(event.try_clone()?)?,
        };
        Ok(self.watch.insert(watch))
    }

    /// Forgets a port that is removed, if only to be added again.
    pub(crate) fn forget(&mut self, port: &str) {
        self.waiting.remove(port);
        let watch = &self.watch;
        self.watched.retain(|_, watched| {
            watched.ports.remove(port);
            if watched.ports.is_empty() {
                watch.iter().for_each(|watch| watch.remove(&watched.keys));
            }
            !watched.ports.is_empty()
        });
    }

    /// Returns whether changes in the port's namespace are heard of.
    pub(crate) fn is_watched(&self, port: &str) -> bool {
        self.watched.values().any(|watched| watched.ports.contains(port))
    }

    /// Notes what a port that does not run waits for.
    pub(crate) fn wait(&mut self, port: &str, what: Waits) {
        self.waiting.insert(port.to_owned(), what);
    }

    /// A port runs, or is tried by time.
    pub(crate) fn stop_waiting(&mut self, port: &str) {
        self.waiting.remove(port);
    }

    /// Has a port tried at once, and then whenever a link changes.
    pub(crate) fn try_soon(&mut self, port: &str) {
        self.wait(port, Waits::Link);
        self.is_due = true;
    }

    /// Has all ports tried that wait for anything.
    pub(crate) fn try_all_soon(&mut self) {
        self.waiting.values_mut().for_each(|what| *what = Waits::Link);
        self.is_due = true;
    }

    /// Returns whether the port waits for something other than time.
    pub(crate) fn is_waiting(&self, port: &str) -> bool {
        self.waiting.contains_key(port)
    }

    /// Returns the ports that are to be tried by now.
    pub(crate) fn take_due(&mut self) -> HashSet<String> {
        let has_changed = self.watch.as_ref().is_some_and(Watch::take_change);
        if !std::mem::take(&mut self.is_due) && !has_changed {
            return HashSet::new();
        }
        let due = self.waiting.iter().filter(|(_, what)| **what == Waits::Link);
        due.map(|(port, _)| port.clone()).collect()
    }

    /// Returns the namespaces whose processes have ended since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<Netns> {
        self.watch.as_ref().map(Watch::take_ended).unwrap_or_default()
    }
}

/// What the thread shares with its owner.
struct Shared {
    epoll: OwnedFd,
    /// By what epoll reports of them.
    sources: Mutex<HashMap<u64, Source>>,
    has_changed: AtomicBool,
    ended: Mutex<Vec<Netns>>,
}

/// A descriptor that the thread waits for.
struct Source {
    fd: OwnedFd,
    /// The namespace of the process that it stands for; `None` for a netlink socket.
    process: Option<Netns>,
}

/// The thread, which ends with this.
struct Watch {
    shared: Arc<Shared>,
    stop: OwnedFd,
    last_key: u64,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(event: UnixStream) -> io::Result<Watch> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        let shared = Arc::new(Shared {
            epoll,
            sources: Mutex::default(),
            has_changed: AtomicBool::new(false),
            ended: Mutex::default(),
        });
        let (own_shared, own_stop) = (shared.clone(), stop.try_clone()?);
        let thread = std::thread::Builder::new().name("links".into());
        let thread = thread.spawn(move || own_shared.run(&own_stop, event))?;
        Ok(Watch { shared, stop, last_key: STOP, thread: Some(thread) })
    }

    /// Adds the netlink socket of a namespace, and the process that it belongs to.
    fn add(&mut self, netns: &str, fds: Vec<OwnedFd>) -> io::Result<Vec<u64>> {
        let mut keys = Vec::with_capacity(fds.len());
        for (index, fd) in fds.into_iter().enumerate() {
            self.last_key += 1;
            let data = epoll::EventData::new_u64(self.last_key);
            let mut sources = lock(&self.shared.sources);
            epoll::add(&self.shared.epoll, &fd, data, epoll::EventFlags::IN)?;
            let process = (index > 0).then(|| netns.to_owned());
            sources.insert(self.last_key, Source { fd, process });
            keys.push(self.last_key);
        }
        Ok(keys)
    }

    /// Closes descriptors, which epoll then reports no more.
    fn remove(&self, keys: &[u64]) {
        let mut sources = lock(&self.shared.sources);
        keys.iter().for_each(|key| drop(sources.remove(key)));
    }

    fn take_change(&self) -> bool {
        self.shared.has_changed.swap(false, Ordering::AcqRel)
    }

    fn take_ended(&self) -> Vec<Netns> {
        std::mem::take(&mut *lock(&self.shared.ended))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only if the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that hears of links ended by a panic");
        }
    }
}

impl Shared {
    fn run(&self, stop: &OwnedFd, mut event: UnixStream) {
        let mut ready = Vec::with_capacity(AT_ONCE);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return tracing::error!("links are not watched any more: {error}"),
            }
            let keys: Vec<u64> = ready.drain(..).map(|event| event.data.u64()).collect();
            if keys.contains(&STOP) {
                return;
            }
            keys.into_iter().for_each(|key| self.take(key));
            self.has_changed.store(true, Ordering::Release);
            // A full buffer has woken the reader already.
            let _ = event.write(&[1]);
            if is_readable_within(stop, SETTLE) {
                return;
            }
        }
    }

    /// Takes what a source has to say.
    fn take(&self, key: u64) {
        let mut sources = lock(&self.sources);
        let Some(Source { fd, process }) = sources.get(&key) else { return };
        match process {
            // What has changed has no meaning here, nor has an overrun: a port that waits is tried.
            None => while recv(fd, &mut [0; 4096][..], RecvFlags::DONTWAIT).is_ok() {},
            Some(netns) => {
                lock(&self.ended).push(netns.clone());
                sources.remove(&key);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_readable_within(fd: &OwnedFd, time: Duration) -> bool {
    let Ok(limit) = Timespec::try_from(time) else { return true };
    let mut waiting = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut waiting, Some(&limit)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn a_change_makes_waiting_ports_due_and_an_end_names_the_namespace() {
        let (event, mut woken) = UnixStream::pair().unwrap();
        let ((kernel, socket), (process, pidfd)) = (pair(), pair());
        let mut links = Links::default();
        let fds = || Ok(vec![socket, pidfd]);
        links.watch("a", "/proc/7/ns/net", &event, fds).unwrap();
        links.watch("b", "/proc/7/ns/net", &event, || unreachable!("it is watched")).unwrap();
        links.wait("a", Waits::Link);
        links.wait("b", Waits::Command);
        assert!(links.take_due().is_empty());
        rustix::io::write(&kernel, b"change").unwrap();
        woken.read_exact(&mut [0]).unwrap();
        assert_eq!(links.take_due(), HashSet::from(["a".to_owned()]));
        assert!(links.take_due().is_empty() && links.take_ended().is_empty());
        rustix::io::write(&process, b"end").unwrap();
        woken.read_exact(&mut [0]).unwrap();
        assert_eq!(links.take_ended(), ["/proc/7/ns/net"]);
        links.try_all_soon();
        assert_eq!(links.take_due().len(), 2);
        links.forget("a");
        assert!(rustix::io::write(&kernel, b"change").is_ok(), "still watched for b");
        links.forget("b");
        assert!(rustix::io::write(&kernel, b"change").is_err(), "closed");
    }
}
