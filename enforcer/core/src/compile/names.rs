//! The name patterns of all rules in use, compiled; and what happens when they do not fit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enforcer_common::decide::Direction;

use super::order::Order;
use super::{Limits, Use};
use crate::fqdn::Pattern;
use crate::fqdn::automaton::{self, TooManyStates};
use crate::plan::Automaton;
use crate::policy::{Peer, Peers};
use crate::refusal::Refusal;

/// The compiled names.
#[derive(Debug)]
pub(super) struct Names {
    classes: HashMap<String, Vec<u32>>,
}

impl Names {
    /// The classes of names that a pattern matches, ascending.
    pub(super) fn of_pattern(&self, pattern: &Pattern) -> &[u32] {
        self.classes.get(pattern.as_str()).map_or(&[], Vec::as_slice)
    }
}

/// Compiles the patterns of the policies in use; returns the automaton and the patterns by class, too. When they do not all fit, those of the policies asked last are
/// left out and match nothing.
pub(super) fn compile(
    order: &Order,
    used: &BTreeSet<Use>,
    limits: &Limits,
    refused: &mut Vec<Refusal>,
) -> (Names, Automaton, BTreeMap<u32, Vec<String>>) {
    let naming: Vec<(usize, BTreeSet<&Pattern>)> = used
        .iter()
        .filter(|(_, direction)| *direction == Direction::Egress)
        .map(|(policy, _)| (*policy, patterns_of(order, *policy)))
        .filter(|(_, patterns)| !patterns.is_empty())
        .collect();
    let first = |count: usize| -> BTreeSet<Pattern> {
        naming[..count].iter().flat_map(|(_, patterns)| patterns).map(|pattern| (*pattern).clone()).collect()
    };
    let try_first = |count: usize| automaton::compile(&first(count), limits.name_states);
    let compiled = try_first(naming.len()).unwrap_or_else(|error| {
        let fitting = most_that_fit(naming.len(), |count| try_first(count).is_ok());
        let kept = first(fitting);
        for (policy, patterns) in &naming[fitting..] {
            if patterns.iter().any(|pattern| !kept.contains(*pattern)) {
                refused.push(refusal(order, *policy, &error));
            }
        }
        try_first(fitting).expect("it fitted when it was tried")
    });
    let mut classes: HashMap<String, Vec<u32>> = HashMap::new();
    for (class, patterns) in &compiled.patterns {
        patterns.iter().for_each(|pattern| classes.entry(pattern.clone()).or_default().push(*class));
    }
    (Names { classes }, compiled.automaton, compiled.patterns)
}

fn patterns_of(order: &Order, policy: usize) -> BTreeSet<&Pattern> {
    let rules = || order.rules(policy, Direction::Egress).into_iter().flatten();
    let peers = rules().filter_map(|rule| match &rule.peers {
        Peers::OneOf(peers) => Some(peers),
        Peers::Any => None,
    });
    let names = peers.flatten().filter_map(|peer| match peer {
        Peer::Name(pattern) => Some(pattern),
        _ => None,
    });
    names.chain(rules().flat_map(|rule| rule.queries.iter().flatten())).collect()
}

/// The largest count up to `all` that fits, by bisection; none always fits.
fn most_that_fit(all: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut fitting, mut too_many) = (0, all);
    while fitting + 1 < too_many {
        let middle = fitting.midpoint(too_many);
        if fits(middle) { fitting = middle } else { too_many = middle }
    }
    fitting
}

fn refusal(order: &Order, policy: usize, error: &TooManyStates) -> Refusal {
    Refusal {
        object: order.policies[policy].policy.id.object(),
        field: "spec.egress".to_owned(),
        reason: format!("{error}; names that only this policy mentions match nothing"),
    }
}
