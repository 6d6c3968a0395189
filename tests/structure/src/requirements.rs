//! The requirements of a specification, as `docs/requirements/NAME.toml` lists them.
//!
//! ```toml
//! title = "RFC 2131: Dynamic Host Configuration Protocol"
//! scope = "what a server must do"
//!
//! [[requirement]]
//! id = "nak-broadcast"
//! section = "4.3.2"
//! level = "MUST"
//! says = "A refusal of a client on the server's own link is broadcast."
//! ```
//!
//! A requirement is kept unless it says otherwise: `not-kept` or `not-applicable` with a reason.
//! One that is kept may have `except`, where it is not, and `untested`, why no test shows it.

use toml::{Table, Value};

/// A specification and what it requires.
pub struct Specification {
    /// The name by which comments cite it: that of its file.
    pub name: String,
    /// Its file, from the root of the tree.
    pub file: String,
    /// In the order of the file.
    pub requirements: Vec<Requirement>,
}

/// One requirement.
pub struct Requirement {
    /// Its name in the specification, or one given here.
    pub id: String,
    /// The line at which it begins, from 1.
    pub line: usize,
    /// The section that states it.
    pub section: String,
    /// Whether and how it is kept.
    pub status: Status,
}

/// Whether a requirement is kept.
pub enum Status {
    /// It is.
    Kept {
        /// Where it is not.
        except: Option<String>,
        /// Why no test shows it.
        untested: Option<String>,
    },
    /// It is not, for this reason.
    NotKept(String),
    /// There is nothing that it could apply to, for this reason.
    NotApplicable(String),
}

/// How strongly a specification requires: its words, or `RULE` for what it states without one of
/// them.
const LEVELS: [&str; 5] = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "RULE"];
/// What each requirement has, and what it may have.
const NEEDED: [&str; 4] = ["id", "section", "level", "says"];
const OPTIONAL: [&str; 4] = ["except", "untested", "not-kept", "not-applicable"];

/// Reads the file of a specification.
///
/// # Errors
/// Everything that is wrong with it, with file and line.
pub fn read(file: &str, text: &str) -> Result<Specification, String> {
    let table: Table = text.parse().map_err(|error| format!("{file}: {error}\n"))?;
    for key in ["title", "scope"] {
        text_of(&table, key).ok_or_else(|| format!("{file}:1: no text for `{key}`\n"))?;
    }
    let entries = table.get("requirement").and_then(Value::as_array).into_iter().flatten();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| line.trim() == "[[requirement]]");
    let (mut requirements, mut faults) = (Vec::<Requirement>::new(), String::new());
    for (entry, (line, _)) in entries.filter_map(Value::as_table).zip(lines) {
        match requirement(entry, line) {
            Ok(one) if requirements.iter().any(|other| other.id == one.id) => {
                faults += &format!("{file}:{line}: a second requirement `{}`\n", one.id);
            }
            Ok(one) => requirements.push(one),
            Err(fault) => faults += &format!("{file}:{line}: {fault}\n"),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".toml");
    Ok(Specification { name: name.into(), file: file.into(), requirements })
}

fn requirement(entry: &Table, line: usize) -> Result<Requirement, String> {
    let known = |key: &str| NEEDED.contains(&key) || OPTIONAL.contains(&key);
    if let Some(key) = entry.keys().find(|key| !known(key)) {
        return Err(format!("`{key}` is no key of a requirement: {NEEDED:?}, {OPTIONAL:?}"));
    }
    let needed = |key| text_of(entry, key).ok_or_else(|| format!("no text for `{key}`"));
    let id = needed("id")?;
    if id.contains([' ', ',']) {
        return Err(format!("the id `{id}` is not one word"));
    }
    let level = needed("level")?;
    if !LEVELS.contains(&level.as_str()) {
        return Err(format!("the level `{level}` is none of {LEVELS:?}"));
    }
    needed("says")?;
    Ok(Requirement { id, line, section: needed("section")?, status: status(entry)? })
}

fn status(entry: &Table) -> Result<Status, String> {
    if let Some(key) = OPTIONAL.iter().find(|key| entry.get(**key).is_some_and(is_no_text)) {
        return Err(format!("`{key}` has no reason"));
    }
    let text = |key| text_of(entry, key);
    match (text("not-kept"), text("not-applicable"), text("except"), text("untested")) {
        (None, None, except, untested) => Ok(Status::Kept { except, untested }),
        (Some(reason), None, None, None) => Ok(Status::NotKept(reason)),
        (None, Some(reason), None, None) => Ok(Status::NotApplicable(reason)),
        _ => Err("one that is not kept or not applicable has no other reason".into()),
    }
}

fn is_no_text(value: &Value) -> bool {
    value.as_str().is_none_or(|text| text.trim().is_empty())
}

fn text_of(table: &Table, key: &str) -> Option<String> {
    table.get(key).filter(|value| !is_no_text(value))?.as_str().map(String::from)
}
