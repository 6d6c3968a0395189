//! Citations of requirements in comments, and whether they match the lists of [`requirements`].
//!
//! ```text
//! // spec: rfc2131 nak-broadcast          beside the code that keeps it
//! // spec-test: rfc2131 nak-broadcast     above the `#[test]` that shows it
//! ```
//!
//! A comment may cite several, of several specifications: `// spec: rfc9293 MUST-1 MUST-2,
//! rfc6298 5.1`.
//!
//! [`requirements`]: crate::requirements

use std::fmt::Write;

use crate::requirements::{self, Requirement, Specification, Status};
use crate::tree;

/// One requirement that a comment cites.
#[derive(Debug, PartialEq, Eq)]
pub struct Citation {
    /// The file, from the root of the tree.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The name of the specification.
    pub specification: String,
    /// The requirement.
    pub id: String,
    /// Whether it is a test that shows it, and not the code that keeps it.
    pub is_test: bool,
}

/// The citations of a Rust file.
///
/// # Errors
/// Comments that begin like a citation and are none, with file and line.
pub fn read(file: &str, text: &str) -> Result<Vec<Citation>, String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let (mut citations, mut faults) = (Vec::new(), String::new());
    for (index, comment) in lines.iter().enumerate() {
        let Some(comment) = comment.strip_prefix("// spec") else { continue };
        let (list, is_test) = match (comment.strip_prefix(": "), comment.strip_prefix("-test: ")) {
            (Some(list), _) => (list, false),
            (_, Some(list)) => (list, true),
            _ => continue,
        };
        let line = index + 1;
        if is_test && !is_above_test(&lines[line..]) {
            faults += &format!("{file}:{line}: `spec-test` stands above no `#[test]`\n");
        }
        for part in list.split(',') {
            let mut words = part.split_whitespace().map(String::from);
            let specification = words.next().unwrap_or_default();
            let count = citations.len();
            citations.extend(words.map(|id| {
                let (file, specification) = (file.into(), specification.clone());
                Citation { file, line, specification, id, is_test }
            }));
            if citations.len() == count {
                faults += &format!("{file}:{line}: a citation names a specification and ids\n");
            }
        }
    }
    if faults.is_empty() { Ok(citations) } else { Err(faults) }
}

/// All lists of the tree, and all citations.
///
/// # Errors
/// Everything that is wrong with the lists or with the form of citations, with file and line.
pub fn of_tree() -> Result<(Vec<Specification>, Vec<Citation>), String> {
    let (mut specifications, mut citations, mut faults) = (vec![], vec![], String::new());
    for (file, text) in tree::files("toml") {
        if file.starts_with("docs/requirements/") {
            match requirements::read(&file, &text) {
                Ok(specification) => specifications.push(specification),
                Err(fault) => faults += &fault,
            }
        }
    }
    for (file, text) in tree::files("rs") {
        match read(&file, &text) {
            Ok(found) => citations.extend(found),
            Err(fault) => faults += &fault,
        }
    }
    if faults.is_empty() { Ok((specifications, citations)) } else { Err(faults) }
}

/// Whether the first line that is no comment begins a test.
fn is_above_test(lines: &[&str]) -> bool {
    lines.iter().find(|line| !line.starts_with("//")).is_some_and(|line| *line == "#[test]")
}

/// What does not match between the lists and the citations, with file, line and remedy.
pub fn faults(specifications: &[Specification], citations: &[Citation]) -> String {
    let mut report = String::new();
    for cited in citations {
        let Citation { file, line, specification, id, .. } = cited;
        let known = specifications.iter().find(|one| one.name == *specification);
        let known = known.is_some_and(|one| one.requirements.iter().any(|it| it.id == *id));
        if !known {
            let _ = writeln!(
                report,
                "{file}:{line}: `{specification} {id}` is no requirement.\n  Remedy: mend the \
                 citation, or add the requirement to docs/requirements"
            );
        }
    }
    for specification in specifications {
        for requirement in &specification.requirements {
            if let Some(fault) = fault(&Cited::of(specification, requirement, citations)) {
                let Specification { file, name, .. } = specification;
                let Requirement { id, line, .. } = requirement;
                let _ = writeln!(report, "{file}:{line}: `{name} {id}` {fault}");
            }
        }
    }
    report
}

