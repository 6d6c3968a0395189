//! What a check finds.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub(super) enum Grade {
    /// As it should be.
    #[serde(rename = "ok")]
    Ok,
    /// Worth knowing; it may be meant so.
    #[serde(rename = "note")]
    Note,
    /// Something works worse than it could, or will not for some guests.
    #[serde(rename = "warn")]
    Warn,
    /// Something does not work.
    #[serde(rename = "FAIL")]
    Fail,
}

impl Grade {
    /// Returns its word at the beginning of a line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Grade::Ok => "ok",
            Grade::Note => "note",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        }
    }
}

/// One line of the report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// What was checked.
    pub check: &'static str,
    pub grade: Grade,
    /// What was found.
    pub text: String,
    /// What to do; empty if nothing needs to be done.
    pub remedy: String,
    /// The command that `--fix` runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Vec<&'static str>>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(check, Grade::Ok, text, "")
    }

    pub(super) fn note(
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(check, Grade::Note, text, remedy)
    }

    pub(super) fn warn(
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(check, Grade::Warn, text, remedy)
    }

    pub(super) fn fail(
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(check, Grade::Fail, text, remedy)
    }

    fn new(
        check: &'static str,
        grade: Grade,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { check, grade, text: text.into(), remedy: remedy.into(), fix: None }
    }

    /// The same, with the command that repairs it.
    pub(super) fn fixed_by(self, command: &[&'static str]) -> Finding {
        Finding { fix: Some(command.to_vec()), ..self }
    }

    /// The finding as a line.
    pub(super) fn line(&self) -> String {
        let Finding { check, grade, text, remedy, .. } = self;
        let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
        format!("{:<5} {check}: {text}{remedy}\n", grade.word())
    }
}

/// The findings of a check, or that there are none.
pub(super) fn or_ok(
    check: &'static str,
    findings: Vec<Finding>,
    text: impl Into<String>,
) -> Vec<Finding> {
    if findings.is_empty() { vec![Finding::ok(check, text)] } else { findings }
}
