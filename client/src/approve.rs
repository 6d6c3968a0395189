//! Root's approval of words: what the daemon asks of its helper may contain them.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use trama_api::folders::approvals_socket;

use crate::{Daemon, Failed, shown};

/// How long the helper may take to note words.
const TIMEOUT: Duration = Duration::from_secs(2);

impl Daemon {
    /// Approves words. Only root may.
    ///
    /// # Errors
    /// The daemon has no helper, or the user is not root.
    pub fn approve(&self, words: &[String]) -> Result<(), Failed> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for socket in &self.sockets {
            match approve_at(socket, words) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        let sockets = shown(&self.sockets);
        Err(format!("cannot approve at {sockets}: {last}; run it as root").into())
    }
}

/// Approves words at the helper of the daemon that listens on `control`.
pub(crate) fn approve_at(control: &Path, words: &[String]) -> io::Result<()> {
    let mut stream = UnixStream::connect(approvals_socket(control))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(words.join("\0").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}
