//! Writes the configuration file so that it is complete at every moment.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, OFlags, memfd_create};

/// Longest configuration in bytes.
pub(crate) const LONGEST_CONFIG: u64 = 64 << 20;

/// Returns a file in memory with these bytes, from its beginning.
pub(crate) fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("trama-config", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads the configuration.
///
/// # Errors
/// It cannot be read, is no regular file, or is too long.
pub fn read_config_file(path: &Path) -> io::Result<String> {
    let file = open_at_once(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file; put one there"));
    }
    text_within(file, LONGEST_CONFIG)
}

/// Opens a file; one of a FIFO does not wait for a writer.
pub(crate) fn open_at_once(path: impl AsRef<Path>) -> io::Result<File> {
    File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Returns the text of a file that [`in_memory`] has made, which has at most `longest` bytes.
pub(crate) fn text_of(mut file: File, longest: u64) -> io::Result<String> {
    // Others that have it open may have read it.
    file.rewind()?;
    text_within(file, longest)
}

/// Reads the text of a file. One of more than `longest` bytes is an error, and not cut: what is cut
/// would be lost when the file is written again.
pub(crate) fn text_within(file: File, longest: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(longest.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > longest {
        return Err(io::Error::other(format!("it is larger than {} MiB; split it", longest >> 20)));
    }
    Ok(text)
}

/// Creates the file's folder if that does not exist.
pub(crate) fn make_folder(file: &Path, is_private: bool) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    // A user's folders are private (XDG Base Directory Specification).
    let mode = if is_private { 0o700 } else { 0o755 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// Creates the file in one step, and never over another.
pub(crate) fn create(file: &Path, text: &str) -> io::Result<()> {
    through_draft(file, |draft| {
        write(OpenOptions::new().mode(0o644), draft, text)?;
        fs::hard_link(draft, file)?;
        fs::remove_file(draft)
    })
}

/// Makes or replaces a file that only its owner reads, in one step.
pub(crate) fn put(file: &Path, text: &str) -> io::Result<()> {
    through_draft(file, |draft| {
        write(OpenOptions::new().mode(0o600), draft, text)?;
        fs::rename(draft, file)
    })
}

/// Replaces the file's content in one step: a reader sees the old or the new content. Owner and
/// mode stay; a symbolic link stays and its target changes.
pub(crate) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let target = fs::canonicalize(file)?;
    let metadata = fs::metadata(&target)?;
    through_draft(&target, |draft| {
        let file = write(OpenOptions::new().mode(0o600), draft, text)?;
        make_like(&file, &metadata)?;
        fs::rename(draft, &target)
    })
}

/// Has a file made by way of a draft in its folder, of which nothing is left if that fails.
fn through_draft(file: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let (directory, draft) = draft_path(file)?;
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = make(&draft);
    if made.is_err() {
        let _ = fs::remove_file(&draft);
        return made;
    }
    File::open(directory)?.sync_all()
}

/// The directory of the file and the path of its draft in that directory.
fn draft_path(target: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let no_file = || io::Error::from(io::ErrorKind::InvalidInput);
    let directory = target.parent().ok_or_else(no_file)?.to_owned();
    let mut name = OsString::from(".");
    name.push(target.file_name().ok_or_else(no_file)?);
    name.push(format!(".{}.new", std::process::id()));
    let draft = directory.join(name);
    Ok((directory, draft))
}

fn write(options: &mut OpenOptions, draft: &Path, text: &str) -> io::Result<File> {
    let mut file = options.write(true).create_new(true).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(file)
}

fn make_like(file: &File, like: &fs::Metadata) -> io::Result<()> {
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(like.permissions())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn mode_and_link_stay_and_no_draft_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lab.toml");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link.toml");
        std::os::unix::fs::symlink("lab.toml", &link).unwrap();
        replace(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_is_made_with_its_folder_and_never_over_another() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a/b/lab.toml");
        make_folder(&file, true).unwrap();
        create(&file, "text").unwrap();
        let folder = file.parent().unwrap();
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(create(&file, "other").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        let note = folder.join("note");
        for text in ["one", "two"] {
            put(&note, text).unwrap();
            assert_eq!(fs::read_to_string(&note).unwrap(), text);
        }
        assert_eq!(fs::metadata(&note).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn a_text_in_memory_is_read_from_its_beginning() {
        let file = in_memory(b"text").unwrap();
        let again = file.try_clone().unwrap();
        assert_eq!(text_of(file.into(), 4).unwrap(), "text");
        assert!(text_of(again.into(), 3).unwrap_err().to_string().contains("larger than"));
    }
}
