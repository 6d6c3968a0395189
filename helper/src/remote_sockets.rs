//! Has the helper make the sockets of vhost-user sessions.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use trama_vhost_net_backend::{Access, Listening, SocketError, SocketFile, Sockets};

use crate::kept::Entry;
use crate::request::{Reply, Request, unexpected};
use crate::rights::Rights;

impl Sockets for Rights {
    fn listen(&self, path: &Path, access: &Access) -> Result<Listening, SocketError> {
        let mut refused = None;
        match self.adopt(path, access) {
            Some(Ok(adopted)) => return Ok(adopted),
            Some(Err(reason)) => refused = Some(format!("made anew: {reason}")),
            None => {}
        }
        let request = Request::Listen { path: path.into(), access: access.into() };
        match self.ask_for_one(request).map_err(SocketError::Refused)? {
            (Reply::Listening { socket, note }, listener) => {
                let entry = self.put(&key(path), &note, &listener);
                let file = Arc::new(File { rights: self.clone(), socket, _entry: entry });
                let notes: Vec<String> = [note, refused].into_iter().flatten().collect();
                let note = (!notes.is_empty()).then(|| notes.join("; "));
                Ok(Listening { listener: UnixListener::from(listener), file, note })
            }
            (reply, _) => Err(SocketError::Refused(unexpected(&reply))),
        }
    }

    fn connect(&self, path: &Path) -> Result<UnixStream, String> {
        let (_, stream): (Reply, OwnedFd) =
            self.ask_for_one(Request::Connect { path: path.into() })?;
        Ok(stream.into())
    }
}

impl Rights {
    /// Goes on with the listening socket of an earlier switch; `None` if there is none.
    fn adopt(&self, path: &Path, access: &Access) -> Option<Result<Listening, String>> {
        let (note, listener, entry) = self.get::<Option<String>>(&key(path))?;
        let request = Request::Adopt { path: path.into(), access: access.into() };
        match self.ask(request, &[listener.as_fd()]) {
            Ok((Reply::Adopted { socket }, _)) => {
                let file = Arc::new(File { rights: self.clone(), socket, _entry: Some(entry) });
                Some(Ok(Listening { listener: UnixListener::from(listener), file, note }))
            }
            // Its file was removed, or is another user's now. The entry goes, and it is made again.
            Ok((reply, _)) => Some(Err(unexpected(&reply))),
            Err(reason) => Some(Err(reason)),
        }
    }
}

fn key(path: &Path) -> String {
    format!("listen/{}", path.display())
}

/// A socket's file that the helper has made.
#[derive(Debug)]
struct File {
    rights: Rights,
    socket: u64,
    /// The socket, as the keeper has it.
    _entry: Option<Entry>,
}

impl SocketFile for File {
    fn set_access(&self, access: &Access) -> io::Result<()> {
        let request = Request::SetAccess { socket: self.socket, access: access.into() };
        self.rights.ask(request, &[]).map(drop).map_err(io::Error::other)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A helper that has ended has removed the file.
        let _ = self.rights.ask(Request::Close { socket: self.socket }, &[]);
    }
}
