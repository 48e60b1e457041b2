//! Rules and peers of segment policies.

use std::collections::BTreeSet;

use enforcer_common::policy::Action;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ports::{self, SegmentPortSpec};
use super::report::Report;
use super::scalar::Cidr;
use super::selector::SelectorSpec;
use crate::fqdn::Pattern;
use crate::policy::{Entity, NamespaceScope, Peer, Peers, Ports, Rule, TagSelector};

/// A rule for flows towards the subject.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// Name of the rule.
    #[serde(default)]
    pub name: Option<String>,
    /// What it does.
    pub action: ActionSpec,
    /// Sources; all when absent.
    #[serde(default)]
    pub from: Option<Vec<PeerSpec>>,
    /// Ports; all when absent.
    #[serde(default)]
    pub ports: Option<Vec<SegmentPortSpec>>,
}

/// A rule for flows the subject begins.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Name of the rule.
    #[serde(default)]
    pub name: Option<String>,
    /// What it does.
    pub action: ActionSpec,
    /// Destinations; all when absent.
    #[serde(default)]
    pub to: Option<Vec<PeerSpec>>,
    /// Ports; all when absent.
    #[serde(default)]
    pub ports: Option<Vec<SegmentPortSpec>>,
    /// Not supported yet.
    #[serde(default)]
    pub dns: Option<IgnoredAny>,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum ActionSpec {
    /// Admit.
    Allow,
    /// Drop silently.
    Deny,
    /// Drop and tell the sender.
    Reject,
    /// Leave the tier.
    Pass,
}

/// One peer; exactly one form is given.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PeerSpec {
    /// Workloads by tags and namespaces.
    #[serde(default)]
    pub pods: Option<PodsSpec>,
    /// Addresses.
    #[serde(default)]
    pub cidr: Option<Cidr>,
    /// Exceptions from `cidr`.
    #[serde(default)]
    pub except: Option<Vec<Cidr>>,
    /// Names; egress only.
    #[serde(default)]
    pub fqdns: Option<Vec<Pattern>>,
    /// Workloads by service account.
    #[serde(default)]
    pub service_accounts: Option<Vec<ServiceAccountSpec>>,
    /// Kinds of addresses.
    #[serde(default)]
    pub entities: Option<Vec<EntitySpec>>,
    /// Not supported yet.
    #[serde(default)]
    pub zones: Option<IgnoredAny>,
    /// Not supported yet.
    #[serde(default)]
    pub external_networks: Option<IgnoredAny>,
    /// Not supported yet.
    #[serde(default)]
    pub services: Option<IgnoredAny>,
}

/// Workloads by tags and namespaces.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PodsSpec {
    /// Workloads by tags; all when absent.
    #[serde(default)]
    pub pod_selector: Option<SelectorSpec>,
    /// Namespaces by labels; the policy's own when absent.
    #[serde(default)]
    pub namespace_selector: Option<SelectorSpec>,
}

/// A service account.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountSpec {
    /// Its name.
    pub name: String,
    /// Its namespace; the policy's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// Kinds of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum EntitySpec {
    /// Outside the cluster.
    Internet,
    /// Inside the cluster.
    Cluster,
    /// This node.
    Host,
    /// Other nodes.
    RemoteNode,
    /// The API server; not supported yet.
    KubeApiServer,
    /// Everything.
    All,
}

/// Where a policy lives: what peers without a namespace mean.
pub(super) struct Scope<'a> {
    /// Its namespace; `None` for kinds that live in none.
    pub(super) namespace: Option<&'a str>,
}

/// The valid ingress rules.
pub(super) fn ingress(specs: &[IngressRule], scope: &Scope<'_>, report: &mut Report) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        let from = format!("{path}.from");
        for (index, _) in spec.from.iter().flatten().enumerate().filter(|(_, peer)| peer.fqdns.is_some()) {
            report.refuse(format!("{from}[{index}].fqdns"), "names are peers of egress rules only");
        }
        rules.push(Rule {
            name: spec.name.clone(),
            action: action(spec.action),
            peers: peers(&spec.from, scope, &from, report),
            ports: port_list(&spec.ports, &format!("{path}.ports"), report),
        });
    }
    rules
}

