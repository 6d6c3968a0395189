//! Has the keeper pass the messages of frontends on, so that their connections outlive `tramad`.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use trama_keeper::Keeper;
use trama_vhost_net_backend::{ConnectionKeeper, Peer, ResumedConnection};

/// The format of values.
const FORMAT: u32 = 1;

/// How long a connection waits for a keeper in the place of one that has ended, and the pause
/// between tries.
const RENEWAL: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// The keeper, as sessions see it.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) keeper: Keeper,
    /// Whether an earlier switch may have had connections.
    pub(crate) inherits: bool,
}

fn key(path: &Path) -> String {
    format!("frontend/{}", path.display())
}

fn waiting_key(path: &Path) -> String {
    format!("waiting/{}", path.display())
}

impl ConnectionKeeper for Connections {
    fn keep(&self, path: &Path, peer: Option<Peer>, stream: UnixStream) -> io::Result<UnixStream> {
        let until = Instant::now() + RENEWAL;
        loop {
            match self.keeper.relay(&key(path), &value(peer), stream.try_clone()?) {
                Ok(relayed) => return Ok(relayed),
                Err(error) if error.kind() == ErrorKind::BrokenPipe && Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                // Without the keeper, the connection ends with this process.
                Err(_) => return Ok(stream),
            }
        }
    }

    fn keep_waiting(&self, path: &Path, waiting: &[BorrowedFd<'_>]) {
        let key = waiting_key(path);
        // Without the keeper, they end with this process.
        let _ = match waiting {
            [] => self.keeper.remove(&key),
            waiting => self.keeper.put(&key, b"", waiting),
        };
    }

    fn resume_waiting(&self, path: &Path) -> Vec<UnixStream> {
        if !self.inherits {
            return Vec::new();
        }
        let kept = self.keeper.get(&waiting_key(path)).ok().flatten();
        let fds = kept.map(|kept| kept.fds).unwrap_or_default();
        let is_stream = |fd: &OwnedFd| socket_type(fd) == Ok(SocketType::STREAM);
        fds.into_iter().filter(is_stream).map(UnixStream::from).collect()
    }

    fn resume(&self, path: &Path) -> Option<ResumedConnection> {
        if !self.inherits {
            return None;
        }
        let resumed = self.keeper.resume(&key(path)).ok()??;
        let peer = peer(&resumed.value);
        Some(ResumedConnection { stream: resumed.stream, peer, messages: resumed.messages })
    }

    fn served(&self, path: &Path) {
        let _ = self.keeper.done(&key(path));
    }

    fn closed(&self, path: &Path) {
        let _ = self.keeper.close(&key(path));
    }
}

fn value(peer: Option<Peer>) -> Vec<u8> {
    let peer = peer.map(|peer| (peer.pid, peer.uid));
    postcard::to_allocvec(&(FORMAT, peer)).unwrap_or_default()
}

fn peer(value: &[u8]) -> Option<Peer> {
    let (format, peer): (u32, Option<(i32, u32)>) = postcard::from_bytes(value).ok()?;
    let (pid, uid) = peer.filter(|_| format == FORMAT)?;
    Some(Peer { pid, uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_remembered_and_another_format_is_not_read() {
        let known = Peer { pid: 7, uid: 1000 };
        assert_eq!(peer(&value(Some(known))), Some(known));
        assert_eq!(peer(&value(None)), None);
        assert_eq!(peer(&postcard::to_allocvec(&(2_u32, Some((7, 1000_u32)))).unwrap()), None);
        assert_eq!(peer(b""), None);
    }
}
