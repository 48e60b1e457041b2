//! What is suspicious about policies that are valid: rules that are never reached, names that cannot exist, selectors
//! that match nothing, references that lead nowhere. Pure; never says what is in force.
//!
//! A finding is certain as far as what is known goes: what cannot be told is not reported.

mod cover;
mod names;
mod overlap;
mod place;
mod references;
mod shadow;
mod spans;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::RuleInfo;
use crate::policy::{Policy, PolicyKind, PolicyMode};
use crate::reference;
use crate::refusal::{ObjectRef, Refusal};
use crate::snapshot::Snapshot;

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not in force.
    Error,
    /// Something is in force and hardly what its author meant.
    Warning,
    /// Something a reader should know.
    Note,
}

/// Makes the closed list of findings: a stable text, and what it means, for each.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident, $meaning:literal;)+) => {
        /// Kinds of findings.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code { $($(#[$doc])* $name,)+ }

        impl Code {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable text.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// How grave it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// What it means, for a list of all kinds.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

codes! {
    /// A file or an object that cannot be read or is not valid.
    InvalidObject = "invalid-object", Error, "A file or an object cannot be read or is not valid; nothing of it is in force.";
    /// An object that the compiler does not take, or not whole.
    NotInForce = "not-in-force", Error, "An object, or a part of it, cannot be put in force.";
    /// A rule that earlier ones leave nothing of.
    ShadowedRule = "shadowed-rule", Warning, "Everything the rule matches is decided by earlier rules: it is never reached.";
    /// A rule of another object says the same.
    RedundantRule = "redundant-rule", Note, "Everything the rule allows is allowed by rules of other NetworkPolicies.";
    /// Two policies contradict each other, and only their names decide.
    Conflict = "conflict", Warning, "Rules of two policies of the same tier and order match the same flows with opposite actions; the policies' names decide.";
    /// Two policies contradict each other, and their order decides.
    Overlap = "overlap", Note, "Rules of two policies of the same tier match some of the same flows with opposite actions; their order decides.";
    /// A name that nobody can have.
    ImpossibleName = "impossible-name", Warning, "No name that can exist matches the pattern.";
    /// A namespace that is not there.
    MissingNamespace = "missing-namespace", Warning, "A policy or a peer is of a namespace that does not exist.";
    /// A subject that selects nobody.
    SelectsNothing = "selects-nothing", Warning, "The policy selects none of the known workloads.";
    /// A peer that means nobody.
    MatchesNothing = "matches-nothing", Warning, "A peer means none of the known workloads or addresses.";
    /// A port by a name that nobody uses.
    UnknownPort = "unknown-port", Warning, "No workload that could answer has a port of this name.";
    /// A rule about what is always admitted.
    AlwaysAdmitted = "always-admitted", Warning, "The rule is about the node's own traffic to its workloads, which is always admitted.";
    /// A tier without policies.
    UnusedTier = "unused-tier", Note, "No policy is in the tier.";
    /// An external network that no peer means.
    UnusedNetwork = "unused-network", Note, "No peer means the external network.";
    /// Something could not be looked at.
    NotChecked = "not-checked", Note, "A part of the check needs what is not known.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// The object it is about; `None` when it is about all of them.
    pub object: Option<ObjectRef>,
    /// Path of the field in it, `spec.egress[1]`; empty for the object as a whole.
    pub field: String,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The rule it is about, where it is about one.
    pub rule: Option<RuleInfo>,
    /// The rules that make it so.
    pub because: Vec<RuleInfo>,
}

impl Finding {
    fn new(code: Code, policy: &Policy, field: impl Into<String>, message: String, remedy: &str) -> Self {
        Self {
            code,
            object: Some(policy.id.object()),
            field: field.into(),
            message,
            remedy: remedy.to_owned(),
            rule: None,
            because: Vec::new(),
        }
    }

    /// How grave it is.
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }
}

/// What the compiler refused, as a finding.
impl From<Refusal> for Finding {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: Code::NotInForce,
            object: Some(refusal.object),
            field: refusal.field,
            message: refusal.reason,
            remedy: "correct the field".to_owned(),
            rule: None,
            because: Vec::new(),
        }
    }
}

/// Everything suspicious about the policies of a snapshot, by object and field. What the compiler refuses is not
/// among it. Staged policies are looked at among those they would be enforced with.
pub fn check(snapshot: &Snapshot) -> Vec<Finding> {
    let is_staged = |policy: &Policy| policy.mode != PolicyMode::Enforce;
    let mut enforced = snapshot.clone();
    enforced.policies.retain(|_, policy| !is_staged(policy));
    let mut findings = order(&enforced);
    let staged: BTreeSet<ObjectRef> = snapshot
        .policies
        .values()
        .filter(|policy| is_staged(policy))
        .map(|policy| policy.id.object())
        .collect();
    if !staged.is_empty() {
        let beside = order(&reference::preview(snapshot)).into_iter();
        let is_about_staged = |finding: &Finding| finding.object.as_ref().is_some_and(|o| staged.contains(o));
        findings.extend(beside.filter(is_about_staged));
    }
    findings.extend(names::check(snapshot));
    findings.extend(references::check(snapshot));
    findings.sort_by(|a, b| (&a.object, &a.field, a.code).cmp(&(&b.object, &b.field, b.code)));
    findings
}

/// What the order of rules brings about, among policies that are in force together.
fn order(snapshot: &Snapshot) -> Vec<Finding> {
    let placed = place::Placed::of(snapshot);
    let mut findings = shadow::check(snapshot, &placed);
    findings.extend(overlap::check(snapshot, &placed, &findings));
    findings
}

/// The field in which a policy says whom it selects.
fn subject_field(policy: &Policy) -> &'static str {
    match policy.id.kind {
        PolicyKind::Network => "spec.podSelector",
        _ => "spec.subject",
    }
}

#[cfg(test)]
mod tests;
