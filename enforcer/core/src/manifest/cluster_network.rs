//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy, complete: tier, priority and subject.
//!
//! Source of the meaning and of the bounds: the API types and the generated schema (experimental channel) of the
//! Kubernetes network policy API, v1alpha2.

use serde::Deserialize;

use super::Document;
use super::cluster_network_rules::{EgressRule, IngressRule, egress, ingress};
use super::metadata::cluster_name;
use super::report::Report;
use super::selector::SelectorSpec;
use super::stage;
use crate::policy::{NamespaceScope, Policy, PolicyId, PolicyKind, Subject, TagSelector, Tier};

/// Highest priority number.
const MAX_PRIORITY: u32 = 1000;

/// Spec of a ClusterNetworkPolicy.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// Before or behind NetworkPolicy; required.
    #[serde(default)]
    pub tier: Option<TierName>,
    /// Place in the tier, 0 to 1000, lower first; required.
    #[serde(default)]
    pub priority: Option<i64>,
    /// The pods it selects; required.
    #[serde(default)]
    pub subject: Option<SubjectSpec>,
    /// Rules for flows towards the pods; absent and empty mean that it says nothing about them.
    #[serde(default)]
    pub ingress: Option<Vec<IngressRule>>,
    /// Rules for flows the pods begin; as `ingress`.
    #[serde(default)]
    pub egress: Option<Vec<EgressRule>>,
}

/// Tiers of the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum TierName {
    /// Asked before NetworkPolicy.
    Admin,
    /// Asked after NetworkPolicy.
    Baseline,
}

/// Pods by exactly one of the forms.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectSpec {
    /// All pods of these namespaces.
    #[serde(default)]
    pub namespaces: Option<SelectorSpec>,
    /// Some pods of these namespaces.
    #[serde(default)]
    pub pods: Option<NamespacedPods>,
}

/// Pods by their labels and those of their namespace.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NamespacedPods {
    /// Namespaces; all when absent or empty.
    #[serde(default)]
    pub namespace_selector: Option<SelectorSpec>,
    /// Pods; required, `{}` selects all.
    #[serde(default)]
    pub pod_selector: Option<SelectorSpec>,
}

/// The valid policy of a document.
pub(super) fn policy(document: &Document<ClusterNetworkPolicySpec>, report: &mut Report) -> Option<Policy> {
    let name = cluster_name(&document.metadata, report);
    let (name, spec) = name.zip(report.require("spec", &document.spec))?;
    let tier = report.require("spec.tier", &spec.tier);
    let order = report.require("spec.priority", &spec.priority).and_then(|wanted| priority(*wanted, report));
    let subject = report.require("spec.subject", &spec.subject).and_then(|spec| subject(spec, report));
    let ingress = ingress(spec.ingress.as_deref().unwrap_or_default(), report);
    let egress = egress(spec.egress.as_deref().unwrap_or_default(), report);
    let policy = Policy {
        id: PolicyId { namespace: None, name, kind: PolicyKind::ClusterNetwork },
        tier: match tier? {
            TierName::Admin => Tier::ADMIN.to_owned(),
            TierName::Baseline => Tier::BASELINE.to_owned(),
        },
        order: order?,
        mode: stage::of_annotation(&document.metadata, report),
        managed_by: None,
        subject: subject?,
        egress: (!egress.is_empty()).then_some(egress),
        ingress: (!ingress.is_empty()).then_some(ingress),
    };
    Some(stage::without_rules_of_removal(policy, report))
}

fn priority(wanted: i64, report: &mut Report) -> Option<u32> {
    let order = u32::try_from(wanted).ok().filter(|order| *order <= MAX_PRIORITY);
    if order.is_none() {
        report.refuse("spec.priority", format!("{wanted} is not from 0 to {MAX_PRIORITY}"));
    }
    order
}

fn subject(spec: &SubjectSpec, report: &mut Report) -> Option<Subject> {
    match (&spec.namespaces, &spec.pods) {
        (Some(selector), None) => {
            let namespaces = of_namespaces(selector, "spec.subject.namespaces", report);
            Some(Subject { namespaces, workloads: TagSelector::everything() })
        }
        (None, Some(pods)) => {
            let (namespaces, workloads) = of_pods(pods, "spec.subject.pods", report)?;
            Some(Subject { namespaces, workloads })
        }
        _ => {
            report.refuse("spec.subject", "give exactly one of namespaces and pods");
            None
        }
    }
}

/// The namespaces of a selector.
pub(super) fn of_namespaces(selector: &SelectorSpec, path: &str, report: &mut Report) -> NamespaceScope {
    NamespaceScope::Matching(selector.over_labels(path, report))
}

/// The namespaces and workloads of a pair of selectors.
pub(super) fn of_pods(
    spec: &NamespacedPods,
    path: &str,
    report: &mut Report,
) -> Option<(NamespaceScope, TagSelector)> {
    let everywhere = SelectorSpec::default();
    let namespaces = spec.namespace_selector.as_ref().unwrap_or(&everywhere);
    let namespaces = of_namespaces(namespaces, &format!("{path}.namespaceSelector"), report);
    let path = format!("{path}.podSelector");
    let pods = report.require(&path, &spec.pod_selector)?;
    Some((namespaces, pods.over_pod_labels(&path, report)))
}
