//! A cluster for cases that follow one another: a place for every address they have, servers for every port they ask
//! about, and the files of each step. Owns how a step is put in force and how that is known.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use enforcer_core::protocol::Protocol;
use enforcer_tests::cluster::{Cluster, NodePlan, PlacePlan};
use enforcer_tests::conformance::{Pod, Step};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::probe::Greeters;
use enforcer_tests::{Agent, Namespace};
use serde_json::{Value, json};

/// A workload beside those of the suites. Its policy changes with each step: when the agent decides about it by the
/// step's rule, everything that was written with that rule is in force.
const CANARY: &str = "canary";
/// Its address, and one it asks about.
const CANARY_ADDRESSES: [&str; 2] = ["192.0.2.10", "192.0.2.20"];
/// Ports of clients: below those that the system chooses.
const FIRST_PORT: u16 = 10_000;
const LAST_PORT: u16 = 32_000;

/// The kernel verifies the programs of each agent, which fills a core: at once, all would be late.
static STARTING: Mutex<()> = Mutex::new(());

/// A cluster with its servers.
pub(crate) struct World {
    // Fields are dropped in this order: servers before the namespaces they live in.
    _greeters: Greeters,
    cluster: Cluster,
    next_port: AtomicU16,
}

impl World {
    /// Makes what these steps need.
    pub(crate) fn make<'a>(steps: impl Iterator<Item = &'a Step>) -> Result<Self> {
        let (mut places, mut servers, mut nodes) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for step in steps {
            nodes = step.nodes.iter().map(|n| NodePlan { name: n.name, addresses: n.addresses }).collect();
            let pods = step.pods.iter().filter(|pod| !pod.on_host);
            places.extend(pods.map(|pod| PlacePlan { node: pod.node, address: pod.address }));
            servers.extend(step.cells.iter().filter(|cell| has_sockets(cell.protocol)).map(|cell| {
                let pod = &step.pods[cell.to];
                (pod.node, pod.on_host, cell.protocol, SocketAddr::new(pod.address, cell.port))
            }));
        }
        let cluster = Cluster::start(&nodes, &places.into_iter().collect::<Vec<_>>())?;
        for node in &cluster.nodes {
            node.namespace.ip("link add canary type veth peer name canary-far\nlink set canary up\n")?;
        }
        let server = |(node, on_host, protocol, address): &(usize, bool, Protocol, SocketAddr)| {
            (namespace(&cluster, *node, *on_host, address), *protocol, *address)
        };
        let greeters = Greeters::serve(&servers.iter().map(server).collect::<Vec<_>>())?;
        Ok(Self { _greeters: greeters, cluster, next_port: AtomicU16::new(FIRST_PORT) })
    }

    /// Starts each node's agent, with nothing to enforce yet.
    pub(crate) fn agents(&self) -> Result<Vec<Agent<'_>>> {
        for node in &self.cluster.nodes {
            node.write("workloads.yaml", &workloads(&[]).to_string())?;
            node.write("objects.yaml", &documents(&marker(0)))?;
        }
        let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        self.cluster.nodes.iter().map(|node| node.agent()).collect()
    }

    /// Puts a step in force on every node. Steps of one world have different numbers.
    pub(crate) fn enter(&self, agents: &[Agent<'_>], step: &Step, number: usize) -> Result<()> {
        let mut objects: Vec<Value> = step.nodes.iter().map(|node| node.manifest()).collect();
        objects.extend(step.objects.iter().cloned().chain(marker(number)));
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            let entries = step.pods.iter().filter(|pod| !pod.on_host);
            let entries: Vec<Value> = entries.map(|pod| self.entry(pod, pod.node == index)).collect();
            // The rule that is waited for is in the file that is written last.
            node.write("workloads.yaml", &workloads(&entries).to_string())?;
            node.write("objects.yaml", &documents(&objects))?;
        }
        agents.iter().try_for_each(|agent| await_rule(agent, &rule(number)))
    }

    /// A port nobody has connected from. A refusal is told once: a port that comes again, as those that the system chooses
    /// do, may meet one that stands.
    pub(crate) fn port(&self) -> u16 {
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        assert!((FIRST_PORT..=LAST_PORT).contains(&port), "a world has no more than its ports");
        port
    }

    /// Where a pod's processes are.
    pub(crate) fn namespace(&self, pod: &Pod) -> &Namespace {
        namespace(&self.cluster, pod.node, pod.on_host, &SocketAddr::new(pod.address, 0))
    }

    /// The node a pod is on.
    pub(crate) fn node(&self, pod: &Pod) -> &Namespace {
        &self.cluster.nodes[pod.node].namespace
    }

    /// A pod in the list of a node: its own ones by network namespace or by interface, so that both are in use.
    fn entry(&self, pod: &Pod, is_local: bool) -> Value {
        let ports: Vec<Value> = pod
            .ports
            .iter()
            .map(|port| {
                json!({"name": port.name, "protocol": port.protocol.to_string(), "containerPort": port.port})
            })
            .collect();
        let mut entry =
            json!({"name": pod.id.name, "namespace": pod.id.namespace, "labels": pod.labels, "ports": ports});
        let place = self.cluster.place(pod.address);
        if is_local && place.interface.ends_with(['0', '2', '4', '6', '8']) {
            entry["networkNamespace"] = json!(place.namespace.path());
            return entry;
        }
        entry["addresses"] = json!([pod.address]);
        if is_local {
            entry["interface"] = json!(place.interface);
        }
        entry
    }
}

/// True for protocols that are tried here.
pub(crate) fn has_sockets(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP)
}

fn namespace<'a>(cluster: &'a Cluster, node: usize, on_host: bool, address: &SocketAddr) -> &'a Namespace {
    if on_host { &cluster.nodes[node].namespace } else { &cluster.place(address.ip()).namespace }
}

/// Name of the rule that decides about the canary in a step.
fn rule(number: usize) -> String {
    format!("step-{number:04}")
}

/// Policy that only the canary notices, before every other.
fn marker(number: usize) -> [Value; 2] {
    [
        json!({"apiVersion": "enforcer.dev/v1alpha1", "kind": "Tier", "metadata": {"name": CANARY},
               "spec": {"order": 1, "defaultAction": "Pass"}}),
        json!({"apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy",
               "metadata": {"name": CANARY, "namespace": CANARY},
               "spec": {"tier": CANARY, "subject": {}, "egress": [{"name": rule(number), "action": "Allow"}]}}),
    ]
}

/// The list with the canary in it.
fn workloads(entries: &[Value]) -> Value {
    let canary = json!({"name": CANARY, "namespace": CANARY, "interface": CANARY,
                        "addresses": [CANARY_ADDRESSES[0]]});
    let all: Vec<&Value> = entries.iter().chain([&canary]).collect();
    json!({"apiVersion": "enforcer.dev/v1alpha1", "kind": "WorkloadList", "workloads": all})
}

fn documents(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// Waits until the agent decides by this rule.
fn await_rule(agent: &Agent<'_>, rule: &str) -> Result<()> {
    let canary = format!("{CANARY}/{CANARY}");
    let question = ["policy", "explain", "--from", &canary, "--to", CANARY_ADDRESSES[1], "--port", "80/tcp"];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = agent.cli(&question)?;
        let text = String::from_utf8_lossy(&answer.stdout);
        if text.contains(rule) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let log = agent.log().read(|all| all.join("\n"));
            bail!("the agent never decided by {rule}; it answered {text}\nand said\n{log}");
        }
    }
}
