//! Default locations of the daemon's files: for the system's daemon, and for that of an ordinary
//! user (XDG Base Directory Specification 0.8).

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Locations of a daemon's files. A location that cannot be determined is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The configuration file.
    pub config: PathBuf,
    /// The folder of the control socket and of ports' sockets.
    pub run: PathBuf,
    /// The folder of state that must survive a restart.
    pub state: PathBuf,
    /// Whether they belong to one user and are shared with no group.
    pub is_private: bool,
}

impl Folders {
    /// The locations of the system's daemon.
    pub fn system() -> Folders {
        Folders {
            config: "/etc/trama/trama.toml".into(),
            run: "/run/trama".into(),
            state: "/var/lib/trama".into(),
            is_private: false,
        }
    }

    /// The locations of the calling user's daemon.
    pub fn user() -> Folders {
        let user = rustix::process::geteuid().as_raw();
        let session = PathBuf::from(format!("/run/user/{user}"));
        let is_own = session.metadata().is_ok_and(|found| found.uid() == user);
        Folders::of_user(|name| std::env::var_os(name), is_own.then_some(session))
    }

    /// The locations for a daemon started by this process: the system's if it runs as root and does
    /// not ask for the user's.
    pub fn of_process(wants_user: bool) -> Folders {
        let is_root = rustix::process::geteuid().is_root();
        if is_root && !wants_user { Folders::system() } else { Folders::user() }
    }

    /// `session` is the usual value of `XDG_RUNTIME_DIR`, if that folder exists: `su` and cron do
    /// not set the variable.
    fn of_user(variable: impl Fn(&str) -> Option<OsString>, session: Option<PathBuf>) -> Folders {
        let absolute = |name: &str| {
            // The specification says to ignore relative paths.
            variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let home = absolute("HOME");
        let below = |base: Option<PathBuf>, rest: &str| {
            base.map(|base| base.join(rest)).unwrap_or_default()
        };
        let at = |name: &str, in_home: &str, rest: &str| {
            let base = absolute(name);
            below(base.or_else(|| home.as_ref().map(|home| home.join(in_home))), rest)
        };
        Folders {
            config: at("XDG_CONFIG_HOME", ".config", "trama/trama.toml"),
            run: below(absolute("XDG_RUNTIME_DIR").or(session), "trama"),
            state: at("XDG_STATE_HOME", ".local/state", "trama"),
            is_private: true,
        }
    }

    /// The default path of the control socket.
    pub fn control(&self) -> PathBuf {
        if self.run.as_os_str().is_empty() { PathBuf::new() } else { self.run.join("control.sock") }
    }

    /// The path of a port's socket; `path` is as configured, and may be relative or empty.
    pub fn socket(&self, port: &str, path: &Path) -> PathBuf {
        match path.as_os_str().is_empty() {
            true => self.run.join(format!("{port}.sock")),
            false => self.run.join(path),
        }
    }
}

/// Where a client looks for the control socket: at the stated path; without one, at that of the
/// variable `TRAMA_SOCKET`; without either, where the user's daemon has it, if it is there, and
/// then where the system's has it.
pub fn control_sockets(stated: Option<PathBuf>) -> Vec<PathBuf> {
    let from_environment = || std::env::var_os("TRAMA_SOCKET").filter(|path| !path.is_empty());
    match stated.or_else(|| from_environment().map(PathBuf::from)) {
        Some(named) => vec![named],
        None => {
            let user = Some(Folders::user().control()).filter(|path| path.exists());
            user.into_iter().chain([Folders::system().control()]).collect()
        }
    }
}

/// The socket beside a control socket on which root approves what a daemon may ask of its helper.
pub fn approvals_socket(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".approve");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_user(variables: &[(&str, &str)], session: Option<&str>) -> [String; 3] {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let Folders { config, run, state, .. } =
            Folders::of_user(variable, session.map(PathBuf::from));
        [config, run, state].map(|path| path.display().to_string())
    }

    #[test]
    fn a_user_has_folders_where_xdg_has_them() {
        let stated = [
            ("HOME", "/home/ada"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_RUNTIME_DIR", "/r"),
            ("XDG_STATE_HOME", "/s"),
        ];
        let all = of_user(&stated, Some("/run/user/1000"));
        assert_eq!(all, ["/c/trama/trama.toml", "/r/trama", "/s/trama"]);
        assert_eq!(
            of_user(&stated[..1], Some("/run/user/1000")),
            [
                "/home/ada/.config/trama/trama.toml",
                "/run/user/1000/trama",
                "/home/ada/.local/state/trama"
            ]
        );
        let relative = [("HOME", "/h"), ("XDG_STATE_HOME", "s"), ("XDG_RUNTIME_DIR", "r")];
        assert_eq!(
            of_user(&relative, None),
            ["/h/.config/trama/trama.toml", "", "/h/.local/state/trama"]
        );
        assert_eq!(of_user(&[], None), ["", "", ""]);
    }

    #[test]
    fn a_relative_path_or_none_is_below_the_run_folder() {
        let system = Folders::system();
        let socket = |path: &str| system.socket("vm1", Path::new(path)).display().to_string();
        assert_eq!(socket(""), "/run/trama/vm1.sock");
        assert_eq!(socket("a/b.sock"), "/run/trama/a/b.sock");
        assert_eq!(socket("/tmp/b.sock"), "/tmp/b.sock");
        assert_eq!(system.control(), Path::new("/run/trama/control.sock"));
    }
}
