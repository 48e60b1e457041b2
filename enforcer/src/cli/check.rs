//! `enforcer policy check`: what the agent would report about a tree, and what is suspicious in it, without a kernel.
//! Never enforces.

mod sarif;

use std::io::Write;
use std::path::{Path, PathBuf};

use enforcer_common::policy::Mode;
use enforcer_core::check::{self as core, Code, Finding, Severity};
use serde::Serialize;

use super::tree::{self, Tree};
use super::{CheckArgs, CheckOutput, print};
use crate::source::problem::Problem;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Objects that are valid.
    pub objects: usize,
    /// Findings of severity error.
    pub errors: usize,
    /// Findings of severity warning.
    pub warnings: usize,
    /// Findings of severity note.
    pub notes: usize,
    /// The findings, in the order of files and places.
    pub findings: Vec<Located>,
}

/// A finding at its place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Located {
    /// The file; absent where a finding is about the whole tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// How grave it is.
    pub severity: Severity,
    /// Its kind.
    #[serde(serialize_with = "code_text")]
    pub code: Code,
    /// The object, as `Kind namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Path of the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The rules that make it so, as `Kind namespace/name egress[0]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
}

fn code_text<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.text())
}

/// Runs the command; true when nothing was found that it is to fail for.
///
/// # Errors
/// When standard output breaks.
pub fn run(args: &CheckArgs) -> anyhow::Result<bool> {
    let report = report(&tree::read(&args.paths, args.workloads.as_deref(), Mode::Policy));
    let text = match args.output {
        CheckOutput::Json => serde_json::to_string_pretty(&report)? + "\n",
        CheckOutput::Sarif => serde_json::to_string_pretty(&sarif::log(&report))? + "\n",
        CheckOutput::Text => lines(&report),
    };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(report.errors == 0 && (report.warnings == 0 || !args.deny_warnings))
}

/// Everything that is wrong or suspicious about a tree.
pub fn report(tree: &Tree) -> Report {
    let problems = |code, problems: &[Problem]| -> Vec<Located> {
        problems.iter().map(|problem| of_problem(code, problem)).collect()
    };
    let mut findings = problems(Code::InvalidObject, &tree.invalid);
    findings.extend(problems(Code::NotInForce, &tree.refused));
    findings.extend(core::check(&tree.snapshot).iter().map(|finding| locate(tree, finding)));
    findings.sort();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    Report {
        objects: tree.objects.len(),
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        notes: count(Severity::Note),
        findings,
    }
}

fn of_problem(code: Code, problem: &Problem) -> Located {
    Located {
        // Without a file it is about what no file holds, a limit for example.
        file: (problem.file != Path::new("-")).then(|| problem.file.clone()),
        line: problem.line,
        column: problem.column,
        severity: code.severity(),
        code,
        object: problem.object.clone(),
        field: problem.field.clone(),
        message: problem.reason.clone(),
        remedy: problem.remedy.clone(),
        because: Vec::new(),
    }
}

/// A finding at the place of its object's field.
fn locate(tree: &Tree, finding: &Finding) -> Located {
    let place = finding.object.as_ref().and_then(|object| tree.objects.get(object));
    let mark = place.map(|(_, loaded)| loaded.lines.mark(&finding.field));
    Located {
        file: place.map(|(file, _)| file.clone()),
        line: mark.map(|mark| mark.line),
        column: mark.map(|mark| mark.column),
        severity: finding.severity(),
        code: finding.code,
        object: finding.object.as_ref().map(ToString::to_string),
        field: (!finding.field.is_empty()).then(|| finding.field.clone()),
        message: finding.message.clone(),
        remedy: finding.remedy.clone(),
        because: finding.because.iter().map(ToString::to_string).collect(),
    }
}

/// The report for a reader: `file:line:column: severity[code]: object: field: message; remedy`.
pub fn lines(report: &Report) -> String {
    let Report { objects, errors, warnings, notes, .. } = report;
    let mut text: String = report.findings.iter().map(line).collect();
    text.push_str(&format!(
        "{objects} objects are valid; {errors} errors, {warnings} warnings, {notes} notes\n"
    ));
    text
}

fn line(finding: &Located) -> String {
    let mut place = finding.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    for number in [finding.line, finding.column].into_iter().flatten() {
        place.push_str(&format!(":{number}"));
    }
    if !place.is_empty() {
        place.push_str(": ");
    }
    let kind = format!("{}[{}]", severity_text(finding.severity), finding.code);
    let about = [&finding.object, &finding.field].into_iter().flatten();
    let about: String = about.map(|part| format!(": {part}")).collect();
    let kind = print::styled(print::severity(finding.severity), kind);
    format!("{place}{kind}{about}: {}; {}\n", finding.message, finding.remedy)
}

/// `error`, `warning` or `note`.
pub(super) const fn severity_text(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

#[cfg(test)]
mod tests;
