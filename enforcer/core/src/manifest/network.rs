//! `networking.k8s.io/v1` NetworkPolicy, complete.
//!
//! Source of the meaning: the Kubernetes API reference and the server's defaulting and validation of the kind.

use std::collections::BTreeSet;

use enforcer_common::policy::Action;
use serde::Deserialize;

use super::Document;
use super::metadata::namespaced_name;
use super::ports::{self, PortSpec};
use super::report::Report;
use super::scalar::Cidr;
use super::selector::SelectorSpec;
use super::stage;
use crate::policy::{
    NamespaceScope, Peer, Peers, Policy, PolicyId, PolicyKind, Ports, Rule, Subject, TagSelector, Tier,
};

/// Spec of a NetworkPolicy. Absent and empty lists mean the same, as for Kubernetes.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// The pods it selects; all of the namespace when absent or empty.
    #[serde(default)]
    pub pod_selector: Option<SelectorSpec>,
    /// Rules for flows towards the pods.
    #[serde(default)]
    pub ingress: Option<Vec<IngressRule>>,
    /// Rules for flows the pods begin.
    #[serde(default)]
    pub egress: Option<Vec<EgressRule>>,
    /// Directions it isolates; when absent `Ingress`, and `Egress` if there are egress rules.
    #[serde(default)]
    pub policy_types: Option<Vec<PolicyType>>,
}

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum PolicyType {
    /// Flows towards the pods.
    Ingress,
    /// Flows the pods begin.
    Egress,
}

/// A rule for flows towards the pods.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// Sources; all when absent or empty.
    #[serde(default)]
    pub from: Option<Vec<PeerSpec>>,
    /// Ports; all when absent or empty.
    #[serde(default)]
    pub ports: Option<Vec<PortSpec>>,
}

/// A rule for flows the pods begin.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Destinations; all when absent or empty.
    #[serde(default)]
    pub to: Option<Vec<PeerSpec>>,
    /// Ports; all when absent or empty.
    #[serde(default)]
    pub ports: Option<Vec<PortSpec>>,
}

/// One peer: a block, or pods by selectors.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PeerSpec {
    /// Pods of the policy's namespace, or of those that `namespaceSelector` matches.
    #[serde(default)]
    pub pod_selector: Option<SelectorSpec>,
    /// Namespaces.
    #[serde(default)]
    pub namespace_selector: Option<SelectorSpec>,
    /// Addresses.
    #[serde(default)]
    pub ip_block: Option<IpBlock>,
}

/// Addresses in a prefix but in none of the exceptions.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// The prefix.
    pub cidr: Cidr,
    /// Exceptions, each inside the prefix and smaller.
    #[serde(default)]
    pub except: Option<Vec<Cidr>>,
}

/// The valid policy of a document.
pub(super) fn policy(document: &Document<NetworkPolicySpec>, report: &mut Report) -> Option<Policy> {
    let (namespace, name) = namespaced_name(&document.metadata, report)?;
    let spec = document.spec.clone().unwrap_or_default();
    let workloads = match &spec.pod_selector {
        Some(selector) => selector.over_pod_labels("spec.podSelector", report),
        None => TagSelector::everything(),
    };
    let ingress = rules(
        &namespace,
        spec.ingress.iter().flatten().map(|r| (&r.from, &r.ports)),
        "ingress",
        "from",
        report,
    );
    let egress =
        rules(&namespace, spec.egress.iter().flatten().map(|r| (&r.to, &r.ports)), "egress", "to", report);
    let types = match &spec.policy_types {
        Some(types) if !types.is_empty() => types.clone(),
        _ if egress.is_empty() => vec![PolicyType::Ingress],
        _ => vec![PolicyType::Ingress, PolicyType::Egress],
    };
    let policy = Policy {
        id: PolicyId { namespace: Some(namespace.clone()), name, kind: PolicyKind::Network },
        tier: Tier::KUBERNETES.to_owned(),
        order: 0,
        mode: stage::of_annotation(&document.metadata, report),
        managed_by: None,
        subject: Subject { namespaces: NamespaceScope::Named(namespace), workloads },
        egress: types.contains(&PolicyType::Egress).then_some(egress),
        ingress: types.contains(&PolicyType::Ingress).then_some(ingress),
    };
    Some(stage::without_rules_of_removal(policy, report))
}

fn rules<'a>(
    namespace: &str,
    specs: impl Iterator<Item = (&'a Option<Vec<PeerSpec>>, &'a Option<Vec<PortSpec>>)>,
    list: &str,
    side: &str,
    report: &mut Report,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, (peer_specs, port_specs)) in specs.enumerate() {
        let path = format!("spec.{list}[{index}]");
        let (mut peers, mut entries) = (Vec::new(), Vec::new());
        for (index, spec) in peer_specs.iter().flatten().enumerate() {
            peers.extend(peer(namespace, spec, &format!("{path}.{side}[{index}]"), report));
            entries.resize(peers.len(), index);
        }
        let mut ports = Vec::new();
        for (index, spec) in port_specs.iter().flatten().enumerate() {
            ports.extend(ports::kubernetes(spec, &format!("{path}.ports[{index}]"), report));
        }
        let peers_written = peer_specs.iter().flatten().next().is_some();
        let ports_written = port_specs.iter().flatten().next().is_some();
        rules.push(Rule {
            name: None,
            action: Action::Allow,
            peers: if peers_written { Peers::OneOf(peers) } else { Peers::Any },
            entries,
            ports: if ports_written { Ports::OneOf(ports) } else { Ports::Any },
            queries: None,
            verifies_sni: false,
        });
    }
    rules
}

fn peer(namespace: &str, spec: &PeerSpec, path: &str, report: &mut Report) -> Option<Peer> {
    match (&spec.ip_block, &spec.pod_selector, &spec.namespace_selector) {
        (Some(ip_block), None, None) => Some(block(ip_block, &format!("{path}.ipBlock"), report)),
        (Some(_), _, _) => {
            report.refuse(format!("{path}.ipBlock"), "cannot stand beside podSelector or namespaceSelector");
            None
        }
        (None, None, None) => {
            report.refuse(path, "is empty: give podSelector, namespaceSelector or ipBlock");
            None
        }
        (None, pods, namespaces) => Some(Peer::Workloads {
            namespaces: match namespaces {
                Some(selector) => NamespaceScope::Matching(
                    selector.over_labels(&format!("{path}.namespaceSelector"), report),
                ),
                None => NamespaceScope::Named(namespace.to_owned()),
            },
            workloads: match pods {
                Some(selector) => selector.over_pod_labels(&format!("{path}.podSelector"), report),
                None => TagSelector::everything(),
            },
        }),
    }
}

fn block(spec: &IpBlock, path: &str, report: &mut Report) -> Peer {
    let cidr = spec.cidr.0.trunc();
    let mut except = BTreeSet::new();
    for (index, exception) in spec.except.iter().flatten().enumerate() {
        let exception = exception.0.trunc();
        if !cidr.contains(&exception) || cidr == exception {
            report.refuse(
                format!("{path}.except[{index}]"),
                format!("{exception} is no smaller part of {cidr}"),
            );
        }
        except.insert(exception);
    }
    Peer::Block { cidr, except }
}
