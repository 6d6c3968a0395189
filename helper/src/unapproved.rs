//! The words of the configuration that are not approved, in a file beside it.
//!
//! A line a word. Without such a file, all words of the configuration count as written by hand.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::config_file::put;

/// What is added to the name of the configuration file.
const ENDING: &str = ".unapproved";

/// The file.
#[derive(Default)]
pub(crate) struct Note(PathBuf);

impl Note {
    /// That of a configuration file; of a link's target.
    pub(crate) fn beside(config: &Path) -> Note {
        let target = fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
        let mut name = OsString::from(target);
        name.push(ENDING);
        Note(name.into())
    }

    /// Returns the words that an earlier helper has noted.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn read(&self) -> io::Result<HashSet<String>> {
        match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
            text => {
                Ok(text.map_err(|error| self.explain(error))?.lines().map(Into::into).collect())
            }
        }
    }

    /// Replaces the words in one step.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(crate) fn write(&self, words: &HashSet<String>) -> io::Result<()> {
        let written = if words.is_empty() {
            fs::remove_file(&self.0)
        } else {
            let mut lines: Vec<&str> = words.iter().map(String::as_str).collect();
            lines.sort_unstable();
            put(&self.0, &(lines.join("\n") + "\n"))
        };
        written.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let text = format!("{}, which says what root has not approved: {error}", self.0.display());
        io::Error::new(error.kind(), text)
    }
}
