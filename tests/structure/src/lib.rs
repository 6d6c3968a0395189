//! Reads the source tree as text and checks which way its imports point.
//!
//! ```text
//!  src/lib.rs ── scan ──▶ modules ── resolve ──▶ edges between files ── loops ──▶ report
//!  Cargo.toml ───────────────────────▶ dependencies between crates ── rules ──▶ report
//! ```
//!
//! [`scan`] splits a file into tokens and notes its modules, its `use` lines and its paths;
//! [`modules`] puts the files of a crate together and finds the file that a path leads to;
//! [`loops`] finds files that import each other; [`manifests`] reads which crate depends on which.
//! The rules and their exceptions are in `tests/tree.rs`.
//!
//! Apart from imports, [`requirements`] reads which requirements of specifications the code keeps,
//! and [`citations`] finds the comments that say where; [`commands`] reads which shell commands the
//! pages have, and how each is tested.
//!
//! # What counts as an import
//!
//! - A `use` line: each name in its groups. `crate::`, `self::`, `super::` and paths that begin
//!   with a child module or with an imported module lead to a file; other crates do not count.
//! - A path in code, also in the arguments of a macro: `crate::ethernet::parse(head)` is an import
//!   of the file of `ethernet`.
//! - A name that a module passes on (`pub use types::PortId`) counts as an import of the file that
//!   defines it, also if a glob passes it on. The module that passes on a name of a module inside
//!   it, and does not use it, imports nothing. An import of a whole module, or of everything
//!   in it, counts as an import of the module's own file.
//!
//! Not counted: what a module takes from its parent and the modules further out, since a module is
//! a part of those (a loop is one if it leads out of a module and back into it); doc comments,
//! items under `#[cfg(test)]`, names that a macro puts together, and what a file reaches through
//! the type of a value without naming it.

pub mod citations;
pub mod commands;
pub mod loops;
pub mod manifests;
pub mod modules;
pub mod requirements;
pub mod scan;
pub mod tree;
