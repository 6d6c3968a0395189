//! Each shell command of a page is tested, or the page says why not
//! (`tests/tests/system/docs.rs` runs them).
#![cfg(test)]

use trama_structure::commands::{Block, Command, Way, blocks, faults, head};
use trama_structure::tree::files;

#[test]
fn each_command_of_a_page_is_tested() {
    let makefile = include_str!("../../../Makefile");
    let pages = files("md");
    let blocks: Vec<Block> = pages.iter().flat_map(|(file, text)| blocks(file, text)).collect();
    assert!(blocks.iter().any(Block::is_shell));
    let faults = faults(&blocks, makefile);
    assert!(faults.is_empty(), "\n{faults}");
}

const PAGE: &str = "# Title\n<!-- run: empty -->\n```sh\n# first\na --b \\\n  c\n\nd 'e'\n```\n";

#[test]
fn blocks_have_a_language_a_comment_and_commands() {
    let blocks = blocks("a.md", PAGE);
    let [block] = &blocks[..] else { panic!("{blocks:?}") };
    assert_eq!((block.line, &*block.language, block.way()), (3, "sh", Some(Way::Run("empty"))));
    let command = |line, text: &str| Command { line, text: text.into() };
    assert_eq!(block.commands(), [command(5, "a --b \\\n  c"), command(8, "d 'e'")]);
    assert_eq!(command(1, "sudo target/release/x y").program(), "x");
}

#[test]
fn an_example_begins_with_its_commands() {
    let block = head("a.toml", "# Try it:\n#\n#   a --b\n#   c\n\n#   d\n");
    let command = |line, text: &str| Command { line, text: text.into() };
    assert_eq!(block.commands(), [command(3, "a --b"), command(4, "c")]);
    assert_eq!(block.way(), Some(Way::Run("example")));
}

#[track_caller]
fn assert_faults(page: &str, expected: &[&str]) {
    let faults = faults(&blocks("a.md", page), "help:\nbench: x\n");
    let found: Vec<&str> = faults.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(found, expected);
}

#[test]
fn faults_have_file_line_and_cause() {
    assert_faults(PAGE, &[]);
    assert_faults("```\nx\n```\n", &["a.md:1: a block without a language."]);
    assert_faults("```text\nx\n```\n", &[]);
    let dead = ["a.md:2: no test runs these commands."];
    for comment in ["", "<!-- run: elsewhere -->", "<!-- not run: lazy -->", "<!-- other -->"] {
        assert_faults(&format!("{comment}\n```sh\nx\n```\n"), &dead);
    }
    assert_faults("<!-- parsed -->\n```sh\nx --y\n```\n", &[]);
    let outline = "<!-- run: page -->\n```sh\nqemu-system-x86_64 … -m 1\nx …\n```\n";
    assert_faults(outline, &["a.md:4: no test runs this outline of `x`"]);
    let make = "<!-- not run: make -->\n```sh\nmake bench   # an hour\nmake tea\nx\n```\n";
    let no_target = "a.md:4: the Makefile has no target `tea`";
    assert_faults(make, &[no_target, "a.md:5: `x` is not `make`, and no test runs it"]);
}
