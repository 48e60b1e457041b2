//! Form of the cyclonus files: per step the whole cluster and three matrices, one row per pod that connects, in it
//! one letter per pod that answers and port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use enforcer_core::object::WorkloadId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Case, Cell, Expected, Pod, Sides, Step, index, named_port, namespace, network_policy, nodes};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "source")]
    _source: IgnoredAny,
    layout: String,
    #[serde(rename = "tag_counts")]
    _tag_counts: IgnoredAny,
    cases: Vec<WrittenCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    id: u32,
    description: String,
    #[serde(rename = "tags")]
    _tags: IgnoredAny,
    #[serde(rename = "features")]
    _features: IgnoredAny,
    steps: Vec<WrittenStep>,
}

/// The cluster as it is after `actions`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    #[serde(rename = "probe")]
    _probe: IgnoredAny,
    #[serde(rename = "actions")]
    _actions: IgnoredAny,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pods: Vec<WrittenPod>,
    policies: Vec<Value>,
    expected: Matrices,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenPod {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    ip: IpAddr,
    ports: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrices {
    pods: Vec<String>,
    ports: Vec<String>,
    ingress: Vec<String>,
    egress: Vec<String>,
    combined: Vec<String>,
}

pub(super) fn cases(file: File) -> Result<Vec<Case>> {
    let two = match file.layout.as_str() {
        "twonode4" => true,
        "flat4" | "flat6" => false,
        other => bail!("unknown layout {other}"),
    };
    file.cases.into_iter().map(|case| self::case(case, two)).collect()
}

fn case(case: WrittenCase, two_nodes: bool) -> Result<Case> {
    let steps = case.steps.into_iter().map(|step| self::step(step, two_nodes)).collect::<Result<_>>()?;
    Ok(Case { name: format!("{} ({})", case.id, case.description), steps })
}

fn step(step: WrittenStep, two_nodes: bool) -> Result<Step> {
    let mut objects: Vec<Value> =
        step.namespaces.iter().map(|(name, labels)| namespace(name, labels)).collect();
    objects.extend(step.policies.into_iter().map(network_policy));
    let pods: Vec<Pod> = step.pods.into_iter().map(|pod| pod.place(two_nodes)).collect::<Result<_>>()?;
    let cells = cells(&pods, &step.expected)?;
    Ok(Step { objects, nodes: nodes(if two_nodes { 2 } else { 1 }), pods, cells })
}

impl WrittenPod {
    /// With two nodes, the third octet of the address is the node's number, from 1.
    pub(super) fn place(self, two_nodes: bool) -> Result<Pod> {
        let node = match self.ip {
            IpAddr::V4(ip) if two_nodes => match ip.octets()[2] {
                1 => 0,
                2 => 1,
                _ => bail!("{ip} is on no node"),
            },
            _ => 0,
        };
        Ok(Pod {
            id: WorkloadId::new(self.namespace, self.name),
            labels: self.labels,
            address: self.ip,
            ports: self.ports.iter().map(|port| named_port(port)).collect::<Result<_>>()?,
            node,
            on_host: false,
        })
    }
}

fn cells(pods: &[Pod], matrices: &Matrices) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    let places: Vec<usize> = matrices.pods.iter().map(|name| index(pods, name)).collect::<Result<_>>()?;
    for (row, from) in places.iter().enumerate() {
        for (column, to) in places.iter().enumerate().filter(|(_, to)| *to != from) {
            for (place, port) in matrices.ports.iter().enumerate() {
                let at = column * matrices.ports.len() + place;
                let says = |matrix: &[String]| letter(matrix, row, at);
                let sides = Sides { egress: says(&matrices.egress)?, ingress: says(&matrices.ingress)? };
                let admitted = says(&matrices.combined)?;
                ensure!(
                    admitted == (sides.egress && sides.ingress),
                    "row {row}, letter {at}: not both sides'"
                );
                let port = named_port(&format!("{port}/"))?;
                let expected = Expected { admitted, sides: Some(sides) };
                cells.push(Cell { from: *from, to: *to, protocol: port.protocol, port: port.port, expected });
            }
        }
    }
    Ok(cells)
}

/// True when the letter says that it is admitted.
fn letter(matrix: &[String], row: usize, at: usize) -> Result<bool> {
    match matrix.get(row).and_then(|row| row.as_bytes().get(at)) {
        Some(b'.') => Ok(true),
        Some(b'X') => Ok(false),
        _ => bail!("row {row}, letter {at}: neither '.' nor 'X'"),
    }
}
