//! Rules for Unix sockets: paths and access.

use std::path::Path;

use super::check::Check;
use super::name::quoted;
use crate::config::derived::sockets::MakesSocket;
use crate::config::model::Port;
use crate::config::model::socket::SocketAccess;

/// Longest path of a Unix socket: `sun_path` is 108 bytes with its final zero.
const MAX_SOCKET_PATH: usize = 107;

impl Check {
    /// Whether `path` is usable as the path of a Unix socket; notes the problem if not.
    pub(super) fn socket_path(&mut self, key: &'static str, path: &Path) -> bool {
        let length = path.as_os_str().len();
        let (message, remedy) = if length == 0 {
            ("is missing".to_owned(), "give the socket's absolute path".to_owned())
        } else if !path.is_absolute() {
            (format!("{} is not an absolute path", quoted(path)), "start it with /".to_owned())
        } else if length > MAX_SOCKET_PATH {
            let message = format!("{length} bytes are too long for a Unix socket's path");
            (message, format!("use at most {MAX_SOCKET_PATH}"))
        } else if path.file_name().is_none() || path.to_string_lossy().ends_with('/') {
            (format!("{} names a directory", quoted(path)), "add the socket's file name".to_owned())
        } else if path.to_string_lossy().contains(char::is_control) {
            let message = format!("{} has characters that cannot be printed", quoted(path));
            (message, "leave out line ends, tabs and the like".to_owned())
        } else {
            return true;
        };
        self.problem(key, message, remedy);
        false
    }

    /// Owner, group and mode of a port's socket.
    pub(super) fn socket_access(&mut self, port: &Port) {
        for (key, name) in stated(&port.socket) {
            match port.interface.makes_socket() {
                MakesSocket::Yes => {}
                MakesSocket::NoFile => {
                    let message = "a socket with an address has no file";
                    self.problem(key, message, "remove it; a Unix socket has a path");
                }
                MakesSocket::No => {
                    let message = r#"with role = "client" the VMM makes the socket"#;
                    let remedy = "remove it, and let the daemon's user write the VMM's socket";
                    self.problem(key, message, remedy);
                }
            }
            self.account(key, name);
        }
    }
}

/// The keys that are set, with the names of accounts.
fn stated(access: &SocketAccess) -> impl Iterator<Item = (&'static str, Option<&str>)> {
    let owner = access.owner.as_deref().map(|name| ("socket-owner", Some(name)));
    let group = access.group.as_deref().map(|name| ("socket-group", Some(name)));
    let mode = access.mode.map(|_| ("socket-mode", None));
    owner.into_iter().chain(group).chain(mode)
}
