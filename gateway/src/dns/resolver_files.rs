//! Where the host's resolvers are stated, for a process that may open named files only.
//!
//! The files are replaced at each change, so their folders are named; `resolv.conf` may be a link
//! to a folder that does not exist yet, or is made again. Such a folder takes another process,
//! which names it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The host's file.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The file in which systemd-resolved lists its servers.
pub(crate) const STUB_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// The folders of these files, and of the files that programs on the host keep elsewhere in `/run`.
const ALWAYS: [&str; 2] = ["/etc", "/run"];
/// Most links that are followed to a file, as in the kernel.
const MAX_LINKS: usize = 40;

/// The folders of the files that `resolv.conf` leads to, and what is there: device and inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Folders(Vec<(PathBuf, Option<(u64, u64)>)>);

impl Folders {
    /// The folders as they are now.
    pub(crate) fn now() -> Folders {
        let mut folders: Vec<PathBuf> = ALWAYS.map(PathBuf::from).to_vec();
        let mut file = PathBuf::from(RESOLV_CONF);
        for _ in 0..MAX_LINKS {
            let Ok(target) = std::fs::read_link(&file) else { break };
            file = file.parent().unwrap_or(Path::new("/")).join(target);
            folders.extend(file.parent().map(Path::to_owned));
        }
        let identity =
            |folder: &Path| std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()));
        let with_identity = |folder: PathBuf| (folder.clone(), identity(&folder));
        Folders(folders.into_iter().map(with_identity).collect())
    }

    /// Their paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().map(|(path, _)| path.clone())
    }
}
