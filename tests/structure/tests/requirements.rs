//! Each requirement that the project claims to keep is cited by code and by a test
//! (`make requirements` prints how many are). The other tests plant one fault each.
#![cfg(test)]

use trama_structure::citations::{self, faults, of_tree, report};
use trama_structure::requirements;

#[test]
fn requirements_and_citations_match() {
    let (specifications, citations) = of_tree().unwrap_or_else(|faults| panic!("\n{faults}"));
    assert!(!specifications.is_empty(), "no docs/requirements/*.toml");
    let faults = faults(&specifications, &citations);
    assert!(faults.is_empty(), "\n{faults}");
}

/// A list with one requirement that has these further lines.
fn list(more: &str) -> String {
    format!(
        "title = \"T\"\nscope = \"S\"\n\n[[requirement]]\nid = \"one\"\nsection = \"1\"\nlevel = \
         \"MUST\"\nsays = \"It is.\"\n{more}"
    )
}

/// What is wrong with a list named `spec` and a source file.
fn check(list: &str, source: &str) -> String {
    let specification = match requirements::read("docs/requirements/spec.toml", list) {
        Ok(specification) => specification,
        Err(faults) => return faults,
    };
    match citations::read("a.rs", source) {
        Ok(citations) => faults(&[specification], &citations),
        Err(faults) => faults,
    }
}

const CODE: &str = "// spec: spec one\nfn f() {}\n";
const TEST: &str = "// spec-test: spec one\n// Why.\n#[test]\nfn g() {}\n";

#[test]
fn what_is_cited_by_code_and_test_is_right() {
    assert_eq!(check(&list(""), &format!("{CODE}{TEST}")), "");
    assert_eq!(check(&list("except = \"on Sundays\""), &format!("{CODE}{TEST}")), "");
    assert_eq!(check(&list("untested = \"no clock\""), CODE), "");
    assert_eq!(check(&list("not-kept = \"too dear\""), ""), "");
    assert_eq!(check(&list("not-applicable = \"no clock\""), ""), "");
}

#[track_caller]
fn assert_fault(more: &str, source: &str, expected: &str) {
    let fault = check(&list(more), source);
    assert!(fault.starts_with(expected), "{fault:?} does not begin with {expected:?}");
}

#[test]
fn faults_have_file_line_and_cause() {
    let both = format!("{CODE}{TEST}");
    let at = "docs/requirements/spec.toml:4: `spec one`";
    assert_fault("", "", &format!("{at} is cited by no code"));
    assert_fault("", TEST, &format!("{at} is cited by no code"));
    assert_fault("", CODE, &format!("{at} is cited by no test"));
    assert_fault("untested = \"x\"", &both, &format!("{at} is untested, yet a.rs:3 cites it"));
    for key in ["not-kept", "not-applicable"] {
        let reason = format!("{key} = \"x\"");
        let expected = format!("{at} is not kept or not applicable, yet a.rs:1 cites it");
        assert_fault(&reason, CODE, &expected);
        assert_fault(&reason, TEST, &expected);
    }
    for wrong in ["spec two", "other one"] {
        let source = format!("{both}// spec: {wrong}\n");
        assert_fault("", &source, &format!("a.rs:7: `{wrong}` is no requirement"));
    }
}

#[test]
fn citations_have_one_form() {
    let form = "a.rs:1: a citation names a specification and ids";
    assert_fault("", "// spec: spec\n", form);
    assert_fault("", "    // spec: spec one,\n", form);
    let above = "a.rs:1: `spec-test` stands above no `#[test]`";
    assert_fault("", "// spec-test: spec one\nfn f() {}\n", above);
    let several = "    // spec: spec one two, other three\n// specification\n\"// spec: x\"\n";
    let found = citations::read("a.rs", several).expect("citations");
    let found: Vec<_> = found.iter().map(|it| (&*it.specification, &*it.id, it.line)).collect();
    assert_eq!(found, [("spec", "one", 1), ("spec", "two", 1), ("other", "three", 1)]);
}

#[test]
fn lists_have_one_form() {
    let at = "docs/requirements/spec.toml:4: ";
    for (more, fault) in [
        ("not-kept = \"\"", "`not-kept` has no reason"),
        ("untested = 1", "`untested` has no reason"),
        ("excuse = \"x\"", "`excuse` is no key of a requirement"),
        ("not-kept = \"x\"\nuntested = \"y\"", "one that is not kept or not applicable has no"),
    ] {
        assert_fault(more, "", &format!("{at}{fault}"));
    }
    let second = "[[requirement]]\nid = \"one\"\nsection = \"2\"\nlevel = \"MUST\"\nsays = \"x\"";
    assert_fault(second, "", "docs/requirements/spec.toml:9: a second requirement `one`");
    let wrong = |from: &str, to: &str| check(&list("").replace(from, to), "");
    assert!(wrong("MUST", "WILL").starts_with(&format!("{at}the level `WILL` is none of")));
    assert!(wrong("id = \"one\"", "").starts_with(&format!("{at}no text for `id`")));
    assert!(wrong("\"one\"", "\"o ne\"").starts_with(&format!("{at}the id `o ne` is not one")));
    assert!(wrong("scope", "scop").starts_with("docs/requirements/spec.toml:1: no text for"));
    assert!(wrong("title = ", "title = =").starts_with("docs/requirements/spec.toml: "));
}

#[test]
fn the_report_counts_and_gives_reasons() {
    let more = "except = \"on Sundays\"\n[[requirement]]\nid = \"two\"\nsection = \"2\"\nlevel = \
                \"MUST\"\nsays = \"x\"\nnot-kept = \"too dear\"";
    let specification = requirements::read("spec.toml", &list(more)).expect("a list");
    let citations = citations::read("a.rs", &format!("{CODE}{TEST}")).expect("citations");
    let report = report(&[specification], &citations);
    let counts: Vec<_> = report.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(counts, ["spec", "2", "1", "1", "0", "1", "0"]);
    assert!(report.contains("\nspec one (1), kept except: on Sundays\n"), "{report}");
    assert!(report.contains("\nspec two (2), not kept: too dear\n"), "{report}");
}
