//! The helper of a service whose switch has a user of its own.
//!
//! ```text
//!  trama.service: tramad ── connects ──▶ trama-helper.socket
//!    user trama,       │                   the service manager accepts, and starts
//!    no capability     └── requests ─────▶ trama-helper@….service: one helper a switch
//!                                            │ starts stand-ins, keepers, successors (user trama)
//!                                            └ and gateways (user trama-gateway)
//! ```
//!
//! Anything that runs as that user can connect, so a helper here does not take a switch's word for
//! where things are. The configuration is the one that the helper was started for, and another
//! folder or socket than the system's default must be named in it. The program is the helper's own.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::User;
use rustix::net::sockopt::socket_peercred;
use trama_sandbox::Mode;

use crate::request::Setup;
use crate::rules::Rules;

/// Whom a service's helper serves.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name of the user.
    pub user: String,
    /// The configuration file.
    pub config: PathBuf,
    /// The default control socket.
    pub control: PathBuf,
    /// The folder of sockets.
    pub run: PathBuf,
    /// The default folder for state.
    pub state: PathBuf,
}

impl Service {
    /// Returns the user and group of its switches, and the process that has connected.
    ///
    /// # Errors
    /// The host has no such user, or the process is another user's.
    pub(crate) fn accept(&self, socket: &OwnedFd) -> io::Result<((u32, u32), i32)> {
        let name = &self.user;
        let user = User::from_name(name)?;
        let user = user.ok_or_else(|| {
            io::Error::other(format!("there is no user {name:?}; make it with useradd --system"))
        })?;
        let peer = socket_peercred(socket)?;
        let pid = peer.pid.as_raw_nonzero().get();
        if peer.uid.as_raw() != user.uid.as_raw() {
            let text = format!("process {pid} of user {} is not served", peer.uid);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(((user.uid.as_raw(), user.gid.as_raw()), pid))
    }

    /// What a helper knows before a switch has said anything.
    pub(crate) fn setup(&self) -> io::Result<Setup> {
        let program = std::env::current_exe()?;
        Ok(Setup { config: self.config.clone(), program, ..Setup::default() })
    }

    /// Checks what a switch says; `known` is what was known before. The words of the configuration
    /// are approved by now.
    ///
    /// # Errors
    /// It names what the operator has not; the text has the remedy.
    pub(crate) fn check(&self, said: Setup, known: &Setup, rules: &Rules) -> Result<Setup, String> {
        if said.config != self.config {
            return Err(format!(
                "{}: the helper was started for {}; name the file in both units",
                said.config.display(),
                self.config.display()
            ));
        }
        let control = said.control.as_ref().ok_or("there is no control socket")?;
        let named = [(control, &self.control), (&said.state, &self.state)];
        for (path, default) in named {
            if path != default {
                rules.named(path).map_err(|error| error.to_string())?;
            }
        }
        if said.sandbox != Mode::default().name() {
            rules.word(&said.sandbox).map_err(|error| error.to_string())?;
        }
        let beside = [&said.keeper, &said.approvals];
        let is_known = beside.into_iter().flatten().all(|path| is_beside(path, control));
        if said.run != self.run || !is_known {
            return Err("a folder or a socket is not the one of the service".to_owned());
        }
        Ok(Setup { program: known.program.clone(), ..said })
    }
}

/// Whether a path is that of a control socket with an ending.
fn is_beside(path: &Path, control: &Path) -> bool {
    let ending = path.as_os_str().as_bytes().strip_prefix(control.as_os_str().as_bytes());
    ending.is_some_and(|ending| ending.first() == Some(&b'.') && !ending.contains(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            user: "root".into(),
            config: "/etc/trama/trama.toml".into(),
            control: "/run/trama/control.sock".into(),
            run: "/run/trama".into(),
            state: "/var/lib/trama".into(),
        }
    }

    fn said() -> Setup {
        Setup {
            config: "/etc/trama/trama.toml".into(),
            state: "/var/lib/trama".into(),
            run: "/run/trama".into(),
            sandbox: "enforce".into(),
            control: Some("/run/trama/control.sock".into()),
            keeper: Some("/run/trama/control.sock.keeper".into()),
            approvals: Some("/run/trama/control.sock.approve".into()),
            program: "/tmp/other".into(),
            ..Setup::default()
        }
    }

    #[test]
    fn a_switch_names_what_the_operator_has_named_and_no_more() {
        let known = Setup { program: "/usr/bin/tramad".into(), ..Setup::default() };
        let mut rules = Rules::new("/run/trama".into(), Path::new("/not/there.toml")).unwrap();
        rules.read("[daemon]\nstate = \"/srv/state\"\ncontrol = \"/srv/c.sock\"\n");
        let check = |said: Setup| service().check(said, &known, &rules);
        let taken = check(said()).unwrap();
        assert_eq!(taken.program, known.program, "whatever the switch says");
        assert!(check(Setup { state: "/srv/state".into(), ..said() }).is_ok());
        let moved = Setup {
            control: Some("/srv/c.sock".into()),
            keeper: Some("/srv/c.sock.keeper".into()),
            approvals: None,
            ..said()
        };
        assert!(check(moved.clone()).is_ok());
        for wrong in [
            Setup { config: "/etc/shadow".into(), ..said() },
            Setup { state: "/etc".into(), ..said() },
            Setup { run: "/etc".into(), ..said() },
            Setup { control: None, ..said() },
            Setup { control: Some("/run/other.sock".into()), ..said() },
            Setup { keeper: Some("/run/other.sock".into()), ..said() },
            Setup { keeper: Some("/run/trama/control.sock./../../x".into()), ..said() },
            Setup { approvals: Some("/run/trama/control.sock".into()), ..said() },
            Setup { sandbox: "off".into(), ..said() },
        ] {
            assert!(check(wrong.clone()).is_err(), "{wrong:?}");
        }
        let refused = check(Setup { state: "/etc".into(), ..said() }).unwrap_err();
        assert!(refused.starts_with("/etc is not approved"), "{refused}");
    }

    #[test]
    fn only_processes_of_its_user_are_served() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        let (user, pid) =
            Service { user: own.name, ..service() }.accept(&OwnedFd::from(ours)).unwrap();
        assert_eq!((user.0, pid as u32), (own.uid.as_raw(), std::process::id()));
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        let refused = Service { user: "daemon".into(), ..service() }.accept(&ours).unwrap_err();
        assert!(refused.to_string().ends_with("is not served"), "{refused}");
        let refused = Service { user: "no-such-user".into(), ..service() }.accept(&ours);
        assert!(refused.unwrap_err().to_string().contains("useradd"));
    }
}
