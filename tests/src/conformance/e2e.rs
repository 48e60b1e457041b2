//! Form of the file of Kubernetes' own tests: per step the whole cluster, one port, and whom each pod reaches on it.

use std::collections::BTreeMap;

use anyhow::Result;
use enforcer_core::protocol::Protocol;
use serde::Deserialize;
use serde_json::Value;

use super::cyclonus::WrittenPod;
use super::{Case, Cell, Expected, Pod, Step, index, namespace, network_policy, nodes};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCase {
    name: String,
    suite: String,
    steps: Vec<WrittenStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    port: u16,
    protocol: Protocol,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pods: Vec<WrittenPod>,
    policies: Option<Vec<Value>>,
    expected: BTreeMap<String, BTreeMap<String, bool>>,
}

pub(super) fn cases(file: Vec<WrittenCase>) -> Result<Vec<Case>> {
    file.into_iter().map(case).collect()
}

fn case(case: WrittenCase) -> Result<Case> {
    let steps = case.steps.into_iter().map(step).collect::<Result<_>>()?;
    Ok(Case { name: format!("{}: {}", case.suite, case.name), steps })
}

fn step(step: WrittenStep) -> Result<Step> {
    let mut objects: Vec<Value> =
        step.namespaces.iter().map(|(name, labels)| namespace(name, labels)).collect();
    objects.extend(step.policies.into_iter().flatten().map(network_policy));
    let pods: Vec<Pod> = step.pods.into_iter().map(|pod| pod.place(false)).collect::<Result<_>>()?;
    let mut cells = Vec::new();
    for (from, row) in &step.expected {
        for (to, admitted) in row.iter().filter(|(to, _)| *to != from) {
            cells.push(Cell {
                from: index(&pods, from)?,
                to: index(&pods, to)?,
                protocol: step.protocol,
                port: step.port,
                expected: Expected { admitted: *admitted, sides: None },
            });
        }
    }
    Ok(Step { objects, nodes: nodes(1), pods, cells })
}
