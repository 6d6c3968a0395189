//! Writes changes into the configuration file.

use std::io;

use trama_helper::{ConfigFile, Rights};

use super::document::parse_at;
use super::edit::edit;
use crate::Fault;
use crate::config::model::Config;

/// What to do where the file cannot be written.
const UNSAVED: &str = "use --no-save to continue without saving";

/// Writes the difference between `from` and `to` into the file of this name, which was just read.
/// Everything else in the file stays, including what others have written into it since it was last
/// read. `in_force` is the text that says `from`, if the file had one when it was last read or
/// written. While it still has that text, the change makes it one that says `to`, and that is
/// returned; a text with other changes is checked before and after.
///
/// # Errors
/// What went wrong and what to do; the file is unchanged.
pub fn save(
    rights: &Rights,
    (name, text): (&str, io::Result<String>),
    in_force: Option<&str>,
    from: &Config,
    to: &Config,
) -> Result<Option<String>, Fault> {
    let text =
        text.map_err(|error| Fault::new(format!("{name}: cannot be read: {error}"), UNSAVED))?;
    let check = |text: &str, when: &str| match parse_at(text, name, &from.daemon.folders) {
        Ok(_) => Ok(()),
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let faults = faults.join("\n");
            let message = format!("{faults}\n{name} was edited by hand and {when}");
            Err(Fault::new(message, "fix it first"))
        }
    };
    let is_in_force = in_force == Some(&*text);
    if !is_in_force {
        check(&text, "is invalid")?;
    }
    let edited = edit(&text, from, to)?;
    if !is_in_force {
        check(&edited, "conflicts with this change")?;
    }
    if edited != text {
        let failed = |error| Fault::new(format!("{name}: cannot be written: {error}"), UNSAVED);
        rights.write_config(&edited, ConfigFile::Replace).map_err(failed)?;
    }
    Ok(is_in_force.then_some(edited))
}

/// Creates the configuration file of this name; returns its text.
///
/// # Errors
/// What went wrong and what to do; no file is left.
pub fn create(rights: &Rights, name: &str, from: &Config, to: &Config) -> Result<String, Fault> {
    let text = edit("", from, to)?;
    let how = ConfigFile::Create { is_private: from.daemon.folders.is_private };
    let failed = |error| Fault::new(format!("{name}: cannot be made: {error}"), UNSAVED);
    rights.write_config(&text, how).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use trama_helper::Setup;

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

    fn save_at(file: &Path, from: &Config, to: &Config) -> Result<Option<String>, Fault> {
        save_knowing(file, None, from, to)
    }

    fn save_knowing(
        file: &Path,
        in_force: Option<&str>,
        from: &Config,
        to: &Config,
    ) -> Result<Option<String>, Fault> {
        let setup = Setup { config: file.to_owned(), ..Setup::default() };
        let rights = Rights::own(setup, "/bin/false");
        save(&rights, (&file.display().to_string(), rights.read_config()), in_force, from, to)
    }

    #[test]
    fn the_text_in_force_is_followed_by_the_next_one() {
        let (_directory, file) = lab();
        let (from, to) = configs(&file);
        let known = fs::read_to_string(&file).unwrap();
        let next = save_knowing(&file, Some(&known), &from, &to).unwrap().unwrap();
        assert_eq!(next, fs::read_to_string(&file).unwrap());
        assert_eq!(parse(&next, "lab.toml").unwrap(), to);
        // Somebody has written into it: it says more than what is in force.
        fs::write(&file, format!("{known}mtu = 9000\n")).unwrap();
        assert_eq!(save_knowing(&file, Some(&known), &from, &to).unwrap(), None);
        fs::write(&file, format!("{known}mtv = 9000\n")).unwrap();
        assert!(save_knowing(&file, Some(&known), &from, &to).is_err());
    }

    #[test]
    fn what_others_wrote_meanwhile_is_kept_or_refused() {
        let (_directory, file) = lab();
        let (from, to) = configs(&file);
        let theirs = "# by hand\n[[network]]\nname = \"lab\"\nmtu = 9000 # theirs\n";
        fs::write(&file, theirs).unwrap();
        save_at(&file, &from, &to).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# by hand\n"));
        assert!(text.contains("mtu = 9000 # theirs") && text.contains("\"other\""), "{text}");

        fs::write(&file, "[[network]]\nnam = \"lab\"\n").unwrap();
        let error = save_at(&file, &from, &to).unwrap_err().to_string();
        assert!(error.contains("lab.toml:2:1: network[0].nam: unknown key"), "{error}");
        assert!(error.contains("was edited by hand and is invalid; fix it first"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "[[network]]\nnam = \"lab\"\n");

        fs::remove_file(&file).unwrap();
        let error = save_at(&file, &from, &to).unwrap_err().to_string();
        assert!(error.contains("cannot be read: "), "{error}");
    }
}
