//! How `tramad` finds its helper, and what it needs of it before it serves.
//!
//! A `tramad` that a user starts makes its own sockets first, and then its helper, a child process.
//! That of a service with a user of its own may not: it connects to its helper at once, and has it
//! read the configuration and make the sockets and the keeper.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use trama_keeper::Keeper;
use trama_vhost_net_backend::Access;

use crate::client::Client;
use crate::request::{Place, Reply, Request, Setup, unexpected};
use crate::rights::Rights;

impl Rights {
    /// Starts a helper, a child of this process.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_helper() -> io::Result<Rights> {
        Client::start(Path::new("/proc/self/exe")).map(Rights::of)
    }

    /// Uses the helper that has started this process, a stand-in, at the other end of its standard
    /// input.
    ///
    /// # Errors
    /// The process was not started by a helper.
    pub fn of_starter() -> io::Result<Rights> {
        Client::at(io::stdin().as_fd().try_clone_to_owned()?).map(Rights::of)
    }

    /// Uses the helper that a service manager starts for a process that connects to this socket.
    ///
    /// # Errors
    /// No such socket is there, or it is not for this process's user.
    pub fn of_service(socket: &Path) -> io::Result<Rights> {
        Client::connect(socket).map(Rights::of)
    }

    /// Says where things are. Returns what of the helper's sandbox is not in force.
    ///
    /// # Errors
    /// The helper refuses, as they are not where the operator wants them, or it has ended.
    pub fn set_up(&self, setup: Setup) -> Result<Vec<String>, String> {
        self.missing(Request::Setup(setup))
    }

    /// Says that this process is a switch from now on. Returns what is not in force.
    ///
    /// # Errors
    /// The helper has ended.
    pub fn serve(&self, place: Place) -> Result<Vec<String>, String> {
        self.missing(Request::Serve(place))
    }

    fn missing(&self, request: Request) -> Result<Vec<String>, String> {
        match self.ask(request, &[])? {
            (Reply::Ready { missing }, _) => Ok(missing),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Returns a connection to the keeper that this process may not connect to; `None` if none
    /// listens. The keeper takes the helper's process for this one.
    ///
    /// # Errors
    /// The helper may not connect either.
    pub fn reach_keeper(&self) -> io::Result<Option<Keeper>> {
        let (reply, fds) = self.ask(Request::ReachKeeper, &[]).map_err(io::Error::other)?;
        match (reply, fds.into_iter().next()) {
            (Reply::Missing, _) => Ok(None),
            (_, Some(connection)) => Keeper::on(connection).map(Some),
            (reply, None) => Err(io::Error::other(unexpected(&reply))),
        }
    }

    /// Makes the control socket, which the helper removes at the end; non-blocking.
    ///
    /// # Errors
    /// It cannot be made; the text has the place and the remedy.
    pub fn control(&self, access: &Access) -> Result<UnixListener, String> {
        let (_, listener) = self.ask_for_one(Request::Control { access: access.into() })?;
        Ok(listener.into())
    }

    /// Starts a keeper, the first one or one in the place of one that has ended; `channel` is its
    /// end of a channel.
    ///
    /// # Errors
    /// It cannot be started, or the helper does not answer.
    pub fn start_keeper(&self, channel: &OwnedFd) -> Result<(), String> {
        self.ask(Request::Keeper, &[channel.as_fd()]).map(drop)
    }

    /// Ends the helper that has started this process, whose place another switch has taken.
    pub fn decline() {
        if let Ok(rights) = Rights::of_starter() {
            rights.end(true);
        }
    }
}
