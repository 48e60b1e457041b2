//! The prefixes that are there whoever runs where: blocks of rules, their exceptions, networks of the cluster, nodes.
//! Each holds what is true of an address inside it that no narrower one and no workload says more of.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::peers::Used;
use crate::policy::{Entity, Peer};
use crate::snapshot::Snapshot;

/// One prefix.
#[derive(Debug)]
pub(super) struct Region {
    /// The prefix.
    pub(super) prefix: IpNet,
    /// The narrowest region around it.
    pub(super) around: Option<usize>,
    /// The peers its addresses belong to, ascending.
    pub(super) peers: Vec<u32>,
    /// True for an address of this node.
    pub(super) host: bool,
    /// True for a node's address: no workload has it.
    pub(super) node: bool,
    /// True when it is written although nothing changes at it.
    pub(super) shield: bool,
}

/// All of them, wide before narrow.
#[derive(Default, Debug)]
pub(super) struct Regions {
    list: Vec<Region>,
    /// The peers of an address in none of them.
    pub(super) outside: Vec<u32>,
    cluster: Option<u32>,
    internet: Option<u32>,
}

/// What is different inside a prefix from around it.
#[derive(Default)]
struct Change {
    add: Vec<u32>,
    remove: Vec<u32>,
    host: bool,
    node: bool,
    shield: bool,
}

impl Regions {
    /// The regions of a snapshot, as far as rules in use tell them apart.
    pub(super) fn new(snapshot: &Snapshot, used: &Used) -> Self {
        let (cluster, internet) = (used.entity(Entity::Cluster), used.entity(Entity::Internet));
        let outside: Vec<u32> = internet.into_iter().collect();
        let mut regions = Self { list: Vec::new(), outside, cluster, internet };
        let mut changes: BTreeMap<IpNet, Change> = BTreeMap::new();
        blocks(used, &mut changes);
        for network in &snapshot.cluster_networks {
            regions.in_cluster(changes.entry(network.trunc()).or_default());
        }
        regions.nodes(snapshot, used, &mut changes);
        shield_ipv4(&mut changes);
        changes.into_iter().for_each(|(prefix, change)| regions.push(prefix, change));
        regions
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// The region of this index, in the order of prefixes.
    pub(super) fn get(&self, index: usize) -> &Region {
        &self.list[index]
    }

    /// The addresses of nodes.
    pub(super) fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.list.iter().filter(|region| region.node).map(|region| region.prefix.addr())
    }

    /// The narrowest region that an address is in.
    pub(super) fn of(&self, address: IpAddr) -> Option<usize> {
        let place = self.list.partition_point(|region| region.prefix <= IpNet::from(address));
        let mut candidate = place.checked_sub(1);
        while let Some(index) = candidate
            && !self.list[index].prefix.contains(&address)
        {
            candidate = self.list[index].around;
        }
        candidate
    }

    /// The peers of a workload's address, but for those that mean the workload itself; ascending.
    pub(super) fn peers_of_workload(&self, region: Option<usize>) -> Vec<u32> {
        let inherited = region.map_or(&self.outside, |index| &self.list[index].peers);
        let mut peers: Vec<u32> =
            inherited.iter().copied().filter(|peer| Some(*peer) != self.internet).collect();
        peers.extend(self.cluster);
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn in_cluster(&self, change: &mut Change) {
        change.add.extend(self.cluster);
        change.remove.extend(self.internet);
    }

    /// Notes what a node's address is: this node's before another's.
    fn nodes(&self, snapshot: &Snapshot, used: &Used, changes: &mut BTreeMap<IpNet, Change>) {
        let hosts: BTreeSet<IpAddr> = snapshot.hosts().map(|address| address.to_canonical()).collect();
        let others: BTreeSet<IpAddr> =
            snapshot.remote_nodes().map(|address| address.to_canonical()).collect();
        for address in hosts.union(&others) {
            let host = hosts.contains(address);
            let change = changes.entry(IpNet::from(*address)).or_default();
            self.in_cluster(change);
            change.add.extend(used.entity(if host { Entity::Host } else { Entity::RemoteNode }));
            (change.host, change.node) = (host, true);
        }
    }

    /// Adds a region behind all that are wider or before it.
    fn push(&mut self, prefix: IpNet, change: Change) {
        let mut around = self.list.len().checked_sub(1);
        while let Some(index) = around
            && !self.list[index].prefix.contains(&prefix)
        {
            around = self.list[index].around;
        }
        let inherited = around.map_or(&self.outside, |index| &self.list[index].peers);
        let removed: HashSet<&u32> = change.remove.iter().collect();
        let kept = inherited.iter().filter(|peer| !removed.contains(peer));
        let peers = kept.chain(&change.add).collect::<BTreeSet<_>>().into_iter().copied().collect();
        let Change { host, node, shield, .. } = change;
        self.list.push(Region { prefix, around, peers, host, node, shield });
    }
}

/// Notes where blocks begin and where their exceptions do.
fn blocks(used: &Used, changes: &mut BTreeMap<IpNet, Change>) {
    for (number, peer) in (0..).zip(&used.peers) {
        let Peer::Block { cidr, except } = peer else { continue };
        if except.iter().any(|exception| exception.contains(cidr)) {
            continue;
        }
        changes.entry(cidr.trunc()).or_default().add.push(number);
        for exception in except.iter().filter(|exception| cidr.contains(*exception)) {
            changes.entry(exception.trunc()).or_default().remove.push(number);
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
