//! Rules, peers and protocols of ClusterNetworkPolicy. A peer or protocol of no known form is refused with its
//! object: nothing of it is taken for "everything" or "nothing".

use std::collections::BTreeSet;

use enforcer_common::policy::Action;
use serde::Deserialize;

use super::cluster_network::{NamespacedPods, of_namespaces, of_pods};
use super::report::Report;
use super::scalar::{Cidr, PortNumber, PortRef};
use super::selector::SelectorSpec;
use crate::fqdn::Pattern;
use crate::policy::{Peer, Peers, PortMatch, Ports, Rule, TagSelector};
use crate::protocol::Protocol;

/// Most entries of each list.
const MAX_LIST: usize = 25;
/// Most characters of a rule's name.
const MAX_NAME: usize = 100;

/// A rule for flows towards the pods.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// Name of the rule.
    #[serde(default)]
    pub name: Option<String>,
    /// What it does.
    pub action: ActionSpec,
    /// Sources; required.
    #[serde(default)]
    pub from: Option<Vec<IngressPeer>>,
    /// Protocols and ports; all when absent.
    #[serde(default)]
    pub protocols: Option<Vec<ProtocolSpec>>,
}

/// A rule for flows the pods begin.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Name of the rule.
    #[serde(default)]
    pub name: Option<String>,
    /// What it does.
    pub action: ActionSpec,
    /// Destinations; required.
    #[serde(default)]
    pub to: Option<Vec<EgressPeer>>,
    /// Protocols and ports; all when absent.
    #[serde(default)]
    pub protocols: Option<Vec<ProtocolSpec>>,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum ActionSpec {
    /// Admit.
    Accept,
    /// Drop silently.
    Deny,
    /// Leave the tier.
    Pass,
}

/// A source; exactly one form is given.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressPeer {
    /// All pods of these namespaces.
    #[serde(default)]
    pub namespaces: Option<SelectorSpec>,
    /// Some pods of these namespaces.
    #[serde(default)]
    pub pods: Option<NamespacedPods>,
}

/// A destination; exactly one form is given.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EgressPeer {
    /// All pods of these namespaces.
    #[serde(default)]
    pub namespaces: Option<SelectorSpec>,
    /// Some pods of these namespaces.
    #[serde(default)]
    pub pods: Option<NamespacedPods>,
    /// Nodes by label; `{}` selects all.
    #[serde(default)]
    pub nodes: Option<SelectorSpec>,
    /// Addresses.
    #[serde(default)]
    pub networks: Option<Vec<Cidr>>,
    /// Names: exact, or with a leading `*.`.
    #[serde(default)]
    pub domain_names: Option<Vec<Pattern>>,
}

/// Protocol and port; exactly one form is given.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProtocolSpec {
    /// TCP.
    #[serde(default)]
    pub tcp: Option<CarrierSpec>,
    /// UDP.
    #[serde(default)]
    pub udp: Option<CarrierSpec>,
    /// SCTP.
    #[serde(default)]
    pub sctp: Option<CarrierSpec>,
    /// The port that a pod gives this name to, whatever its protocol.
    #[serde(default)]
    pub destination_named_port: Option<PortRef>,
}

/// Ports of one protocol.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CarrierSpec {
    /// Ports; required.
    #[serde(default)]
    pub destination_port: Option<PortsSpec>,
}

/// Ports; exactly one form is given.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortsSpec {
    /// One port.
    #[serde(default)]
    pub number: Option<PortNumber>,
    /// Several.
    #[serde(default)]
    pub range: Option<RangeSpec>,
}

/// A range of ports.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeSpec {
    /// First port.
    pub start: PortNumber,
    /// Last port, higher than the first.
    pub end: PortNumber,
}

/// The valid ingress rules.
pub(super) fn ingress(specs: &[IngressRule], report: &mut Report) -> Vec<Rule> {
    most(specs, "spec.ingress", report);
    let each = specs.iter().enumerate().map(|(index, spec)| {
        let path = format!("spec.ingress[{index}]");
        let from = list(&spec.from, &format!("{path}.from"), report);
        let mut peers = Written::default();
        for (index, peer) in from.iter().enumerate() {
            let as_egress = EgressPeer {
                namespaces: peer.namespaces.clone(),
                pods: peer.pods.clone(),
                nodes: None,
                networks: None,
                domain_names: None,
            };
            let known = "namespaces, pods";
            add_peer(&as_egress, known, &format!("{path}.from[{index}]"), report, &mut peers.peers);
            peers.entries.resize(peers.peers.len(), index);
        }
        rule(&spec.name, spec.action, peers, &spec.protocols, &path, report)
    });
    each.collect()
}

