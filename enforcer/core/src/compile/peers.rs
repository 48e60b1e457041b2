//! The peers that rules in use speak of, numbered and grouped, and which of them a workload belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enforcer_common::decide::Direction;

use super::Use;
use super::order::Order;
use super::subjects::scope_includes;
use crate::object::Workload;
use crate::policy::{Entity, Peer, Peers, PortMatch, Ports, Requirement, Rule, Tag, Test};
use crate::protocol::Protocol;
use crate::snapshot::Snapshot;

/// The peers in use; names and `All` are not among them, for they need no identity.
#[derive(Default, Debug)]
pub(super) struct Used {
    /// Peers by number.
    pub(super) peers: Vec<Peer>,
    /// Group by number of peer: peers that every rule names together or not at all. No rule tells their addresses
    /// apart, so they share identities and rows.
    pub(super) groups: Vec<u32>,
    /// How many groups there are.
    pub(super) group_count: usize,
    /// Number by name and protocol of ports that egress rules ask for.
    ports: HashMap<String, Vec<(Protocol, u32)>>,
    /// By number of such a port, whom rules ask for it.
    asked: Vec<Meant>,
    /// By group, whether a rule for egress names it.
    egress: Vec<bool>,
    /// True when a rule for egress tells ports apart.
    pub(super) has_egress_ports: bool,
    /// By policy and direction, for each of its rules the groups it names.
    rules: HashMap<Use, Vec<Meant>>,
}

/// Whom one rule means, names left aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Meant {
    /// Everybody.
    Any,
    /// These groups, ascending.
    Groups(Vec<u32>),
}

impl Used {
    /// True when rules tell addresses apart as those of `other` do, by the same numbers.
    pub(super) fn divides_as(&self, other: &Self) -> bool {
        let same_peers = self.peers == other.peers && self.groups == other.groups;
        let same_egress = self.egress == other.egress && self.has_egress_ports == other.has_egress_ports;
        same_peers && same_egress && self.ports == other.ports && self.asked == other.asked
    }

    /// True when a rule for flows that workloads begin names a group.
    pub(super) fn is_in_egress(&self, group: u32) -> bool {
        self.egress[group as usize]
    }

    /// True when rules for flows that workloads begin tell any two addresses or ports apart.
    pub(super) fn divides_egress(&self) -> bool {
        self.has_egress_ports || self.egress.contains(&true)
    }

    /// Number of a port that egress rules ask for by name.
    pub(super) fn port(&self, protocol: Protocol, name: &str) -> Option<u32> {
        let numbers = self.ports.get(name)?;
        numbers.iter().find(|(of, _)| *of == protocol).map(|(_, number)| *number)
    }

    /// Whom a rule in use means.
    pub(super) fn meant(&self, policy: usize, direction: Direction, index: usize) -> &Meant {
        &self.rules[&(policy, direction)][index]
    }

    /// Number of a kind of address, where a rule names it.
    pub(super) fn entity(&self, entity: Entity) -> Option<u32> {
        let number = self.peers.iter().position(|peer| *peer == Peer::Entity(entity))?;
        u32::try_from(number).ok()
    }

    /// How many ports egress rules ask for by name.
    pub(super) fn port_count(&self) -> usize {
        self.asked.len()
    }

    /// True when some rule asks for a port by name of whoever belongs to these groups, which are sorted.
    pub(super) fn is_asked(&self, port: u32, groups: &[u32]) -> bool {
        match &self.asked[port as usize] {
            Meant::Any => true,
            Meant::Groups(asked) => asked.iter().any(|group| groups.binary_search(group).is_ok()),
        }
    }

    /// Adds the port names of an egress rule, which means these.
    fn add_ports(&mut self, rule: &Rule, meant: &Meant) {
        for (protocol, name) in port_names(rule) {
            let number = self.port(protocol, name).unwrap_or_else(|| {
                let number = u32::try_from(self.asked.len()).expect("fewer than 2^32 names fit into memory");
                self.ports.entry(name.to_owned()).or_default().push((protocol, number));
                self.asked.push(Meant::Groups(Vec::new()));
                number
            });
            match (&mut self.asked[number as usize], meant) {
                (Meant::Groups(asked), Meant::Groups(groups)) => {
                    asked.extend(groups);
                    asked.sort_unstable();
                    asked.dedup();
                }
                (asked, _) => *asked = Meant::Any,
            }
        }
    }
}

/// Collects the peers of all rules in use.
pub(super) fn collect(order: &Order, used: &BTreeSet<Use>) -> Used {
    let mut all = Used::default();
    let mut numbers: HashMap<&Peer, u32> = HashMap::new();
    let mut named_in: Vec<Vec<u32>> = Vec::new();
    let mut rules: Vec<(Use, &Rule, Option<Vec<u32>>)> = Vec::new();
    for &(policy, direction) in used {
        for rule in order.rules(policy, direction).into_iter().flatten() {
            let place = u32::try_from(rules.len()).expect("fewer than 2^32 rules fit into memory");
            let meant = identified(rule).map(|peers| {
                let numbers = peers.map(|peer| {
                    let next = u32::try_from(numbers.len()).expect("fewer than 2^32 peers fit into memory");
                    let number = *numbers.entry(peer).or_insert(next);
                    named_in.resize_with(numbers.len(), Vec::new);
                    named_in[number as usize].push(place);
                    number
                });
                numbers.collect()
            });
            rules.push(((policy, direction), rule, meant));
        }
    }
    let mut groups = HashMap::new();
    named_in.iter_mut().for_each(Vec::dedup);
    all.groups = named_in.into_iter().map(|rules| group(&mut groups, rules)).collect();
    all.group_count = groups.len();
    all.egress = vec![false; groups.len()];
    for (of, rule, meant) in rules {
        let groups = |peers: Vec<u32>| Meant::Groups(groups_of(&all.groups, peers));
        let meant = meant.map_or(Meant::Any, groups);
        if of.1 == Direction::Egress {
            all.add_ports(rule, &meant);
            all.has_egress_ports |= rule.ports != Ports::Any;
            if let Meant::Groups(groups) = &meant {
                groups.iter().for_each(|group| all.egress[*group as usize] = true);
            }
        }
        all.rules.entry(of).or_default().push(meant);
    }
    let mut peers: Vec<(u32, &Peer)> = numbers.into_iter().map(|(peer, number)| (number, peer)).collect();
    peers.sort_unstable_by_key(|(number, _)| *number);
    all.peers = peers.into_iter().map(|(_, peer)| peer.clone()).collect();
    all
}

