//! Whether a policy is in force or staged, and what a staged one stands in for. Written in the spec where the kind is
//! ours, in an annotation where it is not.

use schemars::JsonSchema;
use serde::Deserialize;

use super::metadata::{Metadata, is_name};
use super::report::Report;
use crate::policy::{Policy, PolicyMode, Preview};

/// Annotation with the mode of kinds whose spec has none.
const MODE: &str = "enforcer.dev/mode";
/// Annotation with the name of the policy that a staged one stands in for.
pub(crate) const REPLACES: &str = "enforcer.dev/replaces";
/// Annotation with the name of the policy that a staged one takes out.
pub(crate) const REMOVES: &str = "enforcer.dev/removes";

/// Whether a policy is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
pub enum StageMode {
    /// It is.
    Enforce,
    /// It is evaluated beside.
    Stage,
}

/// The mode of a kind whose spec has one.
pub(super) fn of_spec(mode: Option<StageMode>, metadata: &Metadata, report: &mut Report) -> PolicyMode {
    if metadata.annotations.contains_key(MODE) {
        report.refuse(annotation(MODE), "is for kinds without a mode of their own: write spec.mode");
    }
    with_preview(mode.unwrap_or(StageMode::Enforce), metadata, report)
}

/// The mode of a kind whose spec has none.
pub(super) fn of_annotation(metadata: &Metadata, report: &mut Report) -> PolicyMode {
    let mode = match metadata.annotations.get(MODE).map(String::as_str) {
        None | Some("Enforce") => StageMode::Enforce,
        Some("Stage") => StageMode::Stage,
        Some(text) => {
            report.refuse(annotation(MODE), format!("{text:?} is no mode: write Enforce or Stage"));
            StageMode::Stage
        }
    };
    with_preview(mode, metadata, report)
}

/// A policy that removes another says nothing else.
pub(super) fn without_rules_of_removal(mut policy: Policy, report: &mut Report) -> Policy {
    if matches!(policy.mode, PolicyMode::Stage(Some(Preview::Removes(_)))) {
        if [&policy.egress, &policy.ingress].into_iter().flatten().any(|rules| !rules.is_empty()) {
            report.refuse(annotation(REMOVES), "stands at a policy without rules: remove the rules");
        }
        (policy.egress, policy.ingress) = (None, None);
    }
    policy
}

fn with_preview(mode: StageMode, metadata: &Metadata, report: &mut Report) -> PolicyMode {
    let named = |key| metadata.annotations.get(key).map(|name| (key, name));
    let given = [named(REPLACES), named(REMOVES)].into_iter().flatten();
    for (key, name) in given {
        if !is_name(name) {
            report.refuse(annotation(key), format!("{name:?} is no name of a policy"));
        }
        if metadata.name.as_ref() == Some(name) {
            report.refuse(annotation(key), "names the policy itself");
        }
        if mode == StageMode::Enforce {
            report.refuse(annotation(key), "is for staged policies: write mode Stage");
        }
    }
    let preview = match (named(REPLACES), named(REMOVES)) {
        (Some(_), Some(_)) => {
            report.refuse(annotation(REMOVES), format!("cannot stand beside {REPLACES}"));
            None
        }
        (Some((_, name)), None) => Some(Preview::Replaces(name.clone())),
        (None, Some((_, name))) => Some(Preview::Removes(name.clone())),
        (None, None) => None,
    };
    match mode {
        StageMode::Enforce => PolicyMode::Enforce,
        StageMode::Stage => PolicyMode::Stage(preview),
    }
}

/// Path of an annotation.
pub(crate) fn annotation(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}