/// Peers, and the entry that each is of.
#[derive(Default)]
struct Written {
    peers: Vec<Peer>,
    entries: Vec<usize>,
}

/// The valid egress rules.
pub(super) fn egress(specs: &[EgressRule], report: &mut Report) -> Vec<Rule> {
    most(specs, "spec.egress", report);
    let each = specs.iter().enumerate().map(|(index, spec)| {
        let path = format!("spec.egress[{index}]");
        let to = list(&spec.to, &format!("{path}.to"), report);
        let mut peers = Written::default();
        for (index, peer) in to.iter().enumerate() {
            let path = format!("{path}.to[{index}]");
            let known = "namespaces, pods, nodes, networks, domainNames";
            add_peer(peer, known, &path, report, &mut peers.peers);
            peers.entries.resize(peers.peers.len(), index);
            if peer.domain_names.is_some() && spec.action != ActionSpec::Accept {
                let reason = "names take Accept only: a SegmentPolicy can deny and reject them";
                report.refuse(format!("{path}.domainNames"), reason);
            }
        }
        refuse_nameless_ports(spec, &path, report);
        rule(&spec.name, spec.action, peers, &spec.protocols, &path, report)
    });
    each.collect()
}

/// Refuses ports by name beside peers whose ports have none.
fn refuse_nameless_ports(spec: &EgressRule, path: &str, report: &mut Report) {
    let nameless =
        |peer: &EgressPeer| peer.nodes.is_some() || peer.networks.is_some() || peer.domain_names.is_some();
    let named = |protocol: &ProtocolSpec| protocol.destination_named_port.is_some();
    let place = spec.protocols.iter().flatten().position(named);
    if let Some(index) = place.filter(|_| spec.to.iter().flatten().any(nameless)) {
        report.refuse(
            format!("{path}.protocols[{index}].destinationNamedPort"),
            "nodes, networks and domainNames have no named ports: give the port by number",
        );
    }
}

fn rule(
    name: &Option<String>,
    action: ActionSpec,
    peers: Written,
    protocols: &Option<Vec<ProtocolSpec>>,
    path: &str,
    report: &mut Report,
) -> Rule {
    if name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME) {
        report.refuse(format!("{path}.name"), format!("is longer than {MAX_NAME} characters"));
    }
    Rule {
        name: name.clone().filter(|name| !name.is_empty()),
        action: match action {
            ActionSpec::Accept => Action::Allow,
            ActionSpec::Deny => Action::Deny,
            ActionSpec::Pass => Action::Pass,
        },
        peers: Peers::OneOf(peers.peers),
        entries: peers.entries,
        ports: match protocols {
            None => Ports::Any,
            Some(_) => Ports::OneOf(ports(protocols, &format!("{path}.protocols"), report)),
        },
        queries: None,
        verifies_sni: false,
    }
}

/// The entries of a list that must have some.
fn list<'a, T>(list: &'a Option<Vec<T>>, path: &str, report: &mut Report) -> &'a [T] {
    let entries = list.as_deref().unwrap_or_default();
    if entries.is_empty() {
        report.refuse(path, "needs at least one entry");
    }
    most(entries, path, report);
    entries
}

fn most<T>(entries: &[T], path: &str, report: &mut Report) {
    if entries.len() > MAX_LIST {
        report.refuse(path, format!("has {} entries: {MAX_LIST} are the most", entries.len()));
    }
}

