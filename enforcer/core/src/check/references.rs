//! References that lead nowhere: namespaces, workloads, ports and tiers that nobody knows. What is not known at all (a
//! tree without workloads) is not taken for absent.

use std::collections::BTreeSet;
use std::sync::Arc;

use enforcer_common::decide::Direction;

use super::cover::means_workload;
use super::place::{DIRECTIONS, field, peer_field};
use super::spans::addresses;
use super::{Code, Finding, subject_field};
use crate::object::{ExternalNetwork, Namespace, Workload};
use crate::policy::{ExternalNetworks, NamespaceScope, Peer, Peers, Policy, PortMatch, Ports, Rule, Test};
use crate::reference;
use crate::refusal::ObjectRef;
use crate::snapshot::Snapshot;
use crate::words;

/// Everything that leads nowhere.
pub(super) fn check(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    if snapshot.workloads.is_empty() && !snapshot.policies.is_empty() {
        findings.push(not_checked());
    }
    let namespaces = namespaces(snapshot);
    for policy in snapshot.policies.values() {
        findings.extend(of_namespace(&namespaces, policy));
        let selected: Vec<&Workload> = snapshot
            .workloads
            .values()
            .map(Arc::as_ref)
            .filter(|workload| reference::selects(snapshot, &policy.subject, workload))
            .collect();
        if selected.is_empty() && !snapshot.workloads.is_empty() {
            let message = format!("it selects no known workload: {}", words::subject(&policy.subject));
            let remedy = "correct the selector, or list the workload";
            let field = subject_field(policy);
            findings.push(Finding::new(Code::SelectsNothing, policy, field, message, remedy));
        }
        for direction in DIRECTIONS {
            for (index, rule) in reference::rules(policy, direction).into_iter().flatten().enumerate() {
                let at = |code, field: String, message, remedy: &str| Finding {
                    rule: Some(reference::info(policy, direction, index, rule)),
                    ..Finding::new(code, policy, field, message, remedy)
                };
                findings.extend(peers(snapshot, &namespaces, rule).map(|(peer, code, text, remedy)| {
                    at(code, peer_field(direction, index, rule, peer), text, remedy)
                }));
                findings.extend(ports(snapshot, direction, &selected, rule).map(|port| {
                    let message = format!("no workload that could answer has a port {port}");
                    let remedy = "correct the name, or give the port to the workload";
                    at(Code::UnknownPort, field(direction, index), message, remedy)
                }));
            }
        }
    }
    findings.extend(tiers(snapshot));
    findings.extend(networks(snapshot));
    findings
}

fn not_checked() -> Finding {
    Finding {
        code: Code::NotChecked,
        object: None,
        field: String::new(),
        message: "no workloads are known: what selectors and port names match was not looked at".to_owned(),
        remedy: "name a list of workloads with --workloads".to_owned(),
        rule: None,
        because: Vec::new(),
    }
}

/// The namespaces that are known; `None` when none is.
fn namespaces(snapshot: &Snapshot) -> Option<BTreeSet<&str>> {
    let written = snapshot.namespaces.keys().map(String::as_str);
    let lived_in = snapshot.workloads.keys().map(|id| id.namespace.as_str());
    let known: BTreeSet<&str> = written.chain(lived_in).collect();
    (!known.is_empty()).then_some(known)
}

fn of_namespace(known: &Option<BTreeSet<&str>>, policy: &Policy) -> Option<Finding> {
    let namespace = policy.id.namespace.as_deref()?;
    let is_missing = known.as_ref().is_some_and(|known| !known.contains(namespace));
    let message = format!("there is no namespace {namespace:?}");
    let remedy = "correct it, or add the Namespace to the tree";
    is_missing.then(|| Finding::new(Code::MissingNamespace, policy, "metadata.namespace", message, remedy))
}

