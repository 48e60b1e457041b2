//! Puts addresses, names and workloads in place of peers that are given by other objects, as these are at this
//! moment: what comes behind knows no nodes, services and external networks. A policy without such peers stays the
//! same value.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::policy::Action;
use ipnet::IpNet;

use super::frontends::Key;
use crate::object::{ExternalNetwork, ServiceEndpoints};
use crate::plan;
use crate::policy::{
    Entity, ExternalNetworks, NamespaceScope, Peer, Peers, Policy, Requirement, Rule, Tag, TagSelector, Test,
};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// The policies of a snapshot, lowered. A reference to what is not there means nobody and is refused.
pub(super) fn lower(snapshot: &Snapshot, refused: &mut Vec<Refusal>) -> Vec<Arc<Policy>> {
    snapshot.policies.values().map(|policy| lower_policy(snapshot, policy, refused)).collect()
}

/// The services that policies speak of by name, whether they are there or not.
pub(super) fn named_services(snapshot: &Snapshot) -> BTreeSet<Key> {
    let rules = snapshot.policies.values().flat_map(|policy| [&policy.egress, &policy.ingress]);
    let peers = rules.flatten().flatten().filter_map(|rule| match &rule.peers {
        Peers::OneOf(peers) => Some(peers),
        Peers::Any => None,
    });
    let named = peers.flatten().filter_map(|peer| match peer {
        Peer::Service { namespace, name } => Some((namespace.clone(), name.clone())),
        Peer::Entity(Entity::KubeApiServer) => Some(api_server()),
        _ => None,
    });
    named.collect()
}

/// The service of the cluster's API.
fn api_server() -> Key {
    ("default".to_owned(), "kubernetes".to_owned())
}

fn lower_policy(snapshot: &Snapshot, policy: &Arc<Policy>, refused: &mut Vec<Refusal>) -> Arc<Policy> {
    let rules = || [&policy.egress, &policy.ingress].into_iter().flatten().flatten();
    if !rules().any(needs_lowering) {
        return Arc::clone(policy);
    }
    let mut lowered = Policy::clone(policy);
    for direction in [Direction::Egress, Direction::Ingress] {
        let (rules, side) = match direction {
            Direction::Egress => (&mut lowered.egress, "to"),
            Direction::Ingress => (&mut lowered.ingress, "from"),
        };
        for (index, rule) in rules.iter_mut().flatten().enumerate() {
            let mut complaints = Vec::new();
            lower_rule(snapshot, rule, direction, &mut complaints);
            refused.extend(complaints.into_iter().map(|(entry, reason)| Refusal {
                object: policy.id.object(),
                field: format!("spec.{}[{index}].{side}[{entry}]", plan::text(direction)),
                reason,
            }));
        }
    }
    lowered.into()
}

fn needs_lowering(rule: &Rule) -> bool {
    matches!(&rule.peers, Peers::OneOf(peers) if peers.iter().any(is_given_by_objects))
}

fn is_given_by_objects(peer: &Peer) -> bool {
    matches!(
        peer,
        Peer::Nodes(_)
            | Peer::Service { .. }
            | Peer::ExternalNetworks(_)
            | Peer::Entity(Entity::KubeApiServer)
    )
}

/// Lowers the peers of a rule; what there is to complain about goes with the entry it is about.
fn lower_rule(
    snapshot: &Snapshot,
    rule: &mut Rule,
    direction: Direction,
    complaints: &mut Vec<(usize, String)>,
) {
    let Peers::OneOf(peers) = &mut rule.peers else { return };
    let mut entries = Vec::new();
    for (index, peer) in std::mem::take(peers).into_iter().enumerate() {
        let entry = rule.entries.get(index).copied().unwrap_or(index);
        let mut said = Vec::new();
        lower_peer(snapshot, peer, (direction, rule.action), peers, &mut said);
        entries.resize(peers.len(), entry);
        complaints.extend(said.into_iter().map(|reason| (entry, reason)));
    }
    rule.entries = entries;
}

