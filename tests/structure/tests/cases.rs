//! The checks on small trees, each a list of files with their text.
#![cfg(test)]

use trama_structure::loops;
use trama_structure::manifests::crates;
use trama_structure::modules::Modules;

type Files<'a> = &'a [(&'a str, &'a str)];

fn read(files: Files, wanted: &str) -> Option<String> {
    files.iter().find(|(name, _)| *name == wanted).map(|(_, text)| (*text).to_owned())
}

/// The imports of one file by another, as `file:line path file`.
fn edges(files: Files) -> Vec<String> {
    let modules = Modules::read("lib.rs", &|file| read(files, file.trim_start_matches('/')));
    let edges = modules.expect("a tree").edges();
    edges
        .iter()
        .map(|edge| format!("{}:{} {} {}", edge.from, edge.line, edge.path, edge.to))
        .map(|line| line.replace('/', "").replace(".rs", ""))
        .collect()
}

/// The loops of a tree, as reported.
fn loops(files: Files) -> Vec<String> {
    let modules = Modules::read("lib.rs", &|file| read(files, file.trim_start_matches('/')));
    let edges = modules.expect("a tree").edges();
    loops::find(&edges).iter().map(loops::Loop::describe).collect()
}

#[test]
fn a_loop_is_reported_with_its_lines_and_a_remedy() {
    let found = loops(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::d::X;\nuse crate::b::B;\npub struct A;"),
        ("b.rs", "use crate::c::C;\npub struct B;"),
        ("c.rs", "\n\nuse super::a::A;\npub struct C;"),
        ("d.rs", "pub struct X;"),
    ]);
    let expected = "3 files import each other in a loop:\n  \
         /a.rs:2: `crate::b::B` imports /b.rs\n  \
         /b.rs:1: `crate::c::C` imports /c.rs\n  \
         /c.rs:3: `super::a::A` imports /a.rs\n  \
         Remedy: move what both sides use into a file that imports neither of them, or pass\n  \
         it in as an argument.\n";
    assert_eq!(found, [expected]);
}

#[test]
fn files_in_several_loops_are_named_too() {
    let found = loops(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; use crate::c::C; pub struct A;"),
        ("b.rs", "use crate::a::A; pub struct B;"),
        ("c.rs", "use crate::a::A; pub struct C;"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("3 files"), "{}", found[0]);
    assert!(found[0].contains("also in loops with these: /c.rs"), "{}", found[0]);
}

#[test]
fn parent_and_child_may_import_each_other_but_not_around_another_file() {
    let inner = [
        ("lib.rs", "mod a; mod b; pub struct Top;"),
        ("a.rs", "mod x; use x::X; pub struct A;"),
        ("a/x.rs", "mod y; use super::A; use crate::Top; pub struct X;"),
        ("a/x/y.rs", "use crate::a::A; use super::super::A as B;"),
        ("b.rs", ""),
    ];
    assert_eq!(loops(&inner), [""; 0]);
    let mut outer = inner;
    outer[2].1 = "mod y; use crate::b::B; pub struct X;";
    outer[4].1 = "use crate::a::A; pub struct B;";
    let found = loops(&outer);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("3 files"), "{}", found[0]);
}

#[test]
fn passing_a_name_on_is_no_use_of_it() {
    let tree = |a| {
        loops(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", a),
            ("a/x.rs", "use crate::b::B; pub fn x() {}"),
            ("b.rs", "use crate::a::A; pub struct B;"),
        ])
        .len()
    };
    assert_eq!(tree("mod x; pub use x::x; pub struct A;"), 0);
    assert_eq!(tree("mod x; pub use x::x; pub struct A; fn a() { x() }"), 1);
    assert_eq!(tree("mod x; pub struct A; fn a() { x::x() }"), 1);
}

#[test]
fn a_name_that_is_passed_on_comes_from_the_file_that_defines_it() {
    let tree = |user| {
        [
            ("lib.rs", "mod a; mod b; pub use a::Named; pub use a::*;"),
            ("a.rs", "mod x; mod y; pub use self::x::{Named, Other as Alias}; pub use y::*;"),
            ("a/x.rs", "pub struct Named; pub enum Other { V }"),
            ("a/y.rs", "pub const fn made() {}"),
            ("b.rs", user),
        ]
    };
    let from_b = |user| {
        let edges = edges(&tree(user));
        edges.into_iter().filter(|edge| edge.starts_with('b')).collect::<Vec<_>>()
    };
    assert_eq!(from_b("use crate::Named;"), ["b:1 crate::Named ax"]);
    assert_eq!(from_b("use crate::a::Alias;"), ["b:1 crate::a::Alias ax"]);
    assert_eq!(from_b("use crate::a::Alias::V;"), ["b:1 crate::a::Alias::V ax"]);
    assert_eq!(from_b("use crate::made;"), ["b:1 crate::made ay"]);
    assert_eq!(from_b("use crate::a::unknown;"), ["b:1 crate::a::unknown a"]);
    assert_eq!(from_b("use crate::a::*;"), ["b:1 crate::a a"]);
}

