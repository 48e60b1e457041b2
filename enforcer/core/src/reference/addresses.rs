//! Whom peers and ports mean, for the reference evaluator.

use std::net::IpAddr;

use enforcer_common::decide::Direction;
use enforcer_common::policy::Action;

use super::Question;
use super::select::{has_tags, in_scope};
use crate::fqdn::Pattern;
use crate::object::{ExternalNetwork, Workload};
use crate::policy::{Entity, ExternalNetworks, Peer, Peers, PortMatch, Ports, Rule};
use crate::snapshot::Snapshot;

/// True when some peer of the rule means the other side, and some port of the rule the flow's.
pub(super) fn matches(snapshot: &Snapshot, workload: &Workload, question: &Question, rule: &Rule) -> bool {
    match &rule.peers {
        Peers::Any => has_port(snapshot, workload, question, &rule.ports, false),
        Peers::OneOf(peers) => peers.iter().any(|peer| {
            (means(snapshot, question, peer) && has_port(snapshot, workload, question, &rule.ports, false))
                || (is_called(snapshot, question, rule.action, peer)
                    && has_port(snapshot, workload, question, &rule.ports, true))
        }),
    }
}

/// True when some peer of the rule means a name of the other side, and some port of the rule the flow's.
pub(super) fn matches_by_name(
    snapshot: &Snapshot,
    workload: &Workload,
    question: &Question,
    rule: &Rule,
) -> bool {
    let Peers::OneOf(peers) = &rule.peers else { return false };
    peers.iter().any(|peer| is_called(snapshot, question, rule.action, peer))
        && has_port(snapshot, workload, question, &rule.ports, true)
}

/// True when a peer means the other side's address.
fn means(snapshot: &Snapshot, question: &Question, peer: &Peer) -> bool {
    let remote = question.remote.to_canonical();
    match peer {
        Peer::Workloads { namespaces, workloads } => owner(snapshot, remote).is_some_and(|other| {
            in_scope(snapshot, namespaces, &other.id.namespace) && has_tags(snapshot, workloads, other)
        }),
        Peer::ServiceAccount { namespace, name } => owner(snapshot, remote).is_some_and(|other| {
            other.id.namespace == *namespace && other.service_account.as_deref() == Some(name.as_str())
        }),
        Peer::Block { cidr, except } => {
            cidr.contains(&remote) && !except.iter().any(|exception| exception.contains(&remote))
        }
        Peer::Nodes(selector) => snapshot
            .nodes
            .values()
            .any(|node| selector.matches(|key| node.label(key)) && is_among(remote, &node.addresses)),
        Peer::Service { namespace, name } => is_of_service(snapshot, remote, namespace, name),
        Peer::ExternalNetworks(networks) => networks_of(snapshot, networks)
            .iter()
            .any(|network| network.cidrs.iter().any(|cidr| cidr.contains(&remote))),
        Peer::Name(_) => false,
        Peer::Entity(Entity::All) => true,
        Peer::Entity(Entity::Cluster) => in_cluster(snapshot, remote),
        Peer::Entity(Entity::Internet) => !in_cluster(snapshot, remote),
        Peer::Entity(Entity::Host) => is_host(snapshot, remote),
        Peer::Entity(Entity::RemoteNode) => is_remote_node(snapshot, remote),
        Peer::Entity(Entity::KubeApiServer) => is_of_service(snapshot, remote, "default", "kubernetes"),
    }
}

/// True when a peer means a name that the workload knows the other side's address by.
fn is_called(snapshot: &Snapshot, question: &Question, action: Action, peer: &Peer) -> bool {
    if question.direction == Direction::Ingress {
        return false;
    }
    let matches = |pattern: &Pattern| question.names.iter().any(|name| pattern.matches(name));
    match peer {
        Peer::Name(pattern) => matches(pattern),
        Peer::Service { namespace, name } if action != Action::Pass => {
            names_of_service(snapshot, namespace, name).iter().any(matches)
        }
        Peer::Entity(Entity::KubeApiServer) if action != Action::Pass => {
            names_of_service(snapshot, "default", "kubernetes").iter().any(matches)
        }
        Peer::ExternalNetworks(networks) if action != Action::Pass => {
            networks_of(snapshot, networks).iter().any(|network| network.fqdns.iter().any(matches))
        }
        _ => false,
    }
}

