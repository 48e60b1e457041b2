//! Rules of two policies of one tier that match the same flows and do the opposite. Inside a policy the order is there
//! to be read; between policies it is a number, or only their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::policy::Action;

use super::cover::{means_workload, peer_includes, scopes_meet, selectors_meet};
use super::place::{DIRECTIONS, Placed, PlacedPolicy, PlacedRule, field};
use super::spans::addresses;
use super::{Code, Finding};
use crate::object::Workload;
use crate::policy::{Peer, Peers, Subject};
use crate::reference;
use crate::snapshot::Snapshot;

/// Every pair that contradicts itself; what is never reached anyway is left out.
pub(super) fn check(snapshot: &Snapshot, placed: &Placed<'_>, unreached: &[Finding]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut meets = Meets { snapshot, subjects: BTreeMap::new() };
    for direction in DIRECTIONS {
        for (index, later) in placed.policies.iter().enumerate() {
            let before = placed.before(index, direction);
            let near = before
                .into_iter()
                .filter(|earlier| earlier.tier == later.tier && earlier.policy.id != later.policy.id);
            for earlier in near {
                findings.extend(pair(&mut meets, direction, earlier, later, unreached));
            }
        }
    }
    findings
}

/// The first contradiction of two policies.
fn pair(
    meets: &mut Meets<'_>,
    direction: Direction,
    earlier: &PlacedPolicy<'_>,
    later: &PlacedPolicy<'_>,
    unreached: &[Finding],
) -> Option<Finding> {
    let is_reached =
        |rule: &&PlacedRule<'_>| !unreached.iter().any(|finding| finding.rule.as_ref() == Some(&rule.info));
    let is_tie = earlier.policy.order == later.policy.order;
    for (index, rule) in later.rules(direction)?.iter().enumerate().filter(|(_, rule)| is_reached(rule)) {
        for other in earlier.rules(direction)?.iter().filter(is_reached) {
            let is_exception = !is_tie && meets.includes(rule, other);
            if is_opposite(rule, other)
                && !is_exception
                && rule.ports.meets(&other.ports)
                && meets.subjects(&earlier.policy.subject, &later.policy.subject)
                && meets.peers(&rule.rule.peers, &other.rule.peers)
            {
                return Some(finding(direction, later, index, rule, other, is_tie));
            }
        }
    }
    None
}

fn is_opposite(a: &PlacedRule<'_>, b: &PlacedRule<'_>) -> bool {
    let refuses = |action| matches!(action, Action::Deny | Action::Reject);
    let (a, b) = (a.rule.action, b.rule.action);
    (a == Action::Allow && refuses(b)) || (refuses(a) && b == Action::Allow)
}

fn finding(
    direction: Direction,
    later: &PlacedPolicy<'_>,
    index: usize,
    rule: &PlacedRule<'_>,
    other: &PlacedRule<'_>,
    is_tie: bool,
) -> Finding {
    let (code, why, remedy) = match is_tie {
        true => (
            Code::Conflict,
            "the order of both policies is the same, so that their names decide",
            "give them different orders, or make the rules say the same",
        ),
        false => (Code::Overlap, "what both match is decided by the lower order", "make sure it is meant"),
    };
    let verb = crate::words::action(other.rule.action);
    let message = format!("{} does the opposite ({verb}) to some of the same flows; {why}", other.info);
    Finding {
        rule: Some(rule.info.clone()),
        because: vec![other.info.clone()],
        ..Finding::new(code, later.policy, field(direction, index), message, remedy)
    }
}

/// Finds out whether two things surely have something in common; with workloads known, one of them must be in both.
struct Meets<'a> {
    snapshot: &'a Snapshot,
    subjects: BTreeMap<(Subject, Subject), bool>,
}

impl Meets<'_> {
    fn subjects(&mut self, a: &Subject, b: &Subject) -> bool {
        let key = (a.clone(), b.clone());
        if let Some(known) = self.subjects.get(&key) {
            return *known;
        }
        let snapshot = self.snapshot;
        let meet = match snapshot.workloads.is_empty() {
            true => {
                scopes_meet(snapshot, &a.namespaces, &b.namespaces)
                    && selectors_meet(&a.workloads, &b.workloads)
            }
            false => snapshot.workloads.values().any(|workload| {
                reference::selects(snapshot, a, workload) && reference::selects(snapshot, b, workload)
            }),
        };
        self.subjects.insert(key, meet);
        meet
    }

    fn peers(&self, a: &Peers, b: &Peers) -> bool {
        match (a, b) {
            (Peers::Any, _) | (_, Peers::Any) => true,
            (Peers::OneOf(a), Peers::OneOf(b)) => a.iter().any(|a| b.iter().any(|b| self.peer(a, b))),
        }
    }

    fn peer(&self, a: &Peer, b: &Peer) -> bool {
        let snapshot = self.snapshot;
        if let (Some(a), Some(b)) = (addresses(a), addresses(b)) {
            return a.meets(&b);
        }
        let common = |workload: &Arc<Workload>| {
            means_workload(snapshot, a, workload) && means_workload(snapshot, b, workload)
        };
        snapshot.workloads.values().any(common)
            || peer_includes(snapshot, a, b)
            || peer_includes(snapshot, b, a)
    }

    /// True when the later rule is the general one and the earlier its exception.
    fn includes(&self, later: &PlacedRule<'_>, earlier: &PlacedRule<'_>) -> bool {
        let peers = match (&later.rule.peers, &earlier.rule.peers) {
            (Peers::Any, _) => true,
            (Peers::OneOf(wide), Peers::OneOf(narrow)) => {
                narrow.iter().all(|narrow| wide.iter().any(|wide| self.is_wider(wide, narrow)))
            }
            _ => false,
        };
        peers && later.ports.includes(&earlier.ports)
    }

    fn is_wider(&self, wide: &Peer, narrow: &Peer) -> bool {
        match (addresses(wide), addresses(narrow)) {
            (Some(wide), Some(narrow)) => wide.includes(&narrow),
            _ => peer_includes(self.snapshot, wide, narrow),
        }
    }
}