fn add_peer(spec: &EgressPeer, known: &str, path: &str, report: &mut Report, peers: &mut Vec<Peer>) {
    let forms = [
        spec.namespaces.is_some(),
        spec.pods.is_some(),
        spec.nodes.is_some(),
        spec.networks.is_some(),
        spec.domain_names.is_some(),
    ];
    let forms = forms.iter().filter(|given| **given).count();
    if forms != 1 {
        report.refuse(path, format!("gives {forms} forms: give exactly one of {known}"));
    }
    if let Some(selector) = &spec.namespaces {
        let namespaces = of_namespaces(selector, &format!("{path}.namespaces"), report);
        peers.push(Peer::Workloads { namespaces, workloads: TagSelector::everything() });
    }
    if let Some(pods) = &spec.pods {
        let found = of_pods(pods, &format!("{path}.pods"), report);
        peers.extend(found.map(|(namespaces, workloads)| Peer::Workloads { namespaces, workloads }));
    }
    if let Some(selector) = &spec.nodes {
        peers.push(Peer::Nodes(selector.over_labels(&format!("{path}.nodes"), report)));
    }
    if spec.networks.is_some() {
        let blocks = list(&spec.networks, &format!("{path}.networks"), report).iter();
        peers.extend(blocks.map(|cidr| Peer::Block { cidr: cidr.0.trunc(), except: BTreeSet::new() }));
    }
    if spec.domain_names.is_some() {
        let path = format!("{path}.domainNames");
        for (index, name) in list(&spec.domain_names, &path, report).iter().enumerate() {
            check_name(name, &format!("{path}[{index}]"), report);
            peers.push(Peer::Name(name.clone()));
        }
    }
}

/// Refuses names that are patterns for us but not for this kind.
fn check_name(name: &Pattern, path: &str, report: &mut Report) {
    let text = name.as_str();
    let rest = text.strip_prefix("*.").unwrap_or(text);
    if rest.contains('*') {
        report.refuse(path, format!("{text:?}: an asterisk stands alone, as the first label"));
    }
    if !rest.contains('.') {
        report.refuse(path, format!("{text:?} needs two labels at least, not counting the asterisk"));
    }
}

fn ports(specs: &Option<Vec<ProtocolSpec>>, path: &str, report: &mut Report) -> Vec<PortMatch> {
    let mut ports = Vec::new();
    for (index, spec) in list(specs, path, report).iter().enumerate() {
        add_ports(spec, &format!("{path}[{index}]"), report, &mut ports);
    }
    ports
}

fn add_ports(spec: &ProtocolSpec, path: &str, report: &mut Report, ports: &mut Vec<PortMatch>) {
    let carriers = [
        (Protocol::TCP, "tcp", &spec.tcp),
        (Protocol::UDP, "udp", &spec.udp),
        (Protocol::SCTP, "sctp", &spec.sctp),
    ];
    let given = carriers.iter().filter(|(_, _, carrier)| carrier.is_some()).count();
    let forms = given + usize::from(spec.destination_named_port.is_some());
    if forms != 1 {
        let known = "tcp, udp, sctp, destinationNamedPort";
        report.refuse(path, format!("gives {forms} forms: give exactly one of {known}"));
    }
    for (protocol, field, carrier) in carriers {
        let Some(carrier) = carrier else { continue };
        let path = format!("{path}.{field}.destinationPort");
        let wanted = report.require(&path, &carrier.destination_port);
        ports.extend(wanted.and_then(|wanted| range(wanted, protocol, &path, report)));
    }
    match &spec.destination_named_port {
        Some(PortRef::Name(name)) => {
            let named = |(protocol, _, _)| PortMatch::Named { protocol, name: name.clone() };
            ports.extend(carriers.map(named));
        }
        Some(PortRef::Number(number)) => {
            report
                .refuse(format!("{path}.destinationNamedPort"), format!("{number} is a number, not a name"));
        }
        None => {}
    }
}

fn range(spec: &PortsSpec, protocol: Protocol, path: &str, report: &mut Report) -> Option<PortMatch> {
    let (first, last) = match (spec.number, &spec.range) {
        (Some(number), None) => (number.0, number.0),
        (None, Some(range)) if range.start.0 < range.end.0 => (range.start.0, range.end.0),
        (None, Some(range)) => {
            let reason = format!("{} is not above the start, {}", range.end.0, range.start.0);
            report.refuse(format!("{path}.range.end"), reason);
            return None;
        }
        _ => {
            report.refuse(path, "give exactly one of number and range");
            return None;
        }
    };
    Some(PortMatch::Range { protocol, first, last })
}
