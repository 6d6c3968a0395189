//! Which crates of the workspace depend on which, from their manifests.

use toml::{Table, Value};

use crate::modules::Read;

/// A crate of the workspace.
pub struct Crate {
    /// Its folder, from the root of the tree.
    pub folder: String,
    /// Its name without the prefix `trama-`.
    pub name: String,
    /// The other crates of the workspace that it uses, in its tests and examples too.
    pub uses: Vec<Dependency>,
}

/// A dependency on a crate of the workspace.
pub struct Dependency {
    /// The name of that crate without the prefix `trama-`.
    pub name: String,
    /// The line of the manifest, from 1.
    pub line: usize,
    /// Whether only tests, benchmarks and examples use it.
    pub is_dev: bool,
}

/// The sections of a manifest that list dependencies.
const SECTIONS: [&str; 3] = ["dependencies", "build-dependencies", "dev-dependencies"];

/// All crates of the workspace.
///
/// # Errors
/// A manifest is missing or is not one: which, and why.
pub fn crates(read: Read) -> Result<Vec<Crate>, String> {
    let (workspace, _) = manifest("Cargo.toml", read)?;
    let members = workspace
        .get("workspace")
        .and_then(|workspace| workspace.get("members")?.as_array())
        .ok_or("Cargo.toml: no list of workspace.members")?;
    members.iter().filter_map(Value::as_str).map(|folder| one(folder, read)).collect()
}

fn one(folder: &str, read: Read) -> Result<Crate, String> {
    let file = format!("{folder}/Cargo.toml");
    let (manifest, text) = manifest(&file, read)?;
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name")?.as_str())
        .ok_or_else(|| format!("{file}: no package.name"))?;
    let uses =
        SECTIONS.iter().flat_map(|section| dependencies(&manifest, &text, section)).collect();
    Ok(Crate { folder: folder.into(), name: short(name), uses })
}

fn manifest(file: &str, read: Read) -> Result<(Table, String), String> {
    let text = read(file).ok_or_else(|| format!("{file}: cannot be read"))?;
    let table = text.parse().map_err(|error| format!("{file}: {error}"))?;
    Ok((table, text))
}

/// The crates of the workspace in one section.
fn dependencies(manifest: &Table, text: &str, section: &str) -> Vec<Dependency> {
    let entries = manifest.get(section).and_then(Value::as_table).into_iter().flatten();
    entries
        .filter_map(|(key, value)| {
            let name = value.get("package").and_then(Value::as_str).unwrap_or(key);
            let name = name.strip_prefix("trama-")?.to_owned();
            let is_dev = section == "dev-dependencies";
            Some(Dependency { name, line: line_of(text, key), is_dev })
        })
        .collect()
}

/// The first line that has `key` as a word and is no comment.
fn line_of(text: &str, key: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let names =
        |line: &str| !line.starts_with('#') && line.split(|c| !is_part(c)).any(|word| word == key);
    text.lines().position(names).map_or(0, |index| index + 1)
}

fn short(name: &str) -> String {
    name.trim_start_matches("trama-").to_owned()
}