/// Lowers one peer of a rule of this direction and action.
fn lower_peer(
    snapshot: &Snapshot,
    peer: Peer,
    (direction, action): (Direction, Action),
    peers: &mut Vec<Peer>,
    complaints: &mut Vec<String>,
) {
    match peer {
        Peer::Nodes(selector) => {
            let nodes = snapshot.nodes.values();
            let selected = nodes.filter(|node| selector.matches(|key| node.label(key)));
            peers.extend(selected.flat_map(|node| &node.addresses).map(address));
        }
        Peer::Service { namespace, name } => {
            service(snapshot, (namespace, name), (direction, action), peers, complaints);
        }
        Peer::Entity(Entity::KubeApiServer) => {
            service(snapshot, api_server(), (direction, action), peers, complaints);
        }
        Peer::ExternalNetworks(networks) => {
            for network in chosen(snapshot, &networks, complaints) {
                external_network(network, direction, action, peers, complaints);
            }
        }
        peer => peers.push(peer),
    }
}

/// The endpoints of a service: what its slices list, the pods it selects, and its cluster addresses. One that stands for
/// another name is what is learned for either name.
fn service(
    snapshot: &Snapshot,
    key: (String, String),
    (direction, action): (Direction, Action),
    peers: &mut Vec<Peer>,
    complaints: &mut Vec<String>,
) {
    let Some(service) = snapshot.services.get(&key) else {
        complaints.push(format!("there is no service {}/{}; it means nobody", key.0, key.1));
        return;
    };
    if let Some(name) = &service.external_name {
        match (direction, action) {
            (Direction::Egress, Action::Allow | Action::Deny | Action::Reject) => {
                let own = format!("{}.{}.svc.{}", key.1, key.0, snapshot.cluster_domain).parse();
                peers.extend(own.ok().into_iter().chain([name.clone()]).map(Peer::Name));
            }
            _ => complaints.push(format!(
                "service {}/{} stands for a name, and names are for egress rules that are not Pass; it means nobody",
                key.0, key.1
            )),
        }
        return;
    }
    let ServiceEndpoints { selector, addresses, .. } = service;
    peers.extend(addresses.iter().chain(service.endpoints()).map(address));
    if !selector.is_empty() {
        let requirements = selector.iter().map(|(key, value)| Requirement {
            key: Tag::Label(key.clone()),
            test: Test::In(BTreeSet::from([value.clone()])),
        });
        let workloads = TagSelector { requirements: requirements.collect() };
        peers.push(Peer::Workloads { namespaces: NamespaceScope::Named(key.0), workloads });
    }
}

fn chosen<'a>(
    snapshot: &'a Snapshot,
    networks: &ExternalNetworks,
    complaints: &mut Vec<String>,
) -> Vec<&'a ExternalNetwork> {
    match networks {
        ExternalNetworks::Matching(selector) => {
            let all = snapshot.external_networks.values();
            all.filter(|network| selector.matches(|key| network.label(key))).collect()
        }
        ExternalNetworks::Named(names) => {
            let missing = names.iter().filter(|name| !snapshot.external_networks.contains_key(*name));
            complaints
                .extend(missing.map(|name| format!("there is no ExternalNetwork {name:?}; it means nobody")));
            names.iter().filter_map(|name| snapshot.external_networks.get(name)).collect()
        }
    }
}

/// The addresses of a network, and its names where a rule takes names.
fn external_network(
    network: &ExternalNetwork,
    direction: Direction,
    action: Action,
    peers: &mut Vec<Peer>,
    complaints: &mut Vec<String>,
) {
    peers.extend(network.cidrs.iter().map(|cidr| Peer::Block { cidr: *cidr, except: BTreeSet::new() }));
    match (direction, action) {
        (Direction::Ingress, _) => {}
        (Direction::Egress, Action::Pass) if !network.fqdns.is_empty() => complaints.push(format!(
            "ExternalNetwork {:?} has fqdns, and names take Allow, Deny and Reject, not Pass; only its cidrs are meant",
            network.name
        )),
        (Direction::Egress, _) => peers.extend(network.fqdns.iter().cloned().map(Peer::Name)),
    }
}

/// One address as a peer.
fn address(address: &IpAddr) -> Peer {
    Peer::Block { cidr: IpNet::from(address.to_canonical()), except: BTreeSet::new() }
}
