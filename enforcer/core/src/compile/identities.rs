//! Divides all addresses into classes: two addresses share an identity when no rule in use tells them apart.
//!
//! Every prefix that some peer, workload or node names is a point where the class may change; prefixes
//! are walked from wide to narrow, each inheriting what holds around it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use enforcer_common::policy::{FIRST_IDENTITY, HOST_BIT, WORLD};
use ipnet::IpNet;

use super::peers::{Facts, Matcher, PortName, Used};
use super::workload_object;
use crate::object::Workload;
use crate::policy::{Entity, Peer};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// The classes of addresses.
pub(super) struct Identities<'a> {
    /// Prefixes and identities as the plan holds them.
    pub(super) prefixes: Vec<(IpNet, u32)>,
    peers: BTreeMap<&'a Peer, Rc<[u32]>>,
    ports: BTreeMap<PortName<'a>, BTreeMap<u32, Vec<u16>>>,
}

impl<'a> Identities<'a> {
    /// The identities of the addresses of a peer and of its group, ascending.
    pub(super) fn of_peer(&self, peer: &Peer) -> &[u32] {
        self.peers.get(peer).map_or(&[], |identities| identities)
    }

    /// The identities whose workloads have a port of this name, and which ports that is.
    pub(super) fn with_port(&self, name: PortName<'a>) -> Option<&BTreeMap<u32, Vec<u16>>> {
        self.ports.get(&name)
    }
}

/// Divides the addresses.
pub(super) fn divide<'a>(
    snapshot: &'a Snapshot,
    used: &'a Used<'a>,
    refused: &mut Vec<Refusal>,
) -> Identities<'a> {
    let mut changes: BTreeMap<IpNet, Change> = BTreeMap::new();
    blocks(used, &mut changes);
    networks(snapshot, used, &mut changes);
    let mut matcher = Matcher::new(snapshot, used);
    for (address, owner) in owners(snapshot, refused) {
        let change = changes.entry(IpNet::from(address)).or_default();
        owned(used, owner, &mut matcher, change);
    }
    shield_ipv4(&mut changes);
    let (prefixes, classes) = walk(used, &changes);
    index(used, merge(prefixes), classes)
}

/// What is different inside a prefix from around it.
#[derive(Default)]
struct Change {
    add: Vec<u32>,
    remove: Vec<u32>,
    ports: Vec<(u32, u16)>,
    host: bool,
    shield: bool,
}

/// What an address belongs to.
enum Owner<'a> {
    Host,
    RemoteNode,
    Workload(&'a Workload),
}

/// A node's address is the node's, whoever else has it; of two workloads a local one has it, then the first by name.
fn owners<'a>(snapshot: &'a Snapshot, refused: &mut Vec<Refusal>) -> BTreeMap<IpAddr, Owner<'a>> {
    let mut owners = BTreeMap::new();
    for address in snapshot.hosts() {
        owners.insert(address.to_canonical(), Owner::Host);
    }
    for address in snapshot.remote_nodes() {
        owners.entry(address.to_canonical()).or_insert(Owner::RemoteNode);
    }
    let local = snapshot.workloads.values().filter(|workload| workload.local);
    let remote = snapshot.workloads.values().filter(|workload| !workload.local);
    for workload in local.chain(remote) {
        for (index, address) in workload.addresses.iter().map(IpAddr::to_canonical).enumerate() {
            match owners.entry(address).or_insert(Owner::Workload(workload)) {
                Owner::Workload(other) if other.id != workload.id => refused.push(Refusal {
                    object: workload_object(&workload.id),
                    field: format!("addresses[{index}]"),
                    reason: format!("{address} belongs to workload {} too, which keeps it", other.id),
                }),
                _ => {}
            }
        }
    }
    owners
}

/// Notes where blocks begin and where their exceptions do.
fn blocks(used: &Used<'_>, changes: &mut BTreeMap<IpNet, Change>) {
    for (peer, number) in &used.peers {
        let Peer::Block { cidr, except } = peer else { continue };
        if except.iter().any(|exception| exception.contains(cidr)) {
            continue;
        }
        changes.entry(cidr.trunc()).or_default().add.push(*number);
        for exception in except.iter().filter(|exception| cidr.contains(*exception)) {
            changes.entry(exception.trunc()).or_default().remove.push(*number);
        }
    }
}

/// Notes where the cluster's networks are.
fn networks(snapshot: &Snapshot, used: &Used<'_>, changes: &mut BTreeMap<IpNet, Change>) {
    for network in &snapshot.cluster_networks {
        in_cluster(used, changes.entry(network.trunc()).or_default());
    }
}

fn in_cluster(used: &Used<'_>, change: &mut Change) {
    change.add.extend(entity(used, Entity::Cluster));
    change.remove.extend(entity(used, Entity::Internet));
}

fn entity(used: &Used<'_>, entity: Entity) -> Option<u32> {
    used.peers.get(&Peer::Entity(entity)).copied()
}

/// Notes what an address that belongs to somebody is.
fn owned<'a>(used: &Used<'_>, owner: Owner<'a>, matcher: &mut Matcher<'a>, change: &mut Change) {
    in_cluster(used, change);
    match owner {
        Owner::Host => {
            change.host = true;
            change.add.extend(entity(used, Entity::Host));
        }
        Owner::RemoteNode => change.add.extend(entity(used, Entity::RemoteNode)),
        Owner::Workload(workload) => {
            let Facts { peers, ports } = matcher.facts(workload);
            change.add.extend(peers);
            change.ports = ports;
        }
    }
}

