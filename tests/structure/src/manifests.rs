//! Which crates of the workspace depend on which, from their manifests.

use toml::{Table, Value};

use crate::modules::Read;

/// A crate of the workspace.
pub struct Crate {
    /// Its folder, from the root of the tree.
    pub folder: String,
    /// Its name without the prefix `trama-`.
    pub name: String,
    /// The other crates of the workspace that its library and programs use.
    pub uses: Vec<String>,
    /// Those that only its tests, examples and benchmarks use.
    pub tests_use: Vec<String>,
}

/// All crates of the workspace.
///
/// # Errors
/// A manifest is missing or is not one: which, and why.
pub fn crates(read: Read) -> Result<Vec<Crate>, String> {
    let workspace = manifest("Cargo.toml", read)?;
    let members = workspace
        .get("workspace")
        .and_then(|workspace| workspace.get("members")?.as_array())
        .ok_or("Cargo.toml: no list of workspace.members")?;
    members.iter().filter_map(Value::as_str).map(|folder| one(folder, read)).collect()
}

fn one(folder: &str, read: Read) -> Result<Crate, String> {
    let file = format!("{folder}/Cargo.toml");
    let manifest = manifest(&file, read)?;
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name")?.as_str())
        .ok_or_else(|| format!("{file}: no package.name"))?;
    let mut uses = dependencies(&manifest, "dependencies");
    uses.extend(dependencies(&manifest, "build-dependencies"));
    let tests_use = dependencies(&manifest, "dev-dependencies");
    Ok(Crate { folder: folder.into(), name: short(name), uses, tests_use })
}

fn manifest(file: &str, read: Read) -> Result<Table, String> {
    let text = read(file).ok_or_else(|| format!("{file}: cannot be read"))?;
    text.parse().map_err(|error| format!("{file}: {error}"))
}

/// The crates of the workspace in one section, without their prefix.
fn dependencies(manifest: &Table, section: &str) -> Vec<String> {
    let entries = manifest.get(section).and_then(Value::as_table).into_iter().flatten();
    entries
        .map(|(key, value)| value.get("package").and_then(Value::as_str).unwrap_or(key))
        .filter(|name| name.starts_with("trama-"))
        .map(short)
        .collect()
}

fn short(name: &str) -> String {
    name.trim_start_matches("trama-").to_owned()
}
