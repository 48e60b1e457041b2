//! `enforcer.dev/v1alpha1` SegmentPolicy and ClusterSegmentPolicy: their fields, tier, order and subject.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Document;
use super::metadata::{cluster_name, namespaced_name};
use super::report::Report;
use super::segment_peers::Scope;
use super::segment_rules::{EgressRule, IngressRule, egress, ingress};
use super::selector::{Expression, SelectorSpec};
use super::stage::{self, StageMode};
use crate::policy::{
    MANAGED_BY_LABEL, NamespaceScope, Policy, PolicyId, PolicyKind, PolicyMode, Preview, Subject, Tier,
};

/// Order of a policy that names none.
const DEFAULT_ORDER: u32 = 1000;

/// Spec of a SegmentPolicy.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("required" = ["subject"], "x-kubernetes-validations" = [
    {"rule": "has(self.ingress) || has(self.egress) || (has(self.mode) && self.mode == 'Stage')",
     "message": "has neither ingress nor egress: it would do nothing; give it rules, or the mode Stage"},
    {"rule": "!has(self.tier) || self.tier != 'kubernetes'",
     "message": "tier kubernetes holds NetworkPolicy objects only: name another tier"},
]))]
pub struct SegmentPolicySpec {
    /// Name of the tier; `default` when absent.
    #[serde(default)]
    pub tier: Option<String>,
    /// Place in the tier, lower first; 1000 when absent.
    #[serde(default)]
    pub order: Option<u32>,
    /// Enforced when absent.
    #[serde(default)]
    pub mode: Option<StageMode>,
    /// True: for pods of descendant namespaces too.
    #[serde(default)]
    pub propagate: Option<bool>,
    /// Pods of the namespace by tags; required, `{}` selects all.
    #[serde(default)]
    pub subject: Option<SelectorSpec>,
    /// Rules for flows towards the subject. Absent: none of its business; empty: no flow is matched.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub ingress: Option<Vec<IngressRule>>,
    /// Rules for flows the subject begins; as `ingress`.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub egress: Option<Vec<EgressRule>>,
}

/// Spec of a ClusterSegmentPolicy.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("required" = ["subject"], "x-kubernetes-validations" = [
    {"rule": "has(self.ingress) || has(self.egress) || (has(self.mode) && self.mode == 'Stage')",
     "message": "has neither ingress nor egress: it would do nothing; give it rules, or the mode Stage"},
    {"rule": "!has(self.tier) || self.tier != 'kubernetes'",
     "message": "tier kubernetes holds NetworkPolicy objects only: name another tier"},
]))]
pub struct ClusterSegmentPolicySpec {
    /// Name of the tier; `default` when absent.
    #[serde(default)]
    pub tier: Option<String>,
    /// Place in the tier, lower first; 1000 when absent.
    #[serde(default)]
    pub order: Option<u32>,
    /// Enforced when absent.
    #[serde(default)]
    pub mode: Option<StageMode>,
    /// Pods by tags and namespaces; required.
    #[serde(default)]
    pub subject: Option<ClusterSubjectSpec>,
    /// Rules for flows towards the subject. Absent: none of its business; empty: no flow is matched.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub ingress: Option<Vec<IngressRule>>,
    /// Rules for flows the subject begins; as `ingress`.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub egress: Option<Vec<EgressRule>>,
}

/// Whom a ClusterSegmentPolicy selects.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("required" = ["namespaceSelector"]))]
pub struct ClusterSubjectSpec {
    /// Namespaces by label; required, `{}` selects all.
    #[serde(default)]
    pub namespace_selector: Option<SelectorSpec>,
    /// Tags that must have these values.
    #[serde(default)]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements on tags.
    #[serde(default)]
    pub match_expressions: Option<Vec<Expression>>,
}

