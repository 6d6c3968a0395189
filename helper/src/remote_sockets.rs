//! Has the helper make the sockets of vhost-user sessions.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use trama_vhost_net_backend::{Access, Listening, SocketError, SocketFile, Sockets};

use crate::request::{Reply, Request, unexpected};
use crate::rights::Rights;

impl Sockets for Rights {
    fn listen(&self, path: &Path, access: &Access) -> Result<Listening, SocketError> {
        let request = Request::Listen { path: path.into(), access: access.into() };
        match self.ask_for_one(request).map_err(SocketError::Refused)? {
            (Reply::Listening { socket, note }, listener) => {
                let file = Arc::new(File { rights: self.clone(), socket });
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

/// A socket's file that the helper has made.
#[derive(Debug)]
struct File {
    rights: Rights,
    socket: u64,
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
