//! Which users may connect to a socket: its owner, group and mode, and their names.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgroups};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid as RawGid, Mode, OFlags, Statx, StatxFlags, Uid as RawUid, chmod,
    chownat, open, statx,
};

/// Owner, group and mode of a socket's file; `None`: as the process makes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Access {
    /// The owning user.
    pub owner: Option<u32>,
    /// The owning group.
    pub group: Option<u32>,
    /// Its permission bits. Connecting requires write permission.
    pub mode: Option<u32>,
}

/// Identity of a socket's file, independent of its name: device, inode, and when it was made, since
/// the number of an inode is soon used again. Where the file system does not say when, zero.
pub(crate) type Identity = ((u32, u32), u64, (i64, u32));

/// A socket's file, and its owner, group and mode as the process made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundSocket {
    pub identity: Identity,
    pub access: Access,
}

/// Returns the identity of the file at `path`.
pub(crate) fn identity(path: &Path) -> io::Result<Identity> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(identity_of(&statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?))
}

fn identity_of(found: &Statx) -> Identity {
    let device = (found.stx_dev_major, found.stx_dev_minor);
    (device, found.stx_ino, (found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

impl Access {
    /// Fills the fields that are `None` from `other`.
    pub(crate) fn or(self, other: Access) -> Access {
        Access {
            owner: self.owner.or(other.owner),
            group: self.group.or(other.group),
            mode: self.mode.or(other.mode),
        }
    }

    /// Sets owner, group and mode of the socket at `path`; returns the previous ones.
    ///
    /// Its directory may belong to another user that could put another file there: links are not
    /// followed, and only a socket is changed.
    ///
    /// # Errors
    /// The process lacks a permission; the text names it and the remedy.
    pub(crate) fn apply(&self, path: &Path) -> io::Result<BoundSocket> {
        let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = statx(&file, "", AtFlags::EMPTY_PATH, wanted)?;
        if !FileType::from_raw_mode(found.stx_mode.into()).is_socket() {
            return Err(io::Error::other("it was replaced by something that is not a socket"));
        }
        if self.owner.is_some() || self.group.is_some() {
            let (owner, group) =
                (self.owner.map(RawUid::from_raw), self.group.map(RawGid::from_raw));
            chownat(&file, "", owner, group, AtFlags::EMPTY_PATH)
                .map_err(|error| self.explain_chown(error.into()))?;
        }
        if let Some(mode) = self.mode {
            chmod(by_descriptor(&file), Mode::from_raw_mode(mode))?;
        }
        let access = Access {
            owner: Some(found.stx_uid),
            group: Some(found.stx_gid),
            mode: Some(u32::from(found.stx_mode) & 0o7777),
        };
        Ok(BoundSocket { identity: identity_of(&found), access })
    }

    fn explain_chown(&self, error: io::Error) -> io::Error {
        let owner = self.owner.map(|owner| format!("user {}", user_name(owner)));
        let group = self.group.map(|group| format!("group {}", group_name(group)));
        // The owner of a file may give it to one of the groups that it belongs to.
        let remedy = match (&owner, &group) {
            (None, Some(_)) => "run with CAP_CHOWN, or add the daemon's user to the group",
            _ => "run with CAP_CHOWN",
        };
        let to: Vec<String> = [owner, group].into_iter().flatten().collect();
        let message = format!("cannot give it to {}: {error}; {remedy}", to.join(" and "));
        io::Error::new(error.kind(), message)
    }
}

/// The path of an open file: Linux before 6.6 has no chmod for an `O_PATH` descriptor.
fn by_descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Why a text names no mode, user or group; the message has the remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Not the mode of a socket.
    #[error("{0:?} is not a valid socket mode; use 0600 to 0666")]
    Mode(String),
    /// The host has no such user.
    #[error("there is no user {0:?}; make it with useradd")]
    UnknownUser(String),
    /// The host has no such group.
    #[error("there is no group {0:?}; make it with groupadd")]
    UnknownGroup(String),
}

/// Default mode of a socket that has a group.
pub const GROUP_MODE: u32 = 0o660;

/// Parses permission bits in octal, such as `0660`: the owner may always connect, nothing is
/// executable.
///
/// # Errors
/// The text is not such a mode.
pub fn parse_mode(text: &str) -> Result<u32, AccessError> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| mode & !0o066 == 0o600);
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    mode.filter(|_| digits).ok_or_else(|| AccessError::Mode(text.to_owned()))
}

/// Parses a user: a name or a number.
///
/// # Errors
/// The host has no such user.
pub fn user_id(name: &str) -> Result<u32, AccessError> {
    let known = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    let found = number(name).or_else(known);
    found.ok_or_else(|| AccessError::UnknownUser(name.to_owned()))
}

/// Parses a group: a name or a number.
///
/// # Errors
/// The host has no such group.
pub fn group_id(name: &str) -> Result<u32, AccessError> {
    let known = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    let found = number(name).or_else(known);
    found.ok_or_else(|| AccessError::UnknownGroup(name.to_owned()))
}

/// Parses a number that is written in digits only.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn user_name(id: u32) -> String {
    let known = User::from_uid(Uid::from_raw(id)).ok().flatten();
    known.map_or_else(|| id.to_string(), |user| user.name)
}

fn group_name(id: u32) -> String {
    let known = Group::from_gid(Gid::from_raw(id)).ok().flatten();
    known.map_or_else(|| id.to_string(), |group| group.name)
}