/// The external networks that exist and are meant.
fn networks_of<'a>(snapshot: &'a Snapshot, networks: &ExternalNetworks) -> Vec<&'a ExternalNetwork> {
    let is_meant = |network: &&ExternalNetwork| match networks {
        ExternalNetworks::Named(names) => names.contains(&network.name),
        ExternalNetworks::Matching(selector) => selector.matches(|key| network.label(key)),
    };
    snapshot.external_networks.values().filter(is_meant).collect()
}

/// True when an address is a cluster address or an endpoint of a service.
fn is_of_service(snapshot: &Snapshot, address: IpAddr, namespace: &str, name: &str) -> bool {
    let Some(service) = snapshot.services.get(&(namespace.to_owned(), name.to_owned())) else { return false };
    let is_selected = |workload: &Workload| {
        let has = |(key, value): (&String, &String)| workload.labels.get(key) == Some(value);
        !service.selector.is_empty() && workload.id.namespace == namespace && service.selector.iter().all(has)
    };
    if service.external_name.is_some() {
        return false;
    }
    is_among(address, &service.addresses)
        || service.endpoints().any(|endpoint| endpoint.to_canonical() == address)
        || owner(snapshot, address).is_some_and(is_selected)
}

/// The names of a service that stands for another name: that, and its own.
fn names_of_service(snapshot: &Snapshot, namespace: &str, name: &str) -> Vec<Pattern> {
    let service = snapshot.services.get(&(namespace.to_owned(), name.to_owned()));
    let Some(other) = service.and_then(|service| service.external_name.clone()) else { return Vec::new() };
    let own: Option<Pattern> = format!("{name}.{namespace}.svc.{}", snapshot.cluster_domain).parse().ok();
    own.into_iter().chain([other]).collect()
}

fn is_among(address: IpAddr, addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|other| other.to_canonical() == address)
}

/// True when the ports of a rule include the flow's. A port by name is one of the workload that answers; an
/// address that is only known by name (`by_name`) has none.
fn has_port(
    snapshot: &Snapshot,
    workload: &Workload,
    question: &Question,
    ports: &Ports,
    by_name: bool,
) -> bool {
    let Ports::OneOf(ports) = ports else { return true };
    let answering = match question.direction {
        Direction::Ingress => Some(workload),
        Direction::Egress if by_name => None,
        Direction::Egress => owner(snapshot, question.remote.to_canonical()),
    };
    ports.iter().any(|port| match port {
        PortMatch::Protocol(protocol) => *protocol == question.protocol,
        PortMatch::Range { protocol, first, last } => {
            *protocol == question.protocol && *first <= question.port && question.port <= *last
        }
        PortMatch::Named { protocol, name } => {
            let mut named = answering.iter().flat_map(|workload| workload.ports.iter());
            *protocol == question.protocol
                && named.any(|p| p.protocol == *protocol && p.name == *name && p.port == question.port)
        }
        PortMatch::Icmp { protocol, kind, code } => {
            let [asked_kind, asked_code] = question.port.to_be_bytes();
            *protocol == question.protocol
                && asked_kind == *kind
                && code.is_none_or(|code| code == asked_code)
        }
    })
}

/// True for the addresses of this node.
pub(super) fn is_host(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot.hosts().any(|host| host.to_canonical() == address)
}

pub(super) fn is_remote_node(snapshot: &Snapshot, address: IpAddr) -> bool {
    !is_host(snapshot, address) && snapshot.remote_nodes().any(|node| node.to_canonical() == address)
}

/// The workload that has an address: no node's; a local one before others, then by name.
pub(crate) fn owner(snapshot: &Snapshot, address: IpAddr) -> Option<&Workload> {
    if is_host(snapshot, address) || is_remote_node(snapshot, address) {
        return None;
    }
    let has = |workload: &&Workload| workload.addresses.iter().any(|own| own.to_canonical() == address);
    let holders = || snapshot.workloads.values().map(|workload| &**workload).filter(has);
    holders().find(|workload| workload.local).or_else(|| holders().next())
}

fn in_cluster(snapshot: &Snapshot, address: IpAddr) -> bool {
    is_host(snapshot, address)
        || is_remote_node(snapshot, address)
        || owner(snapshot, address).is_some()
        || snapshot.cluster_networks.iter().any(|network| network.contains(&address))
}
