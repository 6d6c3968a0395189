//! Where the host's resolvers are stated, for a process that may open named files only.
//!
//! The files are replaced at each change, so their folders are named. If `resolv.conf` leads
//! elsewhere later, or through a folder that is closed to the gateways' user, the process asks the
//! daemon for the files.

use std::path::{Path, PathBuf};

/// The host's file.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The file in which systemd-resolved lists its servers.
pub(crate) const STUB_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// The folders of these files, and of the files that programs on the host keep elsewhere in `/run`.
const ALWAYS: [&str; 2] = ["/etc", "/run"];
/// Most links that are followed to a file, as in the kernel.
const MAX_LINKS: usize = 40;

/// The folders of the files that `resolv.conf` leads to now.
pub(crate) fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ALWAYS.map(PathBuf::from).to_vec();
    let mut file = PathBuf::from(RESOLV_CONF);
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&file) else { break };
        file = file.parent().unwrap_or(Path::new("/")).join(target);
        folders.extend(file.parent().map(Path::to_owned));
    }
    folders
}