/// The valid egress rules.
pub(super) fn egress(specs: &[EgressRule], scope: &Scope<'_>, report: &mut Report) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        if spec.dns.is_some() {
            report.unsupported(format!("{path}.dns"), "ruling DNS queries");
        }
        let to = format!("{path}.to");
        let named = spec.to.iter().flatten().position(|peer| peer.fqdns.is_some());
        if let (ActionSpec::Pass, Some(index)) = (spec.action, named) {
            report.refuse(format!("{to}[{index}].fqdns"), "names take Allow, Deny and Reject, not Pass");
        }
        rules.push(Rule {
            name: spec.name.clone(),
            action: action(spec.action),
            peers: peers(&spec.to, scope, &to, report),
            ports: port_list(&spec.ports, &format!("{path}.ports"), report),
        });
    }
    rules
}

fn action(spec: ActionSpec) -> Action {
    match spec {
        ActionSpec::Allow => Action::Allow,
        ActionSpec::Deny => Action::Deny,
        ActionSpec::Reject => Action::Reject,
        ActionSpec::Pass => Action::Pass,
    }
}

fn port_list(specs: &Option<Vec<SegmentPortSpec>>, path: &str, report: &mut Report) -> Ports {
    let Some(specs) = specs else { return Ports::Any };
    refuse_empty(specs, path, "every port", report);
    let ports = specs.iter().enumerate();
    Ports::OneOf(
        ports.filter_map(|(index, spec)| ports::segment(spec, &format!("{path}[{index}]"), report)).collect(),
    )
}

fn peers(specs: &Option<Vec<PeerSpec>>, scope: &Scope<'_>, path: &str, report: &mut Report) -> Peers {
    let Some(specs) = specs else { return Peers::Any };
    refuse_empty(specs, path, "every peer", report);
    let mut peers = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        peer(spec, scope, &format!("{path}[{index}]"), report, &mut peers);
    }
    Peers::OneOf(peers)
}

fn refuse_empty<T>(list: &[T], path: &str, everything: &str, report: &mut Report) {
    if list.is_empty() {
        report.refuse(path, format!("is empty and would match nothing: leave it out to mean {everything}"));
    }
}

fn peer(spec: &PeerSpec, scope: &Scope<'_>, path: &str, report: &mut Report, peers: &mut Vec<Peer>) {
    let unsupported = [
        ("zones", spec.zones.is_some()),
        ("externalNetworks", spec.external_networks.is_some()),
        ("services", spec.services.is_some()),
    ];
    for (form, _) in unsupported.iter().filter(|(_, given)| *given) {
        report.unsupported(format!("{path}.{form}"), &format!("a peer given by {form}"));
    }
    let supported = [
        spec.pods.is_some(),
        spec.cidr.is_some(),
        spec.fqdns.is_some(),
        spec.service_accounts.is_some(),
        spec.entities.is_some(),
    ];
    let forms = unsupported.iter().map(|(_, given)| *given).chain(supported).filter(|given| *given).count();
    if forms != 1 {
        report.refuse(
            path,
            format!("gives {forms} forms: give exactly one of pods, cidr, fqdns, serviceAccounts, entities"),
        );
    }
    if spec.cidr.is_none() && spec.except.is_some() {
        report.refuse(format!("{path}.except"), "needs the cidr it is an exception from");
    }
    spec.pods.iter().for_each(|pods| peers.extend(workloads(pods, scope, &format!("{path}.pods"), report)));
    spec.cidr.iter().for_each(|cidr| peers.push(block(cidr, &spec.except, path, report)));
    accounts(&spec.service_accounts, scope, &format!("{path}.serviceAccounts"), report, peers);
    entities(&spec.entities, &format!("{path}.entities"), report, peers);
    if let Some(names) = &spec.fqdns {
        refuse_empty(names, &format!("{path}.fqdns"), "every name", report);
        peers.extend(names.iter().cloned().map(Peer::Name));
    }
}

