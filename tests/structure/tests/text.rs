//! Comments and documents are as wide as code, and their links lead somewhere.
#![cfg(test)]

use std::fs;
use std::path::Path;

use trama_structure::tree::{files, root};

/// Most characters of a line; rustfmt.toml has the same for code.
const WIDTH: usize = 100;
/// The lines outside code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Whether a line could have been broken, and is too long.
fn is_too_wide(line: &str) -> bool {
    let longest = line.split_whitespace().map(|word| word.chars().count()).max();
    line.chars().count() > WIDTH && longest.is_some_and(|longest| longest < WIDTH / 2)
}

/// A row of a table cannot be broken.
fn is_prose_of_a_comment(line: &str) -> bool {
    let comment = line.trim_start().strip_prefix("//");
    comment.is_some_and(|text| !text.trim_start_matches(['/', '!', ' ']).starts_with('|'))
}

#[test]
fn comments_and_documents_are_no_wider_than_code() {
    let mut report = String::new();
    let mut note = |file: &str, number: usize| {
        report += &format!("{file}:{number}: wider than {WIDTH} characters\n");
    };
    for (file, text) in files("rs") {
        let comments = (1..).zip(text.lines()).filter(|(_, line)| is_prose_of_a_comment(line));
        comments.filter(|(_, line)| is_too_wide(line)).for_each(|(number, _)| note(&file, number));
    }
    for (file, text) in files("md") {
        // The first line of a page is its summary.
        let lines = prose(&text).filter(|(number, line)| *number > 1 && !line.starts_with('|'));
        lines.filter(|(_, line)| is_too_wide(line)).for_each(|(number, _)| note(&file, number));
    }
    assert!(report.is_empty(), "\n{report}  Remedy: break the lines\n");
}

/// The anchors that a page's headings get.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        words.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// The targets of the links in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

#[test]
fn links_lead_somewhere() {
    let pages = files("md");
    let mut report = String::new();
    for (file, text) in &pages {
        for (number, link) in
            prose(text).flat_map(|(number, line)| links(line).map(move |link| (number, link)))
        {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(file).parent().expect("a folder").join(path);
            let target = if path.is_empty() { root().join(file) } else { root().join(folder) };
            let leads = match fs::read_to_string(&target) {
                Ok(page) => anchor.is_empty() || anchors(&page).iter().any(|one| one == anchor),
                // A folder, or a picture.
                Err(_) => target.exists() && anchor.is_empty(),
            };
            if !leads {
                report += &format!("{file}:{number}: the link {link} leads nowhere\n");
            }
        }
    }
    assert!(report.is_empty(), "\n{report}  Remedy: mend the path or the heading\n");
}

#[test]
fn tests_that_documents_name_exist() {
    let mut report = String::new();
    for (file, text) in &files("md") {
        for (number, line) in prose(text) {
            // [`name`](path.rs)
            for part in line.split("[`").skip(1) {
                let Some((name, rest)) = part.split_once("`](") else { continue };
                let Some((path, _)) = rest.split_once(')') else { continue };
                let is_test =
                    name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
                if !is_test || !name.contains('_') || !path.ends_with(".rs") {
                    continue;
                }
                let source = Path::new(file).parent().expect("a folder").join(path);
                let source = fs::read_to_string(root().join(source)).unwrap_or_default();
                if !source.contains(&format!("fn {name}(")) {
                    report += &format!("{file}:{number}: {path} has no function {name}\n");
                }
            }
        }
    }
    assert!(report.is_empty(), "\n{report}  Remedy: name the test that keeps the promise now\n");
}

#[test]
fn anchors_are_made_as_renderers_make_them() {
    let page = "# One\n```\n# no heading\n```\n## `[network.dhcp]`: keys, and more\n";
    assert_eq!(anchors(page), ["one", "networkdhcp-keys-and-more"]);
    assert_eq!(links("[a](b.md#c), [d](e) and f").collect::<Vec<_>>(), ["b.md#c", "e"]);
}

#[test]
fn a_line_is_too_wide_only_if_it_could_be_broken() {
    assert!(!is_too_wide(&"word ".repeat(20)[..99]));
    assert!(is_too_wide(&"word ".repeat(21)[..101]));
    assert!(!is_too_wide(&format!("see {}", "x".repeat(120))));
}
