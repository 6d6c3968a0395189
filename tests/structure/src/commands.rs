//! The shell commands of the pages, and how each is tested.
//!
//! A comment above a block of shell commands says how `tests/tests/system/docs.rs` tests it:
//!
//! ```text
//! <!-- run: SETUP -->        run, each command in turn ([`SETUPS`])
//! <!-- parsed -->            checked by the program, which gets `--help` behind and does nothing
//! <!-- not run: REASON -->   not tested ([`REASONS`])
//! ```
//!
//! The commands in the first comment of an example are always run.
//!
//! Wherever they stand, `make` commands must have a target in the Makefile, and a command with `…`
//! is an outline, which [`OUTLINES`] must allow.

use std::fmt::Write;

/// What commands can run in: a name, and what there is when the first command starts.
pub const SETUPS: [(&str, &str); 8] = [
    ("page", "no daemon; the page's first TOML block is in the file trama.toml"),
    ("empty", "a daemon without networks"),
    ("networks", "a daemon with the networks lab and office, and a port vm1 on lab"),
    ("nat", "a daemon with a network of mode nat, and a port guest1 on it"),
    ("continued", "what the commands of the block before have left"),
    ("example", "no daemon; the working directory is the root of the tree"),
    ("docker", "a daemon and a dockerd with the plug-in, where Docker is installed; its own test"),
    ("service", "nothing; the last command does not end, and opens the socket that it names"),
];

/// Why commands cannot run in a test.
pub const REASONS: [(&str, &str); 2] = [
    ("make", "the tests themselves, or hours; their targets are looked up in the Makefile"),
    ("engine", "a container engine of the reader's, which the tests do not have"),
];

/// Programs whose commands may be outlines: what fills the gap is the reader's own.
pub const OUTLINES: [(&str, &str); 1] = [("qemu-system-x86_64", "tests/src/guest.rs runs it")];

/// A fenced block of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The page, from the root of the tree.
    pub file: String,
    /// The line of its fence, from 1.
    pub line: usize,
    /// The word behind its fence.
    pub language: String,
    /// The comment on the line above, without its marks.
    pub comment: Option<String>,
    /// Its lines.
    pub lines: Vec<String>,
}

/// A command, which may take several lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The line at which it begins, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// How a block is tested.
#[derive(Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// In this setup.
    Run(&'a str),
    /// By the parser of the program.
    Parsed,
    /// Not, for this reason.
    NotRun(&'a str),
}

/// The fenced blocks of a page.
pub fn blocks(file: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    let mut above = "";
    for (line, content) in (1..).zip(text.lines()) {
        let fence = content.trim_start().strip_prefix("```");
        open = match (open, fence) {
            (None, None) => None,
            (None, Some(language)) => Some(Block {
                file: file.into(),
                line,
                language: language.into(),
                comment: comment(above),
                lines: Vec::new(),
            }),
            (Some(block), Some(_)) => {
                blocks.push(block);
                None
            }
            (Some(mut block), None) => {
                block.lines.push(content.into());
                Some(block)
            }
        };
        above = content;
    }
    blocks
}

/// The commands in the first comment of a configuration: its lines that begin with three spaces.
pub fn head(file: &str, text: &str) -> Block {
    let comment = text.lines().map_while(|line| line.strip_prefix('#'));
    let lines = comment.map(|line| line.strip_prefix("   ").unwrap_or_default().to_owned());
    Block {
        file: file.into(),
        line: 0,
        language: "sh".into(),
        comment: Some("run: example".into()),
        lines: lines.collect(),
    }
}

fn comment(line: &str) -> Option<String> {
    let inner = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?;
    Some(inner.trim().into())
}

impl Block {
    /// Whether it holds commands.
    pub fn is_shell(&self) -> bool {
        self.language == "sh"
    }

    /// How it is tested; `None` if nothing says so.
    pub fn way(&self) -> Option<Way<'_>> {
        let comment = self.comment.as_deref()?;
        match comment.split_once(": ") {
            None => (comment == "parsed").then_some(Way::Parsed),
            Some(("run", setup)) => is_in(&SETUPS, setup).then_some(Way::Run(setup)),
            Some(("not run", reason)) => is_in(&REASONS, reason).then_some(Way::NotRun(reason)),
            Some(_) => None,
        }
    }

    /// Its commands.
    pub fn commands(&self) -> Vec<Command> {
        let (mut commands, mut goes_on) = (Vec::<Command>::new(), false);
        for (line, text) in (self.line + 1..).zip(&self.lines) {
            match commands.last_mut().filter(|_| goes_on) {
                Some(command) => command.text += &format!("\n{text}"),
                None if text.trim().is_empty() || text.starts_with('#') => continue,
                None => commands.push(Command { line, text: text.clone() }),
            }
            goes_on = text.ends_with('\\');
        }
        commands
    }
}

fn is_in(list: &[(&str, &str)], name: &str) -> bool {
    list.iter().any(|(known, _)| *known == name)
}

impl Command {
    /// The program that it starts.
    pub fn program(&self) -> &str {
        let mut words = self.text.split_whitespace().filter(|word| *word != "sudo");
        words.next().and_then(|word| word.rsplit('/').next()).unwrap_or_default()
    }

    /// Whether a part of it is left to the reader.
    pub fn is_outline(&self) -> bool {
        self.text.contains('…')
    }

    /// The target of a `make` command.
    fn target(&self) -> Option<&str> {
        let mut words = self.text.split_whitespace();
        (words.next() == Some("make")).then(|| words.next()).flatten()
    }
}

/// Blocks without a language, and commands that nothing tests, with file, line and remedy.
pub fn faults(blocks: &[Block], makefile: &str) -> String {
    let mut report = String::new();
    let mut note = |file: &str, line: usize, fault: &str| {
        let _ = writeln!(report, "{file}:{line}: {fault}");
    };
    for block in blocks {
        let file = &block.file;
        if block.language.is_empty() {
            let remedy = "Remedy: name it, `sh` for commands, `text` for what is no language";
            note(file, block.line, &format!("a block without a language.\n  {remedy}"));
        }
        if !block.is_shell() {
            continue;
        }
        let way = block.way();
        if way.is_none() {
            let remedy = format!(
                "Remedy: say how in a comment on the line above: `run: SETUP`, `parsed` or `not \
                 run: REASON`, as {} has them",
                file!()
            );
            note(file, block.line, &format!("no test runs these commands.\n  {remedy}"));
        }
        for command in block.commands() {
            let program = command.program();
            if command.is_outline() && !is_in(&OUTLINES, program) {
                note(file, command.line, &format!("no test runs this outline of `{program}`"));
            }
            if let Some(target) = command.target()
                && !makefile.lines().any(|line| line.starts_with(&format!("{target}:")))
            {
                note(file, command.line, &format!("the Makefile has no target `{target}`"));
            }
            if program != "make" && matches!(way, Some(Way::NotRun("make"))) {
                note(
                    file,
                    command.line,
                    &format!("`{program}` is not `make`, and no test runs it"),
                );
            }
        }
    }
    report
}