/// In maps IPv4 lies inside IPv6; a change that surrounds it there must not reach it.
fn shield_ipv4(changes: &mut BTreeMap<IpNet, Change>) {
    let mapped: IpNet = "::ffff:0:0/96".parse().expect("a prefix");
    if changes.keys().any(|prefix| prefix.contains(&mapped)) {
        changes.entry("0.0.0.0/0".parse().expect("a prefix")).or_default().shield = true;
    }
}

/// The groups of these peers, ascending.
fn groups(used: &Used<'_>, peers: &[u32]) -> Vec<u32> {
    peers.iter().map(|peer| used.groups[*peer as usize]).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What tells a class from others: the groups of peers it belongs to, and its ports.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Signature {
    host: bool,
    facts: Facts,
}

/// What holds inside a prefix where no narrower one says otherwise.
struct Region {
    prefix: IpNet,
    peers: Vec<u32>,
    identity: u32,
}

/// Walks the prefixes from wide to narrow; returns those at which the identity changes, and the classes.
fn walk(used: &Used<'_>, changes: &BTreeMap<IpNet, Change>) -> (Vec<(IpNet, u32)>, HashMap<Signature, u32>) {
    let outside: Vec<u32> = entity(used, Entity::Internet).into_iter().collect();
    let world = Signature { host: false, facts: Facts { peers: groups(used, &outside), ports: Vec::new() } };
    let mut classes = HashMap::from([(world, WORLD)]);
    let mut prefixes = Vec::new();
    let mut around: Vec<Region> = Vec::new();
    for (prefix, change) in changes {
        while around.last().is_some_and(|region| !region.prefix.contains(prefix)) {
            around.pop();
        }
        let (inherited, identity_around) = match around.last() {
            Some(region) => (&region.peers, region.identity),
            None => (&outside, WORLD),
        };
        let removed: HashSet<&u32> = change.remove.iter().collect();
        let kept = inherited.iter().filter(|peer| !removed.contains(peer));
        let peers: Vec<u32> = kept.chain(&change.add).collect::<BTreeSet<_>>().into_iter().copied().collect();
        let facts = Facts { peers: groups(used, &peers), ports: change.ports.clone() };
        let next = FIRST_IDENTITY + u32::try_from(classes.len() - 1).expect("fewer than 2^30 identities");
        let identity = *classes
            .entry(Signature { host: change.host, facts })
            .or_insert_with(|| if change.host { next | HOST_BIT } else { next });
        if identity_around != identity || change.shield {
            prefixes.push((*prefix, identity));
        }
        around.push(Region { prefix: *prefix, peers, identity });
    }
    (prefixes, classes)
}

/// Puts halves of one prefix that have the same identity together. What the whole had is gone with them: nothing of it
/// is left outside its halves.
fn merge(prefixes: Vec<(IpNet, u32)>) -> Vec<(IpNet, u32)> {
    let mut lengths = vec![BTreeMap::new(); 129];
    for (prefix, identity) in prefixes {
        lengths[usize::from(prefix.prefix_len())].insert(prefix, identity);
    }
    let mut merged = Vec::new();
    while let Some(longest) = lengths.pop() {
        let mut waiting: Option<(IpNet, u32)> = None;
        for (prefix, identity) in longest {
            match (waiting, prefix.supernet()) {
                (Some((half, same)), Some(whole)) if same == identity && half.supernet() == Some(whole) => {
                    lengths[usize::from(whole.prefix_len())].insert(whole, identity);
                    waiting = None;
                }
                _ => merged.extend(waiting.replace((prefix, identity))),
            }
        }
        merged.extend(waiting);
    }
    merged.sort_unstable();
    merged
}

/// Turns classes into what tables ask for: the identities of a peer and of a port name.
fn index<'a>(
    used: &Used<'a>,
    prefixes: Vec<(IpNet, u32)>,
    classes: HashMap<Signature, u32>,
) -> Identities<'a> {
    let mut by_group: Vec<Vec<u32>> = vec![Vec::new(); used.peers.len()];
    let mut by_port: Vec<BTreeMap<u32, Vec<u16>>> = vec![BTreeMap::new(); used.ports.len()];
    for (signature, identity) in classes {
        signature.facts.peers.iter().for_each(|group| by_group[*group as usize].push(identity));
        for (name, port) in signature.facts.ports {
            by_port[name as usize].entry(identity).or_default().push(port);
        }
    }
    by_group.iter_mut().for_each(|identities| identities.sort_unstable());
    let groups: Vec<Rc<[u32]>> = by_group.into_iter().map(Rc::from).collect();
    let of = |number: &u32| Rc::clone(&groups[used.groups[*number as usize] as usize]);
    let peers = used.peers.iter().map(|(peer, number)| (*peer, of(number)));
    let ports =
        used.ports.iter().map(|(name, number)| (*name, std::mem::take(&mut by_port[*number as usize])));
    Identities { prefixes, peers: peers.collect(), ports: ports.collect() }
}