/// Owner, group and mode of a file in words.
fn describe(file: &Metadata) -> String {
    let (owner, group) = (user_name(file.uid()), group_name(file.gid()));
    format!("{owner}:{group}, mode {:04o}", file.permissions().mode() & 0o7777)
}

/// A note for the log if not every user may connect to the socket we listen on. The listener cannot
/// see that a frontend was refused.
pub(crate) fn restricted_access(path: &Path) -> Option<String> {
    let file = fs::symlink_metadata(path).ok()?;
    let is_open = file.permissions().mode() & 0o002 != 0;
    (!is_open).then(|| {
        format!(
            "its owner is {}: others may not connect; set socket-group to admit a group",
            describe(&file)
        )
    })
}

/// Explains why connecting to `path` is denied: by the socket itself or by a folder above it.
pub(crate) fn explain_denied(path: &Path) -> String {
    let me = own_identity();
    let shown = path.display();
    match fs::metadata(path) {
        Ok(file) if file.file_type().is_socket() => format!(
            "permission denied on {shown}: its owner is {}; the daemon ({me}) needs write \
             permission",
            describe(&file)
        ),
        Ok(_) => format!("permission denied on {shown}: it is not a socket"),
        Err(_) => {
            let closed = path.ancestors().skip(1).find_map(|folder| {
                fs::metadata(folder).ok().map(|found| (folder, describe(&found)))
            });
            let (folder, owner) = closed.unwrap_or((Path::new("/"), String::new()));
            format!(
                "permission denied on {shown}: the owner of {} is {owner}; the daemon ({me}) needs \
                 permission to search it",
                folder.display()
            )
        }
    }
}

/// User and groups of this process, without the user's own group of the same name.
fn own_identity() -> String {
    let user = user_name(geteuid().as_raw());
    let mut ids = vec![getegid()];
    ids.extend(getgroups().unwrap_or_default());
    let mut groups: Vec<String> = ids.iter().map(|id| group_name(id.as_raw())).collect();
    groups.retain(|group| *group != user);
    groups.sort_unstable();
    groups.dedup();
    match groups.as_slice() {
        [] => format!("{user} of no group"),
        [one] => format!("{user} of group {one}"),
        several => format!("{user} of groups {}", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_given_away_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let own = fs::metadata(dir.path()).unwrap().gid();
        let access = Access { owner: None, group: Some(own), mode: Some(0o640) };
        let before = access.apply(&path).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!(identity(&path).unwrap(), before.identity);
        assert_eq!((made.gid(), made.mode() & 0o7777), (own, 0o640));
        let text = restricted_access(&path).unwrap();
        assert!(text.contains("mode 0640: others may not connect"), "{text}");
        Access { mode: Some(0o666), ..access }.apply(&path).unwrap();
        assert_eq!(restricted_access(&path), None);
        let back = Access::default().or(before.access);
        assert_eq!(back.apply(&path).unwrap().access.mode, Some(0o666));
        assert_eq!(Access::default().apply(&path).unwrap().access, before.access);

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for other in [link, file] {
            let error = access.apply(&other).unwrap_err();
            assert!(error.to_string().contains("not a socket"), "{error}");
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, before.access.mode.unwrap());
    }

    #[test]
    fn a_socket_that_is_made_again_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            drop(UnixListener::bind(&path).unwrap());
            assert!(seen.insert(identity(&path).unwrap()), "its inode was used before");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_mode_has_permissions_for_its_owner_and_none_to_execute() {
        for (text, mode) in [("0600", 0o600), ("660", 0o660), ("0666", 0o666), ("0620", 0o620)] {
            assert_eq!(parse_mode(text), Ok(mode));
        }
        for text in ["", "0777", "0066", "0400", "1660", "0668", "+660", "rw", "99999999999"] {
            let message = parse_mode(text).unwrap_err().to_string();
            assert_eq!(message, format!("{text:?} is not a valid socket mode; use 0600 to 0666"));
        }
    }

    #[test]
    fn the_error_names_user_and_group() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let of = |owner, group| Access { owner, group, mode: None }.explain_chown(denied());
        let group = of(None, Some(0)).to_string();
        assert!(group.starts_with("cannot give it to group root: "), "{group}");
        assert!(group.ends_with("or add the daemon's user to the group"), "{group}");
        let both = of(Some(0), Some(0)).to_string();
        assert!(both.starts_with("cannot give it to user root and group root: "), "{both}");
        assert!(both.ends_with("; run with CAP_CHOWN"), "{both}");
    }

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        assert_eq!((user_id("root"), group_id("root")), (Ok(0), Ok(0)));
        assert_eq!((user_id("4242"), group_id("4242")), (Ok(4242), Ok(4242)));
        let message = group_id("no-such-group").unwrap_err().to_string();
        assert_eq!(message, "there is no group \"no-such-group\"; make it with groupadd");
        let message = user_id("no-such-user").unwrap_err().to_string();
        assert_eq!(message, "there is no user \"no-such-user\"; make it with useradd");
    }

    #[test]
    fn a_denied_connection_names_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm1.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let text = explain_denied(&path);
        let begins = format!("permission denied on {}: its owner is ", path.display());
        assert!(text.starts_with(&begins), "{text}");
        assert!(text.contains(", mode 0"), "{text}");
        assert!(text.ends_with(") needs write permission"), "{text}");
        let text = explain_denied(&dir.path().join("no/vm1.sock"));
        let folder = format!("the owner of {} is ", dir.path().display());
        assert!(
            text.contains(&folder) && text.ends_with("needs permission to search it"),
            "{text}"
        );
    }
}