fn workloads(spec: &PodsSpec, scope: &Scope<'_>, path: &str, report: &mut Report) -> Option<Peer> {
    if spec.pod_selector.is_none() && spec.namespace_selector.is_none() {
        report.refuse(path, "is empty: give podSelector, namespaceSelector or both");
        return None;
    }
    let namespaces = match (&spec.namespace_selector, scope.namespace) {
        (Some(selector), _) => {
            NamespaceScope::Matching(selector.over_labels(&format!("{path}.namespaceSelector"), report))
        }
        (None, Some(namespace)) => NamespaceScope::Named(namespace.to_owned()),
        (None, None) => {
            report.refuse(
                format!("{path}.namespaceSelector"),
                "is required in a cluster-wide policy: {} means every namespace",
            );
            return None;
        }
    };
    let workloads = match &spec.pod_selector {
        Some(selector) => selector.over_tags(&format!("{path}.podSelector"), report),
        None => TagSelector::everything(),
    };
    Some(Peer::Workloads { namespaces, workloads })
}

fn block(cidr: &Cidr, except: &Option<Vec<Cidr>>, path: &str, report: &mut Report) -> Peer {
    let mut check = |net: &Cidr, path: String| {
        let proper = net.0.trunc();
        if proper != net.0 {
            report.refuse(path, format!("{} has bits set beyond its length: write {proper}", net.0));
        }
        proper
    };
    let whole = check(cidr, format!("{path}.cidr"));
    let mut exceptions = BTreeSet::new();
    for (index, exception) in except.iter().flatten().enumerate() {
        exceptions.insert(check(exception, format!("{path}.except[{index}]")));
    }
    for (index, exception) in except.iter().flatten().enumerate() {
        let exception = exception.0.trunc();
        if !whole.contains(&exception) || whole == exception {
            report.refuse(
                format!("{path}.except[{index}]"),
                format!("{exception} is no smaller part of {whole}"),
            );
        }
    }
    Peer::Block { cidr: whole, except: exceptions }
}

fn accounts(
    specs: &Option<Vec<ServiceAccountSpec>>,
    scope: &Scope<'_>,
    path: &str,
    report: &mut Report,
    peers: &mut Vec<Peer>,
) {
    let Some(specs) = specs else { return };
    refuse_empty(specs, path, "every service account", report);
    for (index, spec) in specs.iter().enumerate() {
        match spec.namespace.as_deref().or(scope.namespace) {
            Some(namespace) => {
                peers.push(Peer::ServiceAccount { namespace: namespace.to_owned(), name: spec.name.clone() });
            }
            None => {
                report.refuse(format!("{path}[{index}].namespace"), "is required in a cluster-wide policy")
            }
        }
    }
}

fn entities(specs: &Option<Vec<EntitySpec>>, path: &str, report: &mut Report, peers: &mut Vec<Peer>) {
    let Some(specs) = specs else { return };
    refuse_empty(specs, path, "every address", report);
    for (index, spec) in specs.iter().enumerate() {
        match spec {
            EntitySpec::Internet => peers.push(Peer::Entity(Entity::Internet)),
            EntitySpec::Cluster => peers.push(Peer::Entity(Entity::Cluster)),
            EntitySpec::Host => peers.push(Peer::Entity(Entity::Host)),
            EntitySpec::RemoteNode => peers.push(Peer::Entity(Entity::RemoteNode)),
            EntitySpec::All => peers.push(Peer::Entity(Entity::All)),
            EntitySpec::KubeApiServer => report.unsupported(format!("{path}[{index}]"), "KubeApiServer"),
        }
    }
}
