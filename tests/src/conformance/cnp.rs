//! Form of the ClusterNetworkPolicy file: pods that stay, and states of policy with single connections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use enforcer_core::object::{NamedPort, WorkloadId};
use enforcer_core::protocol::Protocol;
use serde::Deserialize;
use serde_json::Value;

use super::{Case, Cell, Expected, Node, Pod, Step, index, namespace, network_policy, nodes, typed};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pods: Vec<WrittenPod>,
    states: Vec<State>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct WrittenPod {
    namespace: String,
    name: String,
    #[serde(rename = "IP")]
    ip: IpAddr,
    labels: BTreeMap<String, String>,
    host_network: bool,
    ports: Vec<WrittenPort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenPort {
    name: String,
    container_port: u16,
    protocol: Protocol,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct State {
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    cluster_network_policies: Vec<Value>,
    network_policies: Option<Vec<Value>>,
    pokes: Vec<Poke>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Poke {
    test: String,
    from: String,
    protocol: String,
    #[serde(rename = "toIP")]
    to_ip: IpAddr,
    to: String,
    port: u16,
    allowed: bool,
}

pub(super) fn cases(file: File) -> Result<Vec<Case>> {
    let nodes = nodes(2);
    let pods: Vec<Pod> = file.pods.into_iter().map(|pod| pod.place(&nodes)).collect::<Result<_>>()?;
    file.states.into_iter().enumerate().map(|(at, state)| case(at, state, &nodes, &pods)).collect()
}

impl WrittenPod {
    /// One with its node's network is where its address is; the number behind the name is the node of the others.
    fn place(self, nodes: &[Node]) -> Result<Pod> {
        let by_address = nodes.iter().position(|node| node.addresses.contains(&self.ip));
        ensure!(by_address.is_some() == self.host_network, "{} is not where it says it is", self.name);
        let node = by_address.unwrap_or(usize::from(self.name.ends_with("-1")));
        let port = |port: WrittenPort| NamedPort {
            name: port.name,
            protocol: port.protocol,
            port: port.container_port,
        };
        Ok(Pod {
            id: WorkloadId::new(self.namespace, self.name),
            labels: self.labels,
            address: self.ip,
            ports: self.ports.into_iter().map(port).collect(),
            node,
            on_host: self.host_network,
        })
    }
}

fn case(at: usize, state: State, nodes: &[Node], pods: &[Pod]) -> Result<Case> {
    let test = state.pokes.first().map(|poke| poke.test.clone()).unwrap_or_default();
    let mut objects: Vec<Value> =
        state.namespaces.iter().map(|(name, labels)| namespace(name, labels)).collect();
    let cluster = |policy| typed(policy, "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy");
    objects.extend(state.cluster_network_policies.into_iter().map(cluster));
    objects.extend(state.network_policies.into_iter().flatten().map(network_policy));
    let cells = state.pokes.iter().map(|poke| cell(poke, pods)).collect::<Result<_>>()?;
    let step = Step { objects, nodes: nodes.to_vec(), pods: pods.to_vec(), cells };
    Ok(Case { name: format!("{at} ({test})"), steps: vec![step] })
}

fn cell(poke: &Poke, pods: &[Pod]) -> Result<Cell> {
    let (from, to) = (index(pods, &poke.from)?, index(pods, &poke.to)?);
    ensure!(pods[to].address == poke.to_ip, "{} has another address than {}", poke.to, poke.to_ip);
    ensure!(from != to, "{} is asked about itself", poke.from);
    let protocol = poke.protocol.to_ascii_uppercase().parse()?;
    let expected = Expected { admitted: poke.allowed, sides: None };
    Ok(Cell { from, to, protocol, port: poke.port, expected })
}
