//! The files of the tree.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders without text of the project.
const LEFT_OUT: [&str; 4] = ["target", ".git", ".cache", "node_modules"];

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Each file with this extension: its path from the root, and its text.
///
/// # Panics
/// If a folder cannot be read, or a file is not UTF-8.
#[expect(clippy::expect_used, reason = "a check that cannot read the tree has failed")]
pub fn files(extension: &str) -> Vec<(String, String)> {
    let (mut folders, mut found) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if entry.file_type().expect("a kind").is_dir() {
                let name = entry.file_name();
                if !LEFT_OUT.iter().any(|left_out| name == *left_out) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).expect("a file below the root");
                let text = fs::read_to_string(&path).expect("a text in UTF-8");
                found.push((name.display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}
