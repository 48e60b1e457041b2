//! The peers that rules in use speak of, numbered, and which of them a workload belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enforcer_common::decide::Direction;

use super::Use;
use super::order::Order;
use super::subjects::scope_includes;
use crate::object::Workload;
use crate::policy::{Entity, Peer, Peers, PortMatch, Ports, Requirement, Tag, Test};
use crate::protocol::Protocol;
use crate::snapshot::Snapshot;

/// A port by name.
pub(super) type PortName<'a> = (Protocol, &'a str);

/// The peers in use; names and `All` are not among them, for they need no identity.
#[derive(Default)]
pub(super) struct Used<'a> {
    /// Number by peer.
    pub(super) peers: BTreeMap<&'a Peer, u32>,
    /// Group by number of peer: peers that every rule names together or not at all. No rule tells their addresses
    /// apart, so they share identities and rows.
    pub(super) groups: Vec<u32>,
    /// Number by port name that egress rules ask for.
    pub(super) ports: BTreeMap<PortName<'a>, u32>,
}

/// Collects the peers of all rules in use.
pub(super) fn collect<'a>(order: &Order<'a>, used: &BTreeSet<Use>) -> Used<'a> {
    let mut all = Used::default();
    let mut named_in: Vec<Vec<u32>> = Vec::new();
    let mut rules = 0;
    for &(policy, direction) in used {
        for rule in order.rules(policy, direction).into_iter().flatten() {
            if let Peers::OneOf(peers) = &rule.peers {
                let identified =
                    peers.iter().filter(|peer| !matches!(peer, Peer::Name(_) | Peer::Entity(Entity::All)));
                for peer in identified {
                    number(&mut all.peers, peer);
                    named_in.resize_with(all.peers.len(), Vec::new);
                    named_in[all.peers[peer] as usize].push(rules);
                }
                rules += 1;
            }
            if let (Direction::Egress, Ports::OneOf(ports)) = (direction, &rule.ports) {
                port_names(ports).for_each(|name| number(&mut all.ports, name));
            }
        }
    }
    let mut groups = HashMap::new();
    named_in.iter_mut().for_each(Vec::dedup);
    all.groups = named_in.into_iter().map(|rules| group(&mut groups, rules)).collect();
    all
}

fn group(groups: &mut HashMap<Vec<u32>, u32>, rules: Vec<u32>) -> u32 {
    let next = u32::try_from(groups.len()).expect("fewer groups than peers");
    *groups.entry(rules).or_insert(next)
}

fn number<K: Ord>(numbers: &mut BTreeMap<K, u32>, key: K) {
    let next = u32::try_from(numbers.len()).expect("fewer than 2^32 peers fit into memory");
    numbers.entry(key).or_insert(next);
}

/// The port names among port matches.
pub(super) fn port_names(ports: &[PortMatch]) -> impl Iterator<Item = PortName<'_>> {
    ports.iter().filter_map(|port| match port {
        PortMatch::Named { protocol, name } => Some((*protocol, name.as_str())),
        _ => None,
    })
}

/// What distinguishes a workload's addresses from others: sorted numbers of peers, and of port names with the
/// port each resolves to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Facts {
    pub(super) peers: Vec<u32>,
    pub(super) ports: Vec<(u32, u16)>,
}

/// Finds the facts of workloads.
pub(super) struct Matcher<'a> {
    snapshot: &'a Snapshot,
    used: &'a Used<'a>,
    namespaces: HashMap<&'a str, Candidates<'a>>,
}

/// The peers that may mean workloads of one namespace: by a label they require, and the others.
#[derive(Default)]
struct Candidates<'a> {
    by_label: HashMap<(&'a str, &'a str), Vec<(&'a Peer, u32)>>,
    rest: Vec<(&'a Peer, u32)>,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, used: &'a Used<'a>) -> Self {
        Self { snapshot, used, namespaces: HashMap::new() }
    }

    /// The facts of a workload.
    pub(super) fn facts(&mut self, workload: &'a Workload) -> Facts {
        let (snapshot, used) = (self.snapshot, self.used);
        let namespace = workload.id.namespace.as_str();
        let candidates = self
            .namespaces
            .entry(namespace)
            .or_insert_with(|| Candidates::of_namespace(snapshot, used, namespace));
        let labels = workload.labels.iter();
        let by_label =
            labels.filter_map(|(k, v)| candidates.by_label.get(&(k.as_str(), v.as_str()))).flatten();
        let meant = by_label.chain(&candidates.rest).filter(|(peer, _)| means(snapshot, peer, workload));
        let mut peers: Vec<u32> = meant.map(|(_, number)| *number).collect();
        peers.sort_unstable();
        let named = workload.ports.iter().filter_map(|port| {
            used.ports.get(&(port.protocol, port.name.as_str())).map(|number| (*number, port.port))
        });
        let mut ports: Vec<(u32, u16)> = named.collect();
        ports.sort_unstable();
        ports.dedup();
        Facts { peers, ports }
    }
}

impl<'a> Candidates<'a> {
    fn of_namespace(snapshot: &Snapshot, used: &Used<'a>, namespace: &str) -> Self {
        let mut candidates = Self::default();
        for (&peer, &number) in &used.peers {
            match peer {
                Peer::Workloads { namespaces, workloads }
                    if scope_includes(snapshot, namespaces, namespace) =>
                {
                    match workloads.requirements.iter().find_map(required_label) {
                        Some(label) => candidates.by_label.entry(label).or_default().push((peer, number)),
                        None => candidates.rest.push((peer, number)),
                    }
                }
                Peer::ServiceAccount { namespace: own, .. } if own == namespace => {
                    candidates.rest.push((peer, number));
                }
                _ => {}
            }
        }
        candidates
    }
}

/// The label and value without which the requirement does not hold.
fn required_label(requirement: &Requirement<Tag>) -> Option<(&str, &str)> {
    match (&requirement.key, &requirement.test) {
        (Tag::Label(key), Test::In(values)) if values.len() == 1 => {
            values.first().map(|value| (key.as_str(), value.as_str()))
        }
        _ => None,
    }
}

/// True when a candidate of the workload's namespace means this workload.
fn means(snapshot: &Snapshot, peer: &Peer, workload: &Workload) -> bool {
    match peer {
        Peer::Workloads { workloads, .. } => workloads.matches(|tag| tag.value(snapshot, workload)),
        Peer::ServiceAccount { name, .. } => workload.service_account.as_ref() == Some(name),
        // The others are known by address, or have been lowered to peers that are.
        _ => false,
    }
}
