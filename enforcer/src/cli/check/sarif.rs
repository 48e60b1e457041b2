//! The report as SARIF 2.1.0 (OASIS, Static Analysis Results Interchange Format), which code review tools show beside
//! the lines it is about. Owns the form; never what is found.

use std::path::{Component, Path};

use enforcer_core::check::Code;
use serde_json::{Value, json};

use super::{Located, Report, severity_text};

/// Where the format is defined.
const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// Octets of a path that a URI holds as they are (RFC 3986, section 3.3).
const PLAIN: &[u8] = b"-._~!$&'()*+,;=:@/";

/// The log of one run.
pub(super) fn log(report: &Report) -> Value {
    let rules: Vec<Value> = Code::ALL.iter().map(|code| rule(*code)).collect();
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "enforcer policy check",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.text(),
        "shortDescription": {"text": code.meaning()},
        "defaultConfiguration": {"level": severity_text(code.severity())},
    })
}

fn result(finding: &Located) -> Value {
    let index = Code::ALL.iter().position(|code| *code == finding.code);
    let about = [&finding.object, &finding.field].into_iter().flatten();
    let about: String = about.map(|part| format!("{part}: ")).collect();
    let mut result = json!({
        "ruleId": finding.code.text(),
        "ruleIndex": index,
        "level": severity_text(finding.severity),
        "message": {"text": format!("{about}{}; {}", finding.message, finding.remedy)},
    });
    if let Some(file) = &finding.file {
        result["locations"] = json!([location(finding, file)]);
    }
    result
}

fn location(finding: &Located, file: &Path) -> Value {
    let mut physical = json!({"artifactLocation": {"uri": uri(file)}});
    if let Some(line) = finding.line {
        physical["region"] = json!({"startLine": line});
        if let Some(column) = finding.column {
            physical["region"]["startColumn"] = column.into();
        }
    }
    let mut location = json!({"physicalLocation": physical});
    if let Some(object) = &finding.object {
        location["logicalLocations"] = json!([{"fullyQualifiedName": object, "kind": "object"}]);
    }
    location
}

/// A relative path as it is, an absolute one as `file:///…`.
fn uri(path: &Path) -> String {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    let names: Vec<String> = parts.map(|part| encoded(part.as_os_str().as_encoded_bytes())).collect();
    let joined = names.join("/");
    if path.is_absolute() { format!("file:///{joined}") } else { joined }
}

fn encoded(name: &[u8]) -> String {
    let octet = |octet: &u8| match octet.is_ascii_alphanumeric() || PLAIN.contains(octet) {
        true => char::from(*octet).to_string(),
        false => format!("%{octet:02X}"),
    };
    name.iter().map(octet).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn paths_are_written_as_references() {
        for (path, uri) in [
            ("./policies/a b.yaml", "policies/a%20b.yaml"),
            ("/etc/x/ü.yaml", "file:///etc/x/%C3%BC.yaml"),
            ("../x.yaml", "../x.yaml"),
        ] {
            assert_eq!(super::uri(Path::new(path)), uri);
        }
    }
}
