//! Peers of segment policies: each entry of a list has exactly one form.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use super::report::Report;
use super::scalar::Cidr;
use super::selector::{SelectorSpec, check_label_value};
use crate::fqdn::Pattern;
use crate::policy::{
    Entity, ExternalNetworks, LabelSelector, NamespaceScope, Peer, Peers, Requirement, Tag, TagSelector, Test,
};

/// One peer; exactly one form is given.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["pods"]}, {"required": ["zones"]}, {"required": ["cidr"]}, {"required": ["fqdns"]},
    {"required": ["externalNetworks"]}, {"required": ["services"]}, {"required": ["serviceAccounts"]},
    {"required": ["entities"]},
], "x-kubernetes-validations" = [
    {"rule": "!has(self.except) || has(self.cidr)",
     "message": "except needs the cidr it is an exception from: give both, or neither"},
    {"rule": "!has(self.verifySNI) || has(self.fqdns)",
     "message": "verifySNI needs the fqdns it is about: give both, or neither"},
]))]
pub struct PeerSpec {
    /// Workloads by tags and namespaces.
    #[serde(default)]
    pub pods: Option<PodsSpec>,
    /// Workloads by zone.
    #[serde(default)]
    pub zones: Option<Vec<String>>,
    /// Addresses.
    #[serde(default)]
    pub cidr: Option<Cidr>,
    /// Exceptions from `cidr`.
    #[serde(default)]
    pub except: Option<Vec<Cidr>>,
    /// Names; egress only.
    #[serde(default)]
    pub fqdns: Option<Vec<Pattern>>,
    /// With `fqdns`: whether connections must begin with a TLS ClientHello that names one of them.
    #[serde(default, rename = "verifySNI")]
    pub verify_sni: Option<bool>,
    /// Addresses and names of ExternalNetwork objects.
    #[serde(default)]
    pub external_networks: Option<ExternalNetworksSpec>,
    /// Endpoints of services.
    #[serde(default)]
    pub services: Option<Vec<NameSpec>>,
    /// Workloads by service account.
    #[serde(default)]
    pub service_accounts: Option<Vec<NameSpec>>,
    /// Kinds of addresses.
    #[serde(default)]
    pub entities: Option<Vec<Entity>>,
}

/// Workloads by tags and namespaces.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PodsSpec {
    /// Workloads by tags; all when absent.
    #[serde(default)]
    pub pod_selector: Option<SelectorSpec>,
    /// Namespaces by labels; the policy's own when absent.
    #[serde(default)]
    pub namespace_selector: Option<SelectorSpec>,
}

/// ExternalNetwork objects by exactly one of the forms.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalNetworksSpec {
    /// By name.
    #[serde(default)]
    pub names: Option<BTreeSet<String>>,
    /// By labels; `{}` selects all.
    #[serde(default)]
    pub selector: Option<SelectorSpec>,
}

/// A namespaced object by name.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameSpec {
    /// Its name.
    pub name: String,
    /// Its namespace; the policy's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// Where a policy lives: what peers without a namespace mean.
pub(super) struct Scope<'a> {
    /// Its namespace; `None` for kinds that live in none.
    pub(super) namespace: Option<&'a str>,
}

/// The valid peers of a list, and the entry that each is of.
pub(super) fn peers(
    specs: &Option<Vec<PeerSpec>>,
    scope: &Scope<'_>,
    path: &str,
    report: &mut Report,
) -> (Peers, Vec<usize>) {
    let Some(specs) = specs else { return (Peers::Any, Vec::new()) };
    refuse_empty(specs, path, "every peer", report);
    let (mut peers, mut entries) = (Vec::new(), Vec::new());
    for (index, spec) in specs.iter().enumerate() {
        peer(spec, scope, &format!("{path}[{index}]"), report, &mut peers);
        entries.resize(peers.len(), index);
    }
    (Peers::OneOf(peers), entries)
}

/// Refuses a list that is given and empty.
pub(super) fn refuse_empty<T>(list: &[T], path: &str, everything: &str, report: &mut Report) {
    if list.is_empty() {
        report.refuse(path, format!("is empty and would match nothing: leave it out to mean {everything}"));
    }
}

