//! The compiler: a snapshot becomes the numbered plan of one node. Pure and deterministic; every policy is either
//! in the plan or among the refusals.
//!
//! `lower` resolves peers that are given by other objects, `order` puts tiers and policies into their one order,
//! `subjects` finds who is selected, `staging` what is in force, `peers` and `identities` divide the addresses into
//! classes, `names` does so for names, `frontends` and `backends` say what becomes of packets to services, `tables`
//! flattens the rules. Source of the meaning: `policy.md`.

use std::net::IpAddr;

use enforcer_common::abi::capacity;
use enforcer_common::decide::Direction;
use enforcer_common::policy::{MAX_ADDRESSES, Mode};

use crate::object::{MODE_LABEL, Workload, WorkloadId};
use crate::plan::Plan;
use crate::refusal::{ObjectRef, Refusal};
use crate::snapshot::Snapshot;

use engine::Engine;

mod backends;
mod engine;
mod frontends;
mod identities;
mod incremental;
mod lower;
mod names;
mod numbers;
mod order;
mod owners;
mod peers;
mod ports;
mod regions;
mod rows;
mod staging;
mod subjects;
mod tables;

pub use incremental::{Compiler, Delta, Update};

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
    let engine = Engine::new(snapshot, limits, None);
    Compiled { refused: engine.refused(), plan: engine.plan }
}

/// A policy by its place in the order, and the direction its rules are of.
type Use = (usize, Direction);

/// The mode that a workload chooses, else its namespace, else the nearest ancestor; the default where none chooses one
/// that exists.
fn mode(snapshot: &Snapshot, workload: &Workload) -> Mode {
    let own = workload.labels.get(MODE_LABEL).map(String::as_str).into_iter();
    let inherited = snapshot
        .and_ancestors(&workload.id.namespace)
        .filter_map(|name| snapshot.namespace_label(name, MODE_LABEL));
    own.chain(inherited).find_map(parse_mode).unwrap_or(snapshot.default_mode)
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
        let object =
            || ObjectRef { kind: "Namespace".to_owned(), namespace: None, name: namespace.name.clone() };
        check_mode(namespace.label(MODE_LABEL), "metadata.labels", object, refused);
    }
}

/// Refuses what is no mode in the labels of an object, `labels`.
fn check_mode(
    text: Option<&str>,
    labels: &str,
    object: impl FnOnce() -> ObjectRef,
    refused: &mut Vec<Refusal>,
) {
    let Some(text) = text.filter(|text| parse_mode(text).is_none()) else { return };
    refused.push(Refusal {
        object: object(),
        field: format!("{labels}[{MODE_LABEL}]"),
        reason: format!(
            "{text:?} is no mode: write observe, policy or enforce; it counts as if it were not there"
        ),
    });
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
