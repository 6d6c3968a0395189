//! The host as the checks see it: its files, below a folder that tests choose, and the output of
//! programs.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

/// Runs a program; `None` if it is missing or fails.
type Run = fn(&[&str]) -> Option<String>;

/// A host.
pub(super) struct System {
    root: PathBuf,
    run: Run,
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub id: u32,
    /// Its name, of at most 15 bytes.
    pub name: String,
    pub arguments: Vec<String>,
    /// Effective user and group, and the other groups.
    user: u32,
    groups: Vec<u32>,
    /// Effective capabilities, bit by number.
    pub capabilities: u64,
}

/// CAP_DAC_OVERRIDE (capabilities(7)).
const DAC_OVERRIDE: u64 = 1 << 1;

impl System {
    /// This host.
    pub(super) fn this() -> System {
        System { root: "/".into(), run }
    }

    /// A host whose files are in a folder.
    #[cfg(test)]
    pub(super) fn at(root: &std::path::Path, run: Run) -> System {
        System { root: root.to_owned(), run }
    }

    /// Returns where an absolute path is.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Returns the text of a file, without blanks around it.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.path(path)).ok()?.trim().to_owned())
    }

    /// Returns the number in a file.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    pub(super) fn metadata(&self, path: &str) -> Option<Metadata> {
        std::fs::metadata(self.path(path)).ok()
    }

    /// Returns what a program prints.
    pub(super) fn output(&self, words: &[&str]) -> Option<String> {
        (self.run)(words)
    }

    /// Returns the processes that can be seen.
    pub(super) fn processes(&self) -> Vec<Process> {
        let entries = std::fs::read_dir(self.path("/proc")).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // A process may end meanwhile.
        ids.filter_map(|id| self.process(id)).collect()
    }

    fn process(&self, id: u32) -> Option<Process> {
        let status = self.read(&format!("/proc/{id}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        let number = |words: Vec<String>, place: usize| words.get(place)?.parse().ok();
        let arguments = self.read(&format!("/proc/{id}/cmdline")).unwrap_or_default();
        let capabilities = field("CapEff:")?.first().cloned()?;
        let mut groups: Vec<u32> = number(field("Gid:")?, 1).into_iter().collect();
        groups.extend(field("Groups:")?.iter().filter_map(|group| group.parse::<u32>().ok()));
        Some(Process {
            id,
            name: field("Name:")?.join(" "),
            arguments: arguments.split('\0').map(str::to_owned).collect(),
            user: number(field("Uid:")?, 1)?,
            groups,
            capabilities: u64::from_str_radix(&capabilities, 16).ok()?,
        })
    }
}

impl Process {
    /// Returns whether it may write to a file, as a client of a socket must.
    pub(super) fn may_write(&self, file: &Metadata) -> bool {
        let bit = match () {
            () if self.capabilities & DAC_OVERRIDE != 0 => return true,
            () if self.user == file.uid() => 0o200,
            () if self.groups.contains(&file.gid()) => 0o020,
            () => 0o002,
        };
        file.mode() & bit != 0
    }

    /// Returns what it calls itself, or how it was started.
    pub(super) fn title(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }

    /// Returns its user's number.
    pub(super) fn user(&self) -> u32 {
        self.user
    }

    /// Returns whether one of its arguments has this path.
    pub(super) fn names(&self, path: &str) -> bool {
        let ends = |rest: &str| rest.chars().next().is_none_or(|c| ",;'\" ".contains(c));
        let has = |argument: &String| {
            argument.match_indices(path).any(|(at, _)| ends(&argument[at + path.len()..]))
        };
        self.arguments.iter().any(has)
    }
}

fn run(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
