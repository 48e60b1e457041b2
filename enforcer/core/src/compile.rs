//! The compiler: a snapshot becomes the numbered plan of one node. Pure and deterministic; every policy is either
//! in the plan or among the refusals.
//!
//! `lower` resolves peers that are given by other objects, `order` puts tiers and policies into their one order, `subjects` finds who is selected, `staging` what is in force, `peers` and
//! `identities` divide the addresses into classes, `names` does so for names, `tables` flattens
//! the rules. Source of the meaning: `policy.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use enforcer_common::abi::capacity;
use enforcer_common::decide::Direction;
use enforcer_common::policy::{MAX_ADDRESSES, Mode};

use crate::hierarchy;
use crate::object::{Namespace, Workload, WorkloadId};
use crate::plan::{EndpointPlan, Plan, StagedPlan};
use crate::refusal::{ObjectRef, Refusal};
use crate::snapshot::Snapshot;

mod identities;
mod lower;
mod names;
mod numbers;
mod order;
mod peers;
mod ports;
mod rows;
mod staging;
mod subjects;
mod tables;

/// What a plan may take up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most states of the name automaton.
    pub name_states: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { name_states: capacity::NAME_STATES as usize }
    }
}

/// A plan, and what could not become part of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Compiled {
    /// What is to be enforced.
    pub plan: Plan,
    /// What is not, and why; in the order of the objects.
    pub refused: Vec<Refusal>,
}

/// Compiles a snapshot for this node.
pub fn compile(snapshot: &Snapshot) -> Compiled {
    compile_within(snapshot, &Limits::default())
}

/// Compiles a snapshot for this node within `limits`.
pub fn compile_within(snapshot: &Snapshot, limits: &Limits) -> Compiled {
    let mut refused = Vec::new();
    let lowered = lower::lower(snapshot, &mut refused);
    let order = order::order(snapshot, &lowered, &mut refused);
    let selected = subjects::select(snapshot, &order);
    let staging = staging::Staging::of(snapshot, &order, &mut refused);
    let used = used(&order, &selected);
    let mut numbers = numbers::number(&order, &used);
    let peers = peers::collect(&order, &used);
    let identities = identities::divide(snapshot, &peers, &mut refused);
    let names = names::compile(&order, &used, limits, &mut refused);
    let mut tables = tables::Tables::new(&order, &numbers, &identities, &names);
    let mut endpoints = BTreeMap::new();
    for (workload, policies) in &selected {
        let (egress, ingress) = tables.pair(workload, &staging.enforced(policies), &mut refused);
        let staged = staging.previewed(policies).map(|policies| {
            let mut complaints = Vec::new();
            let (egress, ingress) = tables.pair(workload, &policies, &mut complaints);
            refused.extend(complaints.into_iter().map(about_staged));
            StagedPlan { egress, ingress }
        });
        let mode = mode(snapshot, workload);
        let addresses = addresses(workload, &mut refused);
        let endpoint = EndpointPlan { mode, addresses, egress, ingress, staged };
        endpoints.insert(workload.id.clone(), endpoint);
    }
    check_modes(snapshot, &mut refused);
    hierarchy::check(snapshot, &mut refused);
    refused.sort();
    refused.dedup();
    let tables = tables.finish();
    numbers.forget_unused_limits(&tables);
    let plan = Plan {
        endpoints,
        tables,
        identities: identities.prefixes.into_iter().collect(),
        names: names.automaton,
        rules: numbers.infos,
        patterns: names.patterns,
    };
    Compiled { plan, refused }
}

/// A complaint about what is evaluated beside.
fn about_staged(refusal: Refusal) -> Refusal {
    Refusal { field: format!("staged.{}", refusal.field), ..refusal }
}

/// A policy by its place in the order, and the direction its rules are of.
type Use = (usize, Direction);

/// Which policies select some local workload, by direction.
fn used(order: &order::Order<'_>, selected: &[(&Workload, Vec<usize>)]) -> BTreeSet<Use> {
    let policies: BTreeSet<usize> = selected.iter().flat_map(|(_, policies)| policies).copied().collect();
    let each =
        policies.into_iter().flat_map(|policy| [(policy, Direction::Egress), (policy, Direction::Ingress)]);
    each.filter(|(policy, direction)| order.rules(*policy, *direction).is_some()).collect()
}

/// The mode a namespace or its nearest ancestor chooses; the default where none chooses one that exists.
fn mode(snapshot: &Snapshot, workload: &Workload) -> Mode {
    let mut chosen = snapshot
        .and_ancestors(&workload.id.namespace)
        .filter_map(|name| snapshot.namespace_label(name, Namespace::MODE_LABEL));
    chosen.find_map(parse_mode).unwrap_or(snapshot.default_mode)
}

/// The mode of this name.
pub(crate) fn parse_mode(text: &str) -> Option<Mode> {
    match text {
        "observe" => Some(Mode::Observe),
        "policy" => Some(Mode::Policy),
        "enforce" => Some(Mode::Enforce),
        _ => None,
    }
}

fn check_modes(snapshot: &Snapshot, refused: &mut Vec<Refusal>) {
    for namespace in snapshot.namespaces.values() {
        let Some(text) = namespace.label(Namespace::MODE_LABEL) else { continue };
        if parse_mode(text).is_none() {
            refused.push(Refusal {
                object: ObjectRef {
                    kind: "Namespace".to_owned(),
                    namespace: None,
                    name: namespace.name.clone(),
                },
                field: format!("metadata.labels[{}]", Namespace::MODE_LABEL),
                reason: format!(
                    "{text:?} is no mode: write observe, policy or enforce; it counts as if it were not there"
                ),
            });
        }
    }
}

/// The workload's own addresses, each once; those beyond the limit are left out, so that it cannot use them.
fn addresses(workload: &Workload, refused: &mut Vec<Refusal>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in workload.addresses.iter().map(IpAddr::to_canonical) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.len() > MAX_ADDRESSES {
        refused.push(Refusal {
            object: workload_object(&workload.id),
            field: format!("addresses[{MAX_ADDRESSES}]"),
            reason: format!(
                "only {MAX_ADDRESSES} addresses of a workload are supported; it cannot use the others"
            ),
        });
        addresses.truncate(MAX_ADDRESSES);
    }
    addresses
}

fn workload_object(id: &WorkloadId) -> ObjectRef {
    ObjectRef { kind: "Workload".to_owned(), namespace: Some(id.namespace.clone()), name: id.name.clone() }
}

#[cfg(test)]
mod tests;