/// The valid policy of a SegmentPolicy document.
pub(super) fn policy(document: &Document<SegmentPolicySpec>, report: &mut Report) -> Option<Policy> {
    let name = namespaced_name(&document.metadata, report);
    let ((namespace, name), spec) = name.zip(report.require("spec", &document.spec))?;
    let subject = report.require("spec.subject", &spec.subject);
    let workloads = subject.map(|subject| subject.over_tags("spec.subject", report));
    let scope = Scope { namespace: Some(&namespace) };
    let mode = stage::of_spec(spec.mode, &document.metadata, report);
    let rules = Rules { tier: &spec.tier, mode: &mode, ingress: &spec.ingress, egress: &spec.egress };
    let (tier, ingress, egress) = rules.validate(&scope, report);
    let namespaces = match spec.propagate {
        Some(true) => NamespaceScope::Tree(namespace.clone()),
        Some(false) | None => NamespaceScope::Named(namespace.clone()),
    };
    let policy = Policy {
        id: PolicyId { namespace: Some(namespace), name, kind: PolicyKind::Segment },
        tier,
        order: spec.order.unwrap_or(DEFAULT_ORDER),
        mode,
        managed_by: managed_by(document.metadata.labels.get(MANAGED_BY_LABEL)),
        subject: Subject { namespaces, workloads: workloads? },
        egress,
        ingress,
    };
    Some(stage::without_rules_of_removal(policy, report))
}

/// The valid policy of a ClusterSegmentPolicy document.
pub(super) fn cluster_policy(
    document: &Document<ClusterSegmentPolicySpec>,
    report: &mut Report,
) -> Option<Policy> {
    let (name, spec) =
        cluster_name(&document.metadata, report).zip(report.require("spec", &document.spec))?;
    let subject =
        report.require("spec.subject", &spec.subject).and_then(|spec| cluster_subject(spec, report));
    let mode = stage::of_spec(spec.mode, &document.metadata, report);
    let rules = Rules { tier: &spec.tier, mode: &mode, ingress: &spec.ingress, egress: &spec.egress };
    let (tier, ingress, egress) = rules.validate(&Scope { namespace: None }, report);
    let policy = Policy {
        id: PolicyId { namespace: None, name, kind: PolicyKind::ClusterSegment },
        tier,
        order: spec.order.unwrap_or(DEFAULT_ORDER),
        mode,
        managed_by: managed_by(document.metadata.labels.get(MANAGED_BY_LABEL)),
        subject: subject?,
        egress,
        ingress,
    };
    Some(stage::without_rules_of_removal(policy, report))
}

/// The controller that a label names; an empty one names nobody.
fn managed_by(label: Option<&String>) -> Option<String> {
    label.filter(|name| !name.is_empty()).cloned()
}

fn cluster_subject(spec: &ClusterSubjectSpec, report: &mut Report) -> Option<Subject> {
    let namespaces = report.require("spec.subject.namespaceSelector", &spec.namespace_selector)?;
    let namespaces = namespaces.over_labels("spec.subject.namespaceSelector", report);
    let workloads = SelectorSpec {
        match_labels: spec.match_labels.clone(),
        match_expressions: spec.match_expressions.clone(),
    };
    let workloads = workloads.over_tags("spec.subject", report);
    Some(Subject { namespaces: NamespaceScope::Matching(namespaces), workloads })
}

/// What both kinds have in common.
struct Rules<'a> {
    tier: &'a Option<String>,
    mode: &'a PolicyMode,
    ingress: &'a Option<Vec<IngressRule>>,
    egress: &'a Option<Vec<EgressRule>>,
}

type RuleList = Option<Vec<crate::policy::Rule>>;

impl Rules<'_> {
    fn validate(&self, scope: &Scope<'_>, report: &mut Report) -> (String, RuleList, RuleList) {
        let removes = matches!(self.mode, PolicyMode::Stage(Some(Preview::Removes(_))));
        if self.ingress.is_none() && self.egress.is_none() && !removes {
            report.refuse("spec", "has neither ingress nor egress: it would do nothing");
        }
        let tier = self.tier.clone().unwrap_or_else(|| Tier::DEFAULT.to_owned());
        if tier == Tier::KUBERNETES {
            report.refuse("spec.tier", "kubernetes holds NetworkPolicy objects only");
        }
        let ingress = self.ingress.as_ref().map(|rules| ingress(rules, scope, report));
        let egress = self.egress.as_ref().map(|rules| egress(rules, scope, report));
        (tier, ingress, egress)
    }
}
