//! Puts addresses, names and workloads in place of peers that are given by other objects, as these are at this
//! moment: what comes behind knows no nodes. A policy without such peers stays the same value.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::{LabelSelector, Peer, Peers, Policy, Rule};
use crate::snapshot::Snapshot;

/// The policies of a snapshot, lowered.
pub(super) fn lower(snapshot: &Snapshot) -> Vec<Cow<'_, Policy>> {
    snapshot.policies.values().map(|policy| lower_policy(snapshot, policy)).collect()
}

fn lower_policy<'a>(snapshot: &Snapshot, policy: &'a Policy) -> Cow<'a, Policy> {
    let rules = || [&policy.egress, &policy.ingress].into_iter().flatten().flatten();
    if !rules().any(needs_lowering) {
        return Cow::Borrowed(policy);
    }
    let mut lowered = policy.clone();
    for rule in [&mut lowered.egress, &mut lowered.ingress].into_iter().flatten().flatten() {
        lower_rule(snapshot, rule);
    }
    Cow::Owned(lowered)
}

fn needs_lowering(rule: &Rule) -> bool {
    matches!(&rule.peers, Peers::OneOf(peers) if peers.iter().any(|peer| matches!(peer, Peer::Nodes(_))))
}

fn lower_rule(snapshot: &Snapshot, rule: &mut Rule) {
    let Peers::OneOf(peers) = &mut rule.peers else { return };
    for peer in std::mem::take(peers) {
        match peer {
            Peer::Nodes(selector) => peers.extend(nodes(snapshot, &selector).map(address)),
            peer => peers.push(peer),
        }
    }
}

/// The addresses of the nodes whose labels match.
fn nodes(snapshot: &Snapshot, selector: &LabelSelector) -> impl Iterator<Item = IpAddr> {
    let nodes = snapshot.nodes.values().filter(|node| selector.matches(|key| node.label(key)));
    nodes.flat_map(|node| &node.addresses).copied()
}

/// One address as a peer.
fn address(address: IpAddr) -> Peer {
    Peer::Block { cidr: IpNet::from(address.to_canonical()), except: BTreeSet::new() }
}
