//! The Unix sockets that the helper makes.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{SocketAddrUnix, SocketType, getsockname};
use trama_vhost_net_backend::{
    Access, BoundDatagrams, Listening, OwnSockets, SocketFile, Sockets, bind_datagrams, take_over,
};

use crate::request::{AccessIds, Answer, Reply};

impl From<&Access> for AccessIds {
    fn from(access: &Access) -> AccessIds {
        let Access { owner, group, mode } = *access;
        AccessIds { owner, group, mode }
    }
}

impl From<AccessIds> for Access {
    fn from(ids: AccessIds) -> Access {
        let AccessIds { owner, group, mode } = ids;
        Access { owner, group, mode }
    }
}

/// The files of the sockets that were made or adopted.
pub(crate) struct SocketFiles {
    run: PathBuf,
    files: HashMap<u64, File>,
    next: u64,
}

struct File {
    path: PathBuf,
    file: Arc<dyn SocketFile>,
    /// Whether it belongs to an earlier switch, and the present one has not adopted it.
    is_left: bool,
}

impl SocketFiles {
    /// No files. `run` is the folder that is made with its first socket.
    pub(crate) fn new(run: PathBuf) -> SocketFiles {
        SocketFiles { run, files: HashMap::new(), next: 0 }
    }

    /// Makes a listening socket and its folder, and leaves the file to the caller.
    pub(crate) fn make(
        &self,
        path: &Path,
        access: AccessIds,
    ) -> Result<(OwnedFd, Arc<dyn SocketFile>), String> {
        self.make_folder(path)?;
        let made = OwnSockets.listen(path, &access.into()).map_err(|error| error.to_string())?;
        Ok((made.listener.into(), made.file))
    }

    pub(crate) fn listen(&mut self, path: &Path, access: AccessIds) -> Answer {
        self.make_folder(path)?;
        let made = OwnSockets.listen(path, &access.into()).map_err(|error| error.to_string())?;
        let Listening { listener, file, note } = made;
        let socket = self.add(path, file);
        Ok((Reply::Listening { socket, note }, vec![listener.into()]))
    }

    /// Makes a socket for datagrams.
    pub(crate) fn bind(&mut self, path: &Path, access: AccessIds) -> Answer {
        self.make_folder(path)?;
        let made = bind_datagrams(path, &access.into()).map_err(|error| error.to_string())?;
        let BoundDatagrams { socket: datagrams, file, note } = made;
        let socket = self.add(path, file);
        Ok((Reply::Listening { socket, note }, vec![datagrams]))
    }

    fn make_folder(&self, path: &Path) -> Result<(), String> {
        if path.parent() == Some(&self.run) {
            std::fs::create_dir_all(&self.run)
                .map_err(|error| format!("{}: cannot be made: {error}", self.run.display()))?;
        }
        Ok(())
    }

    /// Takes over the file of a socket that an earlier switch has left.
    pub(crate) fn adopt(&mut self, path: &Path, access: AccessIds, listener: &OwnedFd) -> Answer {
        let explain = |error: io::Error| format!("{}: {error}", path.display());
        check_listener(path, listener).map_err(explain)?;
        let known = self.files.iter_mut().find(|(_, file)| file.path == path);
        let socket = match known {
            Some((socket, file)) => {
                file.is_left = false;
                *socket
            }
            None => self.add(path, take_over(path).map_err(explain)?),
        };
        self.set_access(socket, access).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((Reply::Adopted { socket }, Vec::new()))
    }

    fn add(&mut self, path: &Path, file: Arc<dyn SocketFile>) -> u64 {
        self.next += 1;
        self.files.insert(self.next, File { path: path.to_owned(), file, is_left: false });
        self.next
    }

    pub(crate) fn set_access(&self, socket: u64, access: AccessIds) -> Result<(), String> {
        let made = self.files.get(&socket).ok_or("there is no such socket")?;
        made.file.set_access(&access.into()).map_err(|error| error.to_string())
    }

    pub(crate) fn close(&mut self, socket: u64) {
        self.files.remove(&socket);
    }

    /// The switch has ended, and left all of them to the next one.
    pub(crate) fn leave_all(&mut self) {
        self.files.values_mut().for_each(|file| file.is_left = true);
    }

    /// Removes those that an earlier switch has left.
    pub(crate) fn remove_left(&mut self) {
        self.files.retain(|_, file| !file.is_left);
    }

    pub(crate) fn connect(&self, path: &Path) -> Answer {
        let stream = OwnSockets.connect(path)?;
        Ok((Reply::Done, vec![stream.into()]))
    }
}

/// Checks that a socket listens on the path, or receives datagrams there: the file at the path is
/// removed on behalf of the one that has the socket.
fn check_listener(path: &Path, socket: &OwnedFd) -> io::Result<()> {
    let address = SocketAddrUnix::try_from(getsockname(socket)?)?;
    let is_there = address.path_bytes() == Some(path.as_os_str().as_bytes());
    let receives =
        || io::Result::Ok(socket_type(socket)? == SocketType::DGRAM || socket_acceptconn(socket)?);
    match is_there && receives()? {
        true => Ok(()),
        false => Err(io::Error::other("the socket that was passed does not listen there")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const ACCESS: AccessIds = AccessIds { owner: None, group: None, mode: Some(0o600) };

    #[test]
    fn a_socket_of_another_helper_is_adopted_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("vm1.sock"), folder.path().join("vm2.sock"));
        let listener: OwnedFd = UnixListener::bind(&path).unwrap().into();
        let mut files = SocketFiles::new("/none".into());
        let _others = UnixListener::bind(&other).unwrap();
        let refused = files.adopt(&other, ACCESS, &listener).unwrap_err();
        assert!(refused.ends_with("does not listen there"), "{refused}");
        files.adopt(&path, ACCESS, &listener).unwrap();
        files.remove_left();
        assert!(path.exists());
        drop(files);
        assert!(!path.exists() && other.exists());
    }

    #[test]
    fn what_a_switch_has_left_is_removed_unless_the_next_one_adopts_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
        let mut files = SocketFiles::new("/none".into());
        let made = paths.each_ref().map(|path| {
            let (reply, fds) = files.listen(path, ACCESS).unwrap();
            let Reply::Listening { socket, .. } = reply else { panic!("{reply:?}") };
            (socket, fds)
        });
        files.leave_all();
        let (socket, listener) = &made[0];
        let adopted = files.adopt(&paths[0], ACCESS, &listener[0]).unwrap();
        assert_eq!(adopted.0, Reply::Adopted { socket: *socket });
        // Nobody listens there any more, and the next switch makes it again.
        let [_, (_, listener), _] = made;
        drop(listener);
        files.listen(&paths[1], ACCESS).unwrap();
        files.remove_left();
        assert_eq!(paths.map(|path| path.exists()), [true, true, false]);
    }
}
