//! Reports about small trees, in each form.

use std::fs;

use serde_json::Value;

use super::*;

const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: a, namespace: x}
spec:
  subject: {}
  egress:
  - action: Allow
    to: [{cidr: 10.0.0.0/8}]
  - action: Deny
    to: [{cidr: 10.1.0.0/16}]
";

/// A report about files, whose directory is cut from the front of paths.
fn report_of(files: &[(&str, &str)]) -> (tempfile::TempDir, Report) {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(directory.path().join(name), text).expect("written");
    }
    let tree = tree::read(&[directory.path().to_owned()], None, Mode::Policy);
    let mut report = report(&tree);
    for finding in &mut report.findings {
        let shorter = finding.file.as_deref().and_then(|file| file.strip_prefix(directory.path()).ok());
        finding.file = shorter.map(Path::to_owned).or_else(|| finding.file.clone());
    }
    (directory, report)
}

fn plain(report: &Report) -> String {
    anstream::adapter::strip_str(&lines(report)).to_string()
}

#[test]
fn errors_warnings_and_notes_have_their_place() {
    let broken = POLICY.replace("Deny", "Perhaps").replace("name: a", "name: b");
    let nowhere = POLICY.replace("spec:", "spec:\n  tier: nowhere").replace("name: a", "name: c");
    let (_directory, report) = report_of(&[("a.yaml", POLICY), ("b.yaml", &broken), ("c.yaml", &nowhere)]);
    let text = plain(&report);
    let starts: Vec<&str> = text.lines().map(|line| line.split("; ").next().expect("a part")).collect();
    assert_eq!(
        starts,
        [
            "note[not-checked]: no workloads are known: what selectors and port names match was not looked at",
            "a.yaml:9:5: warning[shadowed-rule]: SegmentPolicy x/a: spec.egress[1]: it is never reached: everything \
             it matches is decided by SegmentPolicy x/a egress[0]",
            "b.yaml:9:5: error[invalid-object]: SegmentPolicy x/b: spec.egress[1].action: unknown variant `Perhaps`, \
             expected one of `Allow`, `Deny`, `Reject`, `Pass`",
            "c.yaml:5:3: error[not-in-force]: SegmentPolicy x/c: spec.tier: there is no tier \"nowhere\"",
            "2 objects are valid",
        ]
    );
    assert!(text.ends_with("2 objects are valid; 2 errors, 1 warnings, 1 notes\n"), "{text}");
}

#[test]
fn a_tree_with_workloads_is_checked_whole_and_what_is_missing_is_an_error() {
    let workloads = "apiVersion: enforcer.dev/v1alpha1\nkind: WorkloadList\nworkloads:\n\
                     - {name: w, namespace: x, addresses: [10.0.0.2]}\n";
    let (directory, report) = report_of(&[("a.yaml", POLICY), ("workloads.yaml", workloads)]);
    assert_eq!((report.errors, report.warnings, report.notes), (0, 1, 0), "{:?}", report.findings);
    let missing = directory.path().join("none");
    let tree = tree::read(&[directory.path().to_owned(), missing.clone()], None, Mode::Policy);
    let report = super::report(&tree);
    assert_eq!((report.errors, report.warnings), (1, 1));
    assert!(report.findings.iter().any(|finding| finding.file.as_ref() == Some(&missing)));
    let elsewhere = tree::read(&[directory.path().to_owned()], Some(&missing), Mode::Policy);
    assert!(elsewhere.snapshot.workloads.is_empty(), "the list that was named stands for the directory's");
    assert_eq!(super::report(&elsewhere).errors, 1);
}

#[test]
fn the_json_form_is_one_document() {
    let (_directory, report) = report_of(&[("a.yaml", POLICY)]);
    let value = serde_json::to_value(&report).expect("serialises");
    assert_eq!(
        value["findings"][1],
        serde_json::json!({
            "file": "a.yaml", "line": 9, "column": 5, "severity": "warning", "code": "shadowed-rule",
            "object": "SegmentPolicy x/a", "field": "spec.egress[1]",
            "message": "it is never reached: everything it matches is decided by SegmentPolicy x/a egress[0]",
            "remedy": "take it out, move it before them, or narrow them",
            "because": ["SegmentPolicy x/a egress[0]"],
        })
    );
    assert_eq!((&value["errors"], &value["warnings"], &value["notes"]), (&0.into(), &1.into(), &1.into()));
}

/// The schema is that of the standard (OASIS SARIF 2.1.0), its descriptions left out and a pattern that is
/// no regular expression everywhere corrected (`language`).
#[test]
fn the_sarif_form_is_valid_against_its_schema() {
    let broken = POLICY.replace("Deny", "Perhaps").replace("name: a", "name: b");
    let (_directory, report) = report_of(&[("a.yaml", POLICY), ("b.yaml", &broken), ("c.yaml", "kind: [")]);
    let log = sarif::log(&report);
    let schema: Value =
        serde_json::from_str(include_str!("sarif-schema-2.1.0.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let errors: Vec<String> = validator.iter_errors(&log).map(|error| error.to_string()).collect();
    assert_eq!(errors, [""; 0]);
    let mut wrong = log.clone();
    wrong["runs"][0]["results"][0]["level"] = "fatal".into();
    assert!(!validator.is_valid(&wrong), "the schema is asked");
    let result = &log["runs"][0]["results"][1];
    assert_eq!(result["ruleId"], "shadowed-rule");
    let index = result["ruleIndex"].as_u64().and_then(|index| usize::try_from(index).ok()).expect("a number");
    assert_eq!(log["runs"][0]["tool"]["driver"]["rules"][index]["id"], "shadowed-rule");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(
        place,
        &serde_json::json!({"artifactLocation": {"uri": "a.yaml"}, "region": {"startLine": 9, "startColumn": 5}})
    );
}
