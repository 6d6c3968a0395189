//! Files that import each other in a loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use crate::modules::Edge;

/// Files that all import each other, directly or through one another.
pub struct Loop {
    /// All of them.
    pub files: BTreeSet<String>,
    /// A shortest way round, one import a step.
    pub shortest: Vec<Edge>,
}

impl Loop {
    /// The loop as lines of text: each file and the line that imports the next, then the remedy.
    pub fn describe(&self) -> String {
        let mut text = format!("{} files import each other in a loop:\n", self.files.len());
        for edge in &self.shortest {
            let Edge { from, to, line, path } = edge;
            let _ = writeln!(text, "  {from}:{line}: `{path}` imports {to}");
        }
        let others: Vec<_> = self
            .files
            .iter()
            .filter(|file| self.shortest.iter().all(|edge| edge.from != **file))
            .map(String::as_str)
            .collect();
        if !others.is_empty() {
            let _ = writeln!(text, "  also in loops with these: {}", others.join(", "));
        }
        text + "  Remedy: move what both sides use into a file that imports neither of them, or \
                pass\n  it in as an argument.\n"
    }
}

/// Finds all loops among imports.
pub fn find(edges: &BTreeSet<Edge>) -> Vec<Loop> {
    let mut next: BTreeMap<&str, BTreeMap<&str, &Edge>> = BTreeMap::new();
    for edge in edges {
        // The first line that imports stands for all.
        next.entry(&edge.from).or_default().entry(&edge.to).or_insert(edge);
    }
    let ways: BTreeMap<&str, BTreeMap<&str, Vec<&Edge>>> =
        next.keys().map(|&file| (file, ways_from(file, &next))).collect();
    let mut loops = Vec::new();
    let mut done = BTreeSet::new();
    for (&file, reached) in &ways {
        if done.contains(file) || !reached.contains_key(file) {
            continue;
        }
        let comes_back = |other: &&str| ways.get(other).is_some_and(|back| back.contains_key(file));
        let files: BTreeSet<&str> = reached.keys().copied().filter(comes_back).collect();
        let shortest = files.iter().filter_map(|other| ways[other].get(other));
        let shortest = shortest.min_by_key(|way| way.len()).into_iter().flatten();
        loops.push(Loop {
            files: files.iter().map(|&file| file.to_owned()).collect(),
            shortest: shortest.map(|&edge| edge.clone()).collect(),
        });
        done.extend(files);
    }
    loops
}

/// A shortest way from `start` to each file that it reaches, itself included if there is one.
fn ways_from<'a>(
    start: &'a str,
    next: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Edge>>,
) -> BTreeMap<&'a str, Vec<&'a Edge>> {
    let mut ways: BTreeMap<&str, Vec<&Edge>> = BTreeMap::new();
    let mut queue = VecDeque::from([(start, Vec::new())]);
    while let Some((file, way)) = queue.pop_front() {
        for (&to, &edge) in next.get(file).into_iter().flatten() {
            if !ways.contains_key(to) {
                let way: Vec<&Edge> = way.iter().copied().chain([edge]).collect();
                ways.insert(to, way.clone());
                queue.push_back((to, way));
            }
        }
    }
    ways
}
