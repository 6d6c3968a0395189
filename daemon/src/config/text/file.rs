//! Writes changes into the configuration file.

use std::io;

use trama_helper::{ConfigFile, Rights};

use super::document::parse_at;
use super::edit::edit;
use crate::Fault;
use crate::config::model::Config;

/// What to do where the file cannot be written.
const UNSAVED: &str = "use --no-save to continue without saving";

/// The configuration file as it was last read or written.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    text: String,
    /// Whether it has changes that others have written into it, which are not in force.
    is_edited: bool,
    /// Whether it lacks changes that are in force.
    lacks_changes: bool,
}

impl Saved {
    /// The file, just read; what it says is in force.
    pub fn read(text: String) -> Saved {
        Saved { text, ..Saved::default() }
    }

    /// Notes a change that is in force and not saved.
    pub fn lack_change(&mut self) {
        self.lacks_changes = true;
    }

    /// Writes the difference between `from`, which is in force, and `to` into the file of this
    /// name, whose text was just read. Everything else in the file stays, including what others
    /// have written into it since it was last read. A text that says what is in force needs no
    /// check: the change makes it one that says `to`. Returns whether there was a difference.
    ///
    /// # Errors
    /// What went wrong and what to do; the file is unchanged.
    pub fn save(
        &mut self,
        rights: &Rights,
        (name, text, how): (&str, io::Result<String>, ConfigFile),
        from: &Config,
        to: &Config,
    ) -> Result<bool, Fault> {
        let text =
            text.map_err(|error| Fault::new(format!("{name}: cannot be read: {error}"), UNSAVED))?;
        let check = |text: &str, because: &str, remedy: &str| {
            parse_at(text, name, &from.daemon.folders).map(drop).map_err(|faults| {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                Fault::new(format!("{}\n{name} {because}", faults.join("\n")), remedy)
            })
        };
        let is_edited = self.is_edited || text != self.text;
        if is_edited {
            check(&text, "was edited by hand and is invalid", "fix it first")?;
        }
        let edited = edit(&text, from, to)?;
        if is_edited || self.lacks_changes {
            let (because, remedy) = self.conflict(is_edited);
            check(&edited, because, remedy)?;
        }
        let differs = edited != text;
        if differs {
            let verb = if how == ConfigFile::Replace { "written" } else { "made" };
            let failed = |error| Fault::new(format!("{name}: cannot be {verb}: {error}"), UNSAVED);
            rights.write_config(&edited, how).map_err(failed)?;
        }
        (self.text, self.is_edited) = (edited, is_edited);
        Ok(differs)
    }

    /// Why a change may conflict with the file, and what to do.
    fn conflict(&self, is_edited: bool) -> (&'static str, &'static str) {
        match (is_edited, self.lacks_changes) {
            (false, _) => (
                "lacks changes that were made with --no-save, and this change needs them",
                "make this one with --no-save, too, or write those into the file and reload it",
            ),
            (true, false) => ("was edited by hand and conflicts with this change", "fix it first"),
            (true, true) => (
                "was edited by hand, lacks changes that were made with --no-save, and conflicts \
                 with this change",
                "fix it and reload it, or make this change with --no-save, too",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use trama_helper::Setup;

    use super::*;
    use crate::config::model::{Interface, Network, Port, Tap};
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

    fn save_at(file: &Path, saved: &mut Saved, from: &Config, to: &Config) -> Result<bool, Fault> {
        let setup = Setup { config: file.to_owned(), ..Setup::default() };
        let rights = Rights::own(setup, "/bin/false");
        let file = (&*file.display().to_string(), rights.read_config(), ConfigFile::Replace);
        saved.save(&rights, file, from, to)
    }

    #[test]
    fn the_text_in_force_is_followed_by_the_next_one() {
        let (_directory, file) = lab();
        let (from, to) = configs(&file);
        let known = fs::read_to_string(&file).unwrap();
        let mut saved = Saved::read(known.clone());
        assert!(save_at(&file, &mut saved, &from, &to).unwrap());
        assert_eq!(saved.text, fs::read_to_string(&file).unwrap());
        assert_eq!(parse(&saved.text, "lab.toml").unwrap(), to);
        assert!(!saved.is_edited);
        // Others have written into it: it says more than what is in force.
        fs::write(&file, format!("{known}mtu = 9000\n")).unwrap();
        save_at(&file, &mut saved, &from, &to).unwrap();
        assert!(saved.is_edited);
        fs::write(&file, format!("{known}mtv = 9000\n")).unwrap();
        assert!(save_at(&file, &mut saved, &from, &to).is_err());
    }

    #[test]
    fn a_change_that_needs_an_unsaved_one_blames_no_edit_by_hand() {
        let (_directory, file) = lab();
        let (from, unsaved) = configs(&file);
        let mut saved = Saved::read(fs::read_to_string(&file).unwrap());
        saved.lack_change();
        let mut to = unsaved.clone();
        to.ports.push(Port { network: Some("other".to_owned()), ..tap("p") });
        let error = save_at(&file, &mut saved, &unsaved, &to).unwrap_err().to_string();
        assert!(error.contains("lacks changes that were made with --no-save"), "{error}");
        assert!(!error.contains("by hand"), "{error}");
        // What does not need it is saved.
        let mut to = unsaved.clone();
        to.ports.push(Port { network: Some("lab".to_owned()), ..tap("p") });
        save_at(&file, &mut saved, &unsaved, &to).unwrap();
        assert_eq!(saved.text, fs::read_to_string(&file).unwrap());
        assert!(!saved.text.contains("other"));
        // Both are named if both may be the cause.
        fs::write(&file, format!("# theirs\n{}", saved.text)).unwrap();
        let mut to = unsaved.clone();
        to.ports.push(Port { network: Some("other".to_owned()), ..tap("q") });
        let error = save_at(&file, &mut saved, &unsaved, &to).unwrap_err().to_string();
        assert!(error.contains("by hand") && error.contains("--no-save"), "{error}");
        assert!(from.ports.is_empty());
    }

    fn tap(name: &str) -> Port {
        let (netns, address) = (None, Vec::new());
        Port::new(name, Interface::Tap(Tap { ifname: name.to_owned(), netns, address }))
    }

    #[test]
    fn what_others_wrote_meanwhile_is_kept_or_refused() {
        let (_directory, file) = lab();
        let (from, to) = configs(&file);
        let theirs = "# by hand\n[[network]]\nname = \"lab\"\nmtu = 9000 # theirs\n";
        fs::write(&file, theirs).unwrap();
        let mut saved = Saved::default();
        save_at(&file, &mut saved, &from, &to).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# by hand\n"));
        assert!(text.contains("mtu = 9000 # theirs") && text.contains("\"other\""), "{text}");

        fs::write(&file, "[[network]]\nnam = \"lab\"\n").unwrap();
        let error = save_at(&file, &mut saved, &from, &to).unwrap_err().to_string();
        assert!(error.contains("lab.toml:2:1: network[0].nam: unknown key"), "{error}");
        assert!(error.contains("was edited by hand and is invalid; fix it first"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "[[network]]\nnam = \"lab\"\n");

        fs::remove_file(&file).unwrap();
        let error = save_at(&file, &mut saved, &from, &to).unwrap_err().to_string();
        assert!(error.contains("cannot be read: "), "{error}");
    }
}