/// A requirement, and the first comment of each kind that cites it.
struct Cited<'a> {
    requirement: &'a Requirement,
    by_code: Option<&'a Citation>,
    by_test: Option<&'a Citation>,
}

impl<'a> Cited<'a> {
    fn of(
        specification: &Specification,
        requirement: &'a Requirement,
        citations: &'a [Citation],
    ) -> Cited<'a> {
        let find = |is_test| {
            citations.iter().find(|cited| {
                cited.specification == specification.name
                    && cited.id == requirement.id
                    && cited.is_test == is_test
            })
        };
        Cited { requirement, by_code: find(false), by_test: find(true) }
    }
}

/// What is wrong with a requirement, and the remedy.
fn fault(cited: &Cited<'_>) -> Option<String> {
    let place = |cited: &Citation| format!("{}:{}", cited.file, cited.line);
    match (&cited.requirement.status, cited.by_code, cited.by_test) {
        (Status::Kept { .. }, None, _) => Some(
            "is cited by no code.\n  Remedy: cite it where it is kept, or say why it is not kept \
             or not applicable"
                .into(),
        ),
        (Status::Kept { untested: None, .. }, Some(_), None) => Some(
            "is cited by no test.\n  Remedy: cite it at a test that shows it, or say in \
             `untested` why there is none"
                .into(),
        ),
        (Status::Kept { untested: Some(_), .. }, _, Some(test)) => Some(format!(
            "is untested, yet {} cites it.\n  Remedy: take out one of them",
            place(test)
        )),
        (Status::Kept { .. }, Some(_), _) => None,
        (Status::NotKept(_) | Status::NotApplicable(_), None, None) => None,
        (_, code, test) => Some(format!(
            "is not kept or not applicable, yet {} cites it.\n  Remedy: take out one of them",
            code.or(test).map(place).unwrap_or_default()
        )),
    }
}

/// How much of each specification is kept, and the reasons for the rest.
pub fn report(specifications: &[Specification], citations: &[Citation]) -> String {
    let mut table = format!(
        "{:14}{:>6}{:>6}{:>8}{:>10}{:>10}{:>16}\n",
        "specification", "all", "kept", "tested", "untested", "not kept", "not applicable"
    );
    let mut reasons = String::new();
    for specification in specifications {
        let (mut tested, mut untested, mut not_kept, mut not_applicable) = (0, 0, 0, 0);
        let mut note = |one: &Requirement, what: &str, reason: &str| {
            let (name, id, section) = (&specification.name, &one.id, &one.section);
            let _ = writeln!(reasons, "{name} {id} ({section}), {what}: {reason}");
        };
        for one in &specification.requirements {
            match &one.status {
                Status::Kept { except, untested: why } => {
                    let cited = Cited::of(specification, one, citations);
                    *(if cited.by_test.is_some() { &mut tested } else { &mut untested }) += 1;
                    except.iter().for_each(|reason| note(one, "kept except", reason));
                    why.iter().for_each(|reason| note(one, "untested", reason));
                }
                Status::NotKept(reason) => {
                    not_kept += 1;
                    note(one, "not kept", reason);
                }
                Status::NotApplicable(reason) => {
                    not_applicable += 1;
                    note(one, "not applicable", reason);
                }
            }
        }
        let (name, all) = (&specification.name, specification.requirements.len());
        let kept = tested + untested;
        let _ = writeln!(
            table,
            "{name:14}{all:>6}{kept:>6}{tested:>8}{untested:>10}{not_kept:>10}{not_applicable:>16}"
        );
    }
    format!("{table}\n{reasons}")
}