/// The groups of these peers, ascending.
pub(super) fn groups_of(groups: &[u32], peers: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut found: Vec<u32> = peers.into_iter().map(|peer| groups[peer as usize]).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The peers of a rule that need an identity; `None` when it means everybody.
fn identified(rule: &Rule) -> Option<impl Iterator<Item = &Peer>> {
    let Peers::OneOf(peers) = &rule.peers else { return None };
    if peers.contains(&Peer::Entity(Entity::All)) {
        return None;
    }
    Some(peers.iter().filter(|peer| !matches!(peer, Peer::Name(_))))
}

fn group(groups: &mut HashMap<Vec<u32>, u32>, rules: Vec<u32>) -> u32 {
    let next = u32::try_from(groups.len()).expect("fewer groups than peers");
    *groups.entry(rules).or_insert(next)
}

/// The port names of a rule.
pub(super) fn port_names(rule: &Rule) -> impl Iterator<Item = (Protocol, &str)> {
    let ports = match &rule.ports {
        Ports::Any => &[],
        Ports::OneOf(ports) => ports.as_slice(),
    };
    ports.iter().filter_map(|port| match port {
        PortMatch::Named { protocol, name } => Some((*protocol, name.as_str())),
        _ => None,
    })
}

/// What distinguishes a workload's addresses from others: sorted numbers of peers, and of port names with the
/// port each resolves to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(super) struct Facts {
    pub(super) peers: Vec<u32>,
    pub(super) ports: Vec<(u32, u16)>,
}

/// Finds the facts of workloads; keeps what it found out about namespaces.
#[derive(Default, Debug)]
pub(super) struct Matcher {
    namespaces: BTreeMap<String, Candidates>,
}

/// The peers that may mean workloads of one namespace: by a label and value they require, and the others.
#[derive(Default, Debug)]
struct Candidates {
    by_label: HashMap<String, HashMap<String, Vec<u32>>>,
    rest: Vec<u32>,
}

impl Matcher {
    /// The facts of a workload.
    pub(super) fn facts(&mut self, snapshot: &Snapshot, used: &Used, workload: &Workload) -> Facts {
        let candidates = self.candidates(snapshot, used, &workload.id.namespace);
        let mut peers = Vec::new();
        let mut test = |numbers: &[u32]| {
            let meant = |number: &&u32| means(snapshot, &used.peers[**number as usize], workload);
            peers.extend(numbers.iter().filter(meant).copied());
        };
        for (key, value) in workload.labels.iter().filter(|_| !candidates.by_label.is_empty()) {
            let by_value = candidates.by_label.get(key).and_then(|by_value| by_value.get(value));
            by_value.into_iter().for_each(|numbers| test(numbers));
        }
        test(&candidates.rest);
        peers.sort_unstable();
        let asked = workload.ports.iter().filter(|_| used.port_count() > 0);
        let named =
            asked.filter_map(|port| used.port(port.protocol, &port.name).map(|number| (number, port.port)));
        let mut ports: Vec<(u32, u16)> = named.collect();
        ports.sort_unstable();
        ports.dedup();
        Facts { peers, ports }
    }

    fn candidates(&mut self, snapshot: &Snapshot, used: &Used, namespace: &str) -> &Candidates {
        if !self.namespaces.contains_key(namespace) {
            let candidates = Candidates::of_namespace(snapshot, used, namespace);
            self.namespaces.insert(namespace.to_owned(), candidates);
        }
        &self.namespaces[namespace]
    }
}

impl Candidates {
    fn of_namespace(snapshot: &Snapshot, used: &Used, namespace: &str) -> Self {
        let mut candidates = Self::default();
        for (number, peer) in (0..).zip(&used.peers) {
            match peer {
                Peer::Workloads { namespaces, workloads }
                    if scope_includes(snapshot, namespaces, namespace) =>
                {
                    match workloads.requirements.iter().find_map(required_label) {
                        Some((key, value)) => {
                            let by_value = candidates.by_label.entry(key.to_owned()).or_default();
                            by_value.entry(value.to_owned()).or_default().push(number);
                        }
                        None => candidates.rest.push(number),
                    }
                }
                Peer::ServiceAccount { namespace: own, .. } if own == namespace => {
                    candidates.rest.push(number);
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
        Peer::ServiceAccount { name, .. } => workload.service_account.as_deref() == Some(name.as_str()),
        // The others are known by address, or have been lowered to peers that are.
        _ => false,
    }
}