fn peer(spec: &PeerSpec, scope: &Scope<'_>, path: &str, report: &mut Report, peers: &mut Vec<Peer>) {
    let forms = [
        ("pods", spec.pods.is_some()),
        ("zones", spec.zones.is_some()),
        ("cidr", spec.cidr.is_some()),
        ("fqdns", spec.fqdns.is_some()),
        ("externalNetworks", spec.external_networks.is_some()),
        ("services", spec.services.is_some()),
        ("serviceAccounts", spec.service_accounts.is_some()),
        ("entities", spec.entities.is_some()),
    ];
    let given = forms.iter().filter(|(_, given)| *given).count();
    if given != 1 {
        let known = forms.map(|(form, _)| form).join(", ");
        report.refuse(path, format!("gives {given} forms: give exactly one of {known}"));
    }
    if spec.cidr.is_none() && spec.except.is_some() {
        report.refuse(format!("{path}.except"), "needs the cidr it is an exception from");
    }
    if spec.fqdns.is_none() && spec.verify_sni.is_some() {
        report.refuse(format!("{path}.verifySNI"), "needs the fqdns it is about");
    }
    spec.pods.iter().for_each(|pods| peers.extend(workloads(pods, scope, &format!("{path}.pods"), report)));
    zones(&spec.zones, &format!("{path}.zones"), report, peers);
    spec.cidr.iter().for_each(|cidr| peers.push(block(cidr, &spec.except, path, report)));
    if let Some(names) = &spec.fqdns {
        refuse_empty(names, &format!("{path}.fqdns"), "every name", report);
        peers.extend(names.iter().cloned().map(Peer::Name));
    }
    if let Some(networks) = &spec.external_networks {
        peers.extend(external_networks(networks, &format!("{path}.externalNetworks"), report));
    }
    for (namespace, name) in named(&spec.services, scope, &format!("{path}.services"), report) {
        peers.push(Peer::Service { namespace, name });
    }
    for (namespace, name) in named(&spec.service_accounts, scope, &format!("{path}.serviceAccounts"), report)
    {
        peers.push(Peer::ServiceAccount { namespace, name });
    }
    if let Some(entities) = &spec.entities {
        refuse_empty(entities, &format!("{path}.entities"), "every address", report);
        peers.extend(entities.iter().copied().map(Peer::Entity));
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

/// Zones are workloads anywhere whose zone is one of them.
fn zones(zones: &Option<Vec<String>>, path: &str, report: &mut Report, peers: &mut Vec<Peer>) {
    let Some(zones) = zones else { return };
    refuse_empty(zones, path, "every zone", report);
    for (index, zone) in zones.iter().enumerate() {
        let complaint = check_label_value(zone).or(zone.is_empty().then(|| "is empty".to_owned()));
        complaint.into_iter().for_each(|reason| report.refuse(format!("{path}[{index}]"), reason));
    }
    let test = Test::In(zones.iter().cloned().collect());
    let workloads = TagSelector { requirements: BTreeSet::from([Requirement { key: Tag::Zone, test }]) };
    peers.push(Peer::Workloads {
        namespaces: NamespaceScope::Matching(LabelSelector::everything()),
        workloads,
    });
}

fn block(cidr: &Cidr, except: &Option<Vec<Cidr>>, path: &str, report: &mut Report) -> Peer {
    let whole = cidr.exact(&format!("{path}.cidr"), report);
    let mut exceptions = BTreeSet::new();
    for (index, exception) in except.iter().flatten().enumerate() {
        let path = format!("{path}.except[{index}]");
        let exception = exception.exact(&path, report);
        if !whole.contains(&exception) || whole == exception {
            report.refuse(path, format!("{exception} is no smaller part of {whole}"));
        }
        exceptions.insert(exception);
    }
    Peer::Block { cidr: whole, except: exceptions }
}

fn external_networks(spec: &ExternalNetworksSpec, path: &str, report: &mut Report) -> Option<Peer> {
    let networks = match (&spec.names, &spec.selector) {
        (Some(names), None) => {
            if names.is_empty() {
                report.refuse(format!("{path}.names"), "is empty: selector {} means every external network");
            }
            ExternalNetworks::Named(names.clone())
        }
        (None, Some(selector)) => {
            ExternalNetworks::Matching(selector.over_labels(&format!("{path}.selector"), report))
        }
        _ => {
            report.refuse(path, "give exactly one of names and selector");
            return None;
        }
    };
    Some(Peer::ExternalNetworks(networks))
}

/// Namespace and name of each entry.
fn named(
    specs: &Option<Vec<NameSpec>>,
    scope: &Scope<'_>,
    path: &str,
    report: &mut Report,
) -> Vec<(String, String)> {
    let Some(specs) = specs else { return Vec::new() };
    if specs.is_empty() {
        report.refuse(path, "is empty and would match nothing: name one");
    }
    let mut names = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        match spec.namespace.as_deref().or(scope.namespace) {
            Some(namespace) => names.push((namespace.to_owned(), spec.name.clone())),
            None => {
                report.refuse(format!("{path}[{index}].namespace"), "is required in a cluster-wide policy");
            }
        }
    }
    names
}
