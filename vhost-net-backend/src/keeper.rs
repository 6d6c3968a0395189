//! Connections that outlive this process.
//!
//! A frontend must not notice that the process of its session ends and another one takes over. So a
//! session may give each connection to a [`ConnectionKeeper`], another process, and serve one end
//! of a stream on which the keeper passes messages and descriptors on. The keeper remembers the
//! requests that still matter. The session of the next process asks for the connection, and these
//! requests come first on its stream: the handler carries them out as at first, without answers.
//! The request that was not answered when the process ended follows, and then what the frontend
//! sends next.
//!
//! Nothing else is passed on. Memory, rings and notification descriptors come with the requests,
//! and each ring continues from the used index in its memory, which says exactly what is done.
//! Pages that the earlier process populated do not count against the limits of the next one.
//!
//! A device that serves several sessions waits until all of their requests have been replayed
//! before it moves frames, or it would lose those for a frontend whose rings are not back yet.
//!
//! Frontends that wait for their turn go on waiting: the keeper has copies of their connections, of
//! which nothing was read.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::peer::Peer;

/// Keeps the connections of sessions, each under the path of its session's socket.
///
/// A session that ends in any way but with its process closes its connection
/// ([`ConnectionKeeper::closed`]). A process whose connections are to be resumed therefore exits
/// without dropping its sessions.
pub trait ConnectionKeeper: Debug + Send + Sync {
    /// Takes the connection of the frontend `peer`; returns the stream to serve in its place. It
    /// may be `stream` itself, if the connection cannot be kept and is to end with this process.
    ///
    /// # Errors
    /// The connection is lost; the text says why.
    fn keep(&self, path: &Path, peer: Option<Peer>, stream: UnixStream) -> io::Result<UnixStream>;

    /// Returns the connection that the session of an earlier process had, if it is still open.
    /// Called once, before a session serves its first connection.
    fn resume(&self, path: &Path) -> Option<ResumedConnection>;

    /// Keeps copies of the connections that wait for their turn, the next one first, in the place
    /// of those that waited before.
    fn keep_waiting(&self, path: &Path, waiting: &[BorrowedFd<'_>]);

    /// Returns the connections that waited for the session of an earlier process. Called once.
    fn resume_waiting(&self, path: &Path) -> Vec<UnixStream>;

    /// A request was carried out, and its answer is on the stream. Replayed requests count, too.
    fn served(&self, path: &Path);

    /// The connection has ended: the session or the frontend has closed it.
    fn closed(&self, path: &Path);
}

/// A connection that an earlier process had.
#[derive(Debug)]
pub struct ResumedConnection {
    /// The stream to serve.
    pub stream: UnixStream,
    /// The frontend, as it was when it connected.
    pub peer: Option<Peer>,
    /// How many requests that were served before come first on the stream.
    pub messages: usize,
}
