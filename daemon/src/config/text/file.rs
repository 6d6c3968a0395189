//! Writes the configuration file so that it is complete at every moment.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::document::parse_at;
use super::edit::edit;
use crate::Fault;
use crate::config::model::Config;

/// What to do where the file cannot be written.
const UNSAVED: &str = "use --no-save to continue without saving";

/// Writes the difference between `from` and `to` into the file. Everything else in the file stays,
/// including what others have written into it since it was read.
///
/// # Errors
/// What went wrong and what to do; the file is unchanged.
pub fn save(file: &Path, from: &Config, to: &Config) -> Result<(), Fault> {
    let shown = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Fault::new(format!("{shown}: cannot be read: {error}"), UNSAVED))?;
    let name = shown.to_string();
    let check = |text: &str, when: &str| match parse_at(text, &name, &from.daemon.folders) {
        Ok(_) => Ok(()),
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let faults = faults.join("\n");
            let message = format!("{faults}\n{shown} was edited by hand and {when}");
            Err(Fault::new(message, "fix it first"))
        }
    };
    check(&text, "is invalid")?;
    let edited = edit(&text, from, to)?;
    check(&edited, "conflicts with this change")?;
    if edited == text {
        return Ok(());
    }
    replace(file, &edited)
        .map_err(|error| Fault::new(format!("{shown}: cannot be written: {error}"), UNSAVED))
}

/// Creates the configuration file.
///
/// # Errors
/// What went wrong and what to do; no file is left.
pub fn create(file: &Path, from: &Config, to: &Config) -> Result<(), Fault> {
    let text = edit("", from, to)?;
    let written = || {
        let folder = file.parent().unwrap_or(Path::new("/"));
        // A user's folders are private (XDG Base Directory Specification).
        let mode = if from.daemon.folders.is_private { 0o700 } else { 0o755 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
        let mut made = OpenOptions::new().write(true).create_new(true).open(file)?;
        made.write_all(text.as_bytes())?;
        made.sync_all()
    };
    written().map_err(|error: io::Error| {
        Fault::new(format!("{}: cannot be made: {error}", file.display()), UNSAVED)
    })
}

/// Replaces the file's content in one step: a reader sees the old or the new content. Owner and
/// mode stay; a symbolic link stays and its target changes.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let target = fs::canonicalize(file)?;
    let metadata = fs::metadata(&target)?;
    let (directory, draft) = draft_path(&target)?;
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_draft(&draft, text, &metadata).and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
        return written;
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

fn write_draft(draft: &Path, text: &str, like: &fs::Metadata) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(like.permissions())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::model::Network;
    use crate::config::text::document::parse;

    fn lab() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lab.toml");
        fs::write(&file, "# by hand\n[[network]]\nname = \"lab\"\n").unwrap();
        (directory, file)
    }

    fn configs(file: &Path) -> (Config, Config) {
        let from = parse(&fs::read_to_string(file).unwrap(), "lab.toml").unwrap();
        let mut to = from.clone();
        to.networks.push(Network::new("other"));
        (from, to)
    }

    #[test]
    fn mode_and_link_stay_and_no_draft_is_left() {
        let (directory, file) = lab();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link.toml");
        std::os::unix::fs::symlink("lab.toml", &link).unwrap();
        let (from, to) = configs(&file);
        save(&link, &from, &to).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(parse(&text, "").unwrap(), to);
        assert!(text.starts_with("# by hand\n"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_others_wrote_meanwhile_is_kept_or_refused() {
        let (_directory, file) = lab();
        let (from, to) = configs(&file);
        let theirs = "# by hand\n[[network]]\nname = \"lab\"\nmtu = 9000 # theirs\n";
        fs::write(&file, theirs).unwrap();
        save(&file, &from, &to).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("mtu = 9000 # theirs") && text.contains("\"other\""), "{text}");

        fs::write(&file, "[[network]]\nnam = \"lab\"\n").unwrap();
        let error = save(&file, &from, &to).unwrap_err().to_string();
        assert!(error.contains("lab.toml:2:1: network[0].nam: unknown key"), "{error}");
        assert!(error.contains("was edited by hand and is invalid; fix it first"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "[[network]]\nnam = \"lab\"\n");

        fs::remove_file(&file).unwrap();
        let error = save(&file, &from, &to).unwrap_err().to_string();
        assert!(error.contains("cannot be read: No such file"), "{error}");
    }
}