/// What is wrong with the peers of a rule, by index.
fn peers<'a>(
    snapshot: &'a Snapshot,
    known: &'a Option<BTreeSet<&str>>,
    rule: &'a Rule,
) -> impl Iterator<Item = (usize, Code, String, &'static str)> + 'a {
    let peers = match &rule.peers {
        Peers::Any => &[],
        Peers::OneOf(peers) => peers.as_slice(),
    };
    peers.iter().enumerate().filter_map(move |(index, peer)| {
        if let (Some(name), Some(known)) = (named_namespace(peer), known)
            && !known.contains(name)
        {
            let message = format!("there is no namespace {name:?}: {}", words::peer(peer));
            let remedy = "correct it, or add the Namespace to the tree";
            return Some((index, Code::MissingNamespace, message, remedy));
        }
        let is_empty = match peer {
            Peer::Workloads { .. } | Peer::ServiceAccount { .. } => {
                let mut workloads = snapshot.workloads.values();
                !snapshot.workloads.is_empty()
                    && !workloads.any(|workload| means_workload(snapshot, peer, workload))
            }
            peer => addresses(peer).is_some_and(|addresses| addresses.is_empty()),
        };
        let message = || format!("nobody known is meant by {}", words::peer(peer));
        is_empty.then(|| (index, Code::MatchesNothing, message(), "correct the peer, or list the workload"))
    })
}

/// The one namespace by whose name a peer asks for workloads.
fn named_namespace(peer: &Peer) -> Option<&str> {
    match peer {
        Peer::ServiceAccount { namespace, .. }
        | Peer::Workloads { namespaces: NamespaceScope::Named(namespace), .. } => Some(namespace),
        Peer::Workloads { namespaces: NamespaceScope::Matching(selector), .. } => {
            let by_name = selector.requirements.iter().find(|r| r.key == Namespace::NAME_LABEL)?;
            match &by_name.test {
                Test::In(values) if values.len() == 1 => values.first().map(String::as_str),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The ports by name that no workload has which could answer.
fn ports<'a>(
    snapshot: &'a Snapshot,
    direction: Direction,
    selected: &'a [&'a Workload],
    rule: &'a Rule,
) -> impl Iterator<Item = String> + 'a {
    let ports = match &rule.ports {
        Ports::Any => &[],
        Ports::OneOf(ports) => ports.as_slice(),
    };
    let has = |workload: &Workload, port: &PortMatch| match port {
        PortMatch::Named { protocol, name } => {
            workload.ports.iter().any(|own| own.protocol == *protocol && own.name == *name)
        }
        _ => true,
    };
    ports.iter().filter_map(move |port| {
        let is_known = match direction {
            Direction::Ingress => selected.is_empty() || selected.iter().any(|workload| has(workload, port)),
            Direction::Egress => {
                snapshot.workloads.is_empty()
                    || snapshot.workloads.values().any(|workload| has(workload, port))
            }
        };
        (!is_known).then(|| words::port(port))
    })
}

/// External networks that no peer means.
fn networks(snapshot: &Snapshot) -> impl Iterator<Item = Finding> {
    let rules =
        snapshot.policies.values().flat_map(|policy| [&policy.egress, &policy.ingress]).flatten().flatten();
    let peers = rules.flat_map(|rule| match &rule.peers {
        Peers::Any => &[],
        Peers::OneOf(peers) => peers.as_slice(),
    });
    let meant: Vec<&ExternalNetworks> = peers
        .filter_map(|peer| match peer {
            Peer::ExternalNetworks(networks) => Some(networks),
            _ => None,
        })
        .collect();
    let is_meant = move |network: &&ExternalNetwork| {
        meant.iter().any(|networks| match networks {
            ExternalNetworks::Named(names) => names.contains(&network.name),
            ExternalNetworks::Matching(selector) => selector.matches(|key| network.label(key)),
        })
    };
    let unused = snapshot.external_networks.values().filter(move |network| !is_meant(network));
    unused.map(|network| {
        unused_object(Code::UnusedNetwork, "ExternalNetwork", &network.name, "no peer means this network")
    })
}

/// Tiers of the tree in which no policy is.
fn tiers(snapshot: &Snapshot) -> impl Iterator<Item = Finding> {
    let used: BTreeSet<&str> = snapshot.policies.values().map(|policy| policy.tier.as_str()).collect();
    let unused = snapshot.tiers.keys().filter(move |name| !used.contains(name.as_str()));
    unused.map(|name| unused_object(Code::UnusedTier, "Tier", name, "no policy is in this tier"))
}

fn unused_object(code: Code, kind: &str, name: &str, message: &str) -> Finding {
    Finding {
        code,
        object: Some(ObjectRef { kind: kind.to_owned(), namespace: None, name: name.to_owned() }),
        field: String::new(),
        message: message.to_owned(),
        remedy: "take it out if nobody will use it".to_owned(),
        rule: None,
        because: Vec::new(),
    }
}