#[test]
fn groups_self_super_and_aliases_are_written_out() {
    let found = edges(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub mod x { pub struct X; pub mod deep { pub struct D; } }"),
        ("b.rs", "pub struct B;"),
        (
            "c.rs",
            "pub(in crate::b) use crate::{\n a::x::{self as xs, X, deep::*},\n b::{self},\n};\n\
             mod inner { use super::super::b as other; }",
        ),
    ]);
    let expected = [
        "c:2 crate::a::x a",
        "c:2 crate::a::x::X a",
        "c:2 crate::a::x::deep a",
        "c:3 crate::b b",
        "c:5 super::super::b b",
    ];
    assert_eq!(found, expected);
}

#[test]
fn paths_in_code_count_also_in_macros() {
    let found = edges(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub fn f() {} pub struct S;"),
        (
            "b.rs",
            "use crate::a as short;\n\
             fn g(x: *const crate::a::S) {\n short::f();\n\
             println!(\"{}\", super::a::f());\n let y: u8 = 1; ::std::mem::drop(y) }",
        ),
    ]);
    let expected = ["b:1 crate::a a", "b:2 crate::a::S a", "b:3 short::f a", "b:4 super::a::f a"];
    assert_eq!(found, expected);
}

#[test]
fn comments_strings_tests_and_other_crates_do_not_count() {
    let found = edges(&[
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod testing;"),
        ("a.rs", "pub struct A;"),
        (
            "b.rs",
            "//! use crate::a::A;\n/* crate::a::A */ use std::{fmt, a::A};\n\
             /// [`crate::a::A`]\nconst TEXT: &str = r#\"use crate::a::A;\"#;\n\
             #[cfg(test)]\n#[allow(unused, reason = \"x\")]\nmod tests { use crate::a::A; }\n\
             #[cfg(test)] use crate::a::{A};\n\
             struct S { #[cfg(test)] pub(crate) a: crate::a::A, b: u8 }\n\
             #[cfg(test)] pub fn f() -> crate::a::A { crate::a::A }\n\
             fn g<'a>() -> impl Iterator<Item = u8> + use<'a> { a::b(); x.a::<u8>() }",
        ),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn code_for_other_targets_counts() {
    let found = edges(&[
        ("lib.rs", "mod a; #[path = \"else/where.rs\"] mod b;"),
        ("a.rs", "pub struct A;"),
        ("else/where.rs", "#[cfg(not(test))] use crate::a::A;"),
    ]);
    assert_eq!(found, ["elsewhere:1 crate::a::A a"]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let error = |files: Files| {
        Modules::read("lib.rs", &|file| read(files, file.trim_start_matches('/'))).err()
    };
    let missing = error(&[("lib.rs", "mod a;")]).expect("an error");
    assert_eq!(missing, "lib.rs: no file for `mod a`: /a.rs, /a/mod.rs");
    let broken = error(&[("lib.rs", "mod a;"), ("a.rs", "fn {")]).expect("an error");
    assert!(broken.starts_with("/a.rs: not Rust: "), "{broken}");
}

#[test]
fn imports_that_go_in_a_circle_end() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub use crate::b::X; pub use crate::b::*;"),
        ("b.rs", "pub use crate::a::X; pub use crate::a::*;"),
        ("c.rs", "use crate::a::X;"),
    ];
    assert_eq!(loops(&files).len(), 1);
}

#[test]
fn all_sections_of_a_manifest_count() {
    let files = [
        ("Cargo.toml", "[workspace]\nmembers = [\"one\"]"),
        (
            "one/Cargo.toml",
            "[package]\nname = \"trama-one\"\n[dependencies]\ntrama-two.workspace = true\n\
             serde = \"1\"\n[build-dependencies]\nshort = { package = \"trama-three\", path = \
             \"x\" }\n[dev-dependencies]\ntrama-four = { path = \"y\" }",
        ),
    ];
    let crates = crates(&|file| read(&files, file)).expect("manifests");
    let [one] = crates.as_slice() else { panic!("{} crates", crates.len()) };
    assert_eq!((one.folder.as_str(), one.name.as_str()), ("one", "one"));
    let uses: Vec<_> = one.uses.iter().map(|used| (used.name.as_str(), used.line)).collect();
    assert_eq!(uses, [("two", 4), ("three", 7), ("four", 9)]);
}
