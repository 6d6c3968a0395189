//! Files, by Landlock: what the process may open is named, and all else is refused.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{CWD, FileType, Mode as FileMode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::mode::{Missing, Mode};

/// The newest interface whose rights are used. Older kernels enforce those that they know.
const NEWEST: ABI = ABI::V7;
/// The kernel that enforces all of them.
const COMPLETE_SINCE: &str = "6.12";
const PART: &str = "Landlock";

/// A file or folder with everything below it.
#[derive(Debug)]
pub enum Place {
    /// Named by a path, which is followed now. Without a file there, it stands for nothing.
    Path(PathBuf),
    /// An open one.
    Open(OwnedFd),
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Place {
        Place::Path(path)
    }
}

impl From<&str> for Place {
    fn from(path: &str) -> Place {
        Place::Path(path.into())
    }
}

impl From<OwnedFd> for Place {
    fn from(descriptor: OwnedFd) -> Place {
        Place::Open(descriptor)
    }
}

/// What a process may do with files. Descriptors that are open already are not restricted.
#[derive(Default, Debug)]
pub struct Files {
    /// Files to read, and folders whose files may be read and listed.
    pub read: Vec<Place>,
    /// Files to read and write, and folders in which files may be made, changed and removed, and
    /// folders made.
    pub read_write: Vec<Place>,
    /// Whether TCP sockets may be bound and connected.
    pub tcp: bool,
}

/// Restricts the calling thread, and those that it starts later, to these files. Nothing may be
/// executed. It may send signals to its own process and its threads only, and connect to abstract
/// Unix sockets of its own only. Returns the version of the kernel's interface.
///
/// # Errors
///
/// `mode` does not restrict files, or the kernel has no Landlock or an older one. In the last case,
/// what the kernel has is in force.
pub fn restrict_files(files: &Files, mode: Mode) -> Result<u32, Missing> {
    if let Some(missing) = Missing::by(mode, PART) {
        return Err(missing);
    }
    let status = restrict(files).map_err(|error| Missing::new(PART, error))?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Ok(effective_abi as u32)
        }
        (_, LandlockStatus::Available { effective_abi, .. }) => Err(Missing::new(
            PART,
            format!("version {} in part; all needs Linux {COMPLETE_SINCE}", effective_abi as u32),
        )),
        (_, LandlockStatus::NotEnabled) => Err(Missing::new(PART, "not enabled in this kernel")),
        (_, LandlockStatus::NotImplemented) => Err(Missing::new(PART, "this kernel has none")),
    }
}

/// Why files cannot be restricted.
#[derive(Debug, thiserror::Error)]
enum FilesError {
    #[error(transparent)]
    Rules(#[from] RulesetError),
    #[error("{}: {error}", path.display())]
    Open { path: PathBuf, error: Errno },
    #[error(transparent)]
    System(#[from] Errno),
}

fn restrict(files: &Files) -> Result<landlock::RestrictionStatus, FilesError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    if !files.tcp {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile;
    let mut rules = rules.create()?;
    rules = allow(rules, &files.read, read)?;
    rules = allow(rules, &files.read_write, read | write)?;
    Ok(rules.restrict_self()?)
}

fn allow(
    mut rules: RulesetCreated,
    places: &[Place],
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, FilesError> {
    for place in places {
        let opened;
        let descriptor = match place {
            Place::Open(descriptor) => descriptor,
            Place::Path(path) => {
                opened = match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())
                {
                    Ok(opened) => opened,
                    // Not there, or this user cannot reach it.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => continue,
                    Err(error) => return Err(FilesError::Open { path: path.clone(), error }),
                };
                &opened
            }
        };
        let is_folder = FileType::from_raw_mode(fstat(descriptor)?.st_mode).is_dir();
        let rights = if is_folder { rights } else { rights & AccessFs::from_file(NEWEST) };
        rules = rules.add_rule(PathBeneath::new(descriptor, rights))?;
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{self, ErrorKind};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::thread;

    use super::*;

    /// Runs `job` in a thread that is restricted to `files`; the test's thread is not.
    fn restricted<R: Send>(files: &Files, job: impl FnOnce() -> R + Send) -> Option<R> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| match restrict_files(files, Mode::Enforce) {
                Ok(_) => Some(job()),
                Err(missing) => {
                    println!("not tested: {missing}");
                    None
                }
            });
            inside.join().unwrap()
        })
    }

    fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    fn change(folder: &Path) -> io::Result<()> {
        fs::write(folder.join("new"), "1")?;
        fs::rename(folder.join("new"), folder.join("file"))?;
        File::options().append(true).open(folder.join("file"))?.sync_all()?;
        fs::remove_file(folder.join("file"))
    }

    #[test]
    fn a_thread_reads_and_changes_what_is_named_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for name in ["read", "change", "other"] {
            fs::create_dir(place(name)).unwrap();
            fs::write(place(name).join("kept"), "").unwrap();
        }
        fs::write(place("single"), "").unwrap();
        let open = OwnedFd::from(File::open(place("change")).unwrap());
        let files = Files {
            read: vec![place("read").into(), place("single").into(), place("none").into()],
            read_write: vec![open.into()],
            ..Files::default()
        };
        restricted(&files, || {
            assert_eq!(kind(File::open(place("read").join("kept"))), None);
            assert_eq!(kind(File::open(place("single"))), None);
            assert_eq!(kind(fs::read_dir(place("read"))), None);
            assert_eq!(kind(change(&place("change"))), None);
            let denied = Some(ErrorKind::PermissionDenied);
            assert_eq!(kind(change(&place("read"))), denied);
            assert_eq!(kind(File::options().write(true).open(place("single"))), denied);
            assert_eq!(kind(fs::remove_file(place("read").join("kept"))), denied);
            assert_eq!(kind(File::open(place("other").join("kept"))), denied);
            assert_eq!(kind(fs::read_dir(dir.path())), denied);
        });
        assert_eq!(kind(File::open(place("other").join("kept"))), None, "not this thread");
    }

    #[test]
    fn tcp_is_for_those_that_ask_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for tcp in [true, false] {
            let files = Files { tcp, ..Files::default() };
            let denied = (!tcp).then_some(ErrorKind::PermissionDenied);
            restricted(&files, || {
                assert_eq!(kind(TcpStream::connect(address)), denied);
                assert_eq!(kind(TcpListener::bind("127.0.0.1:0")), denied);
            });
        }
    }

    #[test]
    fn other_modes_restrict_nothing_and_say_so() {
        for mode in [Mode::Log, Mode::Off] {
            let missing = restrict_files(&Files::default(), mode).unwrap_err();
            assert_eq!(missing.to_string(), format!("Landlock: daemon.sandbox is \"{mode}\""));
        }
        assert!(File::open("/proc/self/status").is_ok());
    }
}
