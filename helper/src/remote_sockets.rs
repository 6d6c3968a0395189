//! Has the helper make the Unix sockets of ports.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use trama_vhost_net_backend::{
    Access, BoundDatagrams, Listening, SocketError, SocketFile, Sockets,
};

use crate::kept::Entry;
use crate::request::{Reply, Request, unexpected};
use crate::rights::Rights;

impl Sockets for Rights {
    fn listen(&self, path: &Path, access: &Access) -> Result<Listening, SocketError> {
        let request = Request::Listen { path: path.into(), access: access.into() };
        let BoundDatagrams { socket, file, note } = self.open_at(path, access, request)?;
        Ok(Listening { listener: UnixListener::from(socket), file, note })
    }

    fn connect(&self, path: &Path) -> Result<UnixStream, String> {
        let (_, stream): (Reply, OwnedFd) =
            self.ask_for_one(Request::Connect { path: path.into() })?;
        Ok(stream.into())
    }
}

impl Rights {
    /// Receives datagrams at a path, or goes on with the socket of an earlier switch.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind_unix(&self, path: &Path, access: &Access) -> Result<BoundDatagrams, SocketError> {
        let request = Request::BindUnix { path: path.into(), access: access.into() };
        self.open_at(path, access, request)
    }

    /// Goes on with the socket of an earlier switch, or has it made.
    fn open_at(
        &self,
        path: &Path,
        access: &Access,
        request: Request,
    ) -> Result<BoundDatagrams, SocketError> {
        // A path may have had a socket of the other kind.
        let key = match request {
            Request::BindUnix { .. } => format!("datagrams/{}", path.display()),
            _ => format!("listen/{}", path.display()),
        };
        let mut refused = None;
        match self.adopt(&key, path, access) {
            Some(Ok(adopted)) => return Ok(adopted),
            Some(Err(reason)) => refused = Some(format!("made anew: {reason}")),
            None => {}
        }
        match self.ask_for_one(request).map_err(SocketError::Refused)? {
            (Reply::Listening { socket, note }, made) => {
                let entry = self.put(&key, &note, &made);
                let file = Arc::new(File { rights: self.clone(), socket, _entry: entry });
                let notes: Vec<String> = [note, refused].into_iter().flatten().collect();
                let note = (!notes.is_empty()).then(|| notes.join("; "));
                Ok(BoundDatagrams { socket: made, file, note })
            }
            (reply, _) => Err(SocketError::Refused(unexpected(&reply))),
        }
    }

    /// Goes on with the socket of an earlier switch; `None` if there is none.
    fn adopt(
        &self,
        key: &str,
        path: &Path,
        access: &Access,
    ) -> Option<Result<BoundDatagrams, String>> {
        let (note, socket, entry) = self.get::<Option<String>>(key)?;
        let request = Request::Adopt { path: path.into(), access: access.into() };
        match self.ask(request, &[socket.as_fd()]) {
            Ok((Reply::Adopted { socket: number }, _)) => {
                let rights = self.clone();
                let file = Arc::new(File { rights, socket: number, _entry: Some(entry) });
                Some(Ok(BoundDatagrams { socket, file, note }))
            }
            // Its file was removed, or is another user's now. The entry goes, and it is made again.
            Ok((reply, _)) => Some(Err(unexpected(&reply))),
            Err(reason) => Some(Err(reason)),
        }
    }
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
