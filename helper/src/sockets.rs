//! The Unix sockets that the helper makes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trama_vhost_net_backend::{Access, Listening, OwnSockets, SocketFile, Sockets};

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

/// The files of the sockets that were made.
pub(crate) struct SocketFiles {
    run: PathBuf,
    files: HashMap<u64, Arc<dyn SocketFile>>,
    next: u64,
}

impl SocketFiles {
    /// No files. `run` is the folder that is made with its first socket.
    pub(crate) fn new(run: PathBuf) -> SocketFiles {
        SocketFiles { run, files: HashMap::new(), next: 0 }
    }

    pub(crate) fn listen(&mut self, path: &Path, access: AccessIds) -> Answer {
        if path.parent() == Some(&self.run) {
            std::fs::create_dir_all(&self.run)
                .map_err(|error| format!("{}: cannot be made: {error}", self.run.display()))?;
        }
        let made = OwnSockets.listen(path, &access.into()).map_err(|error| error.to_string())?;
        let Listening { listener, file, note } = made;
        self.next += 1;
        self.files.insert(self.next, file);
        Ok((Reply::Listening { socket: self.next, note }, vec![listener.into()]))
    }

    pub(crate) fn set_access(&self, socket: u64, access: AccessIds) -> Result<(), String> {
        let file = self.files.get(&socket).ok_or("there is no such socket")?;
        file.set_access(&access.into()).map_err(|error| error.to_string())
    }

    pub(crate) fn close(&mut self, socket: u64) {
        self.files.remove(&socket);
    }

    pub(crate) fn connect(&self, path: &Path) -> Answer {
        let stream = OwnSockets.connect(path)?;
        Ok((Reply::Done, vec![stream.into()]))
    }
}
