//! Nodes, and places for pods on them: for suites that bring their own addresses and change who lives where. A place is
//! a network namespace with one address; which pod it is at a time is the workload list's to say. Owns the topology
//! and each node's files.
//!
//! ```text
//!  place eth0 ── veth ── node-0 uplink ── veth ── uplink node-1 ── veth ── eth0 place
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::agent::Station;
use crate::lab::{builder, unique};
use crate::reaper::Tree;
use crate::{Agent, Namespace};

/// A node that will be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodePlan {
    /// Its name.
    pub name: &'static str,
    /// Its addresses, IPv4 then IPv6.
    pub addresses: [IpAddr; 2],
}

/// Where a pod will be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlacePlan {
    /// Index of its node.
    pub node: usize,
    /// Its address.
    pub address: IpAddr,
}

/// One or two nodes with their places; removed on drop.
#[derive(Debug)]
pub struct Cluster {
    /// The places, as planned.
    pub places: Vec<Place>,
    /// The nodes, as planned.
    pub nodes: Vec<Node>,
}

/// A network namespace for a pod.
#[derive(Debug)]
pub struct Place {
    /// Where it was planned.
    pub plan: PlacePlan,
    /// Name of the node's side of its interface.
    pub interface: String,
    /// The network namespace.
    pub namespace: Namespace,
}

/// A node and the files of its agent.
#[derive(Debug)]
pub struct Node {
    /// What was planned.
    pub plan: NodePlan,
    /// Its network namespace.
    pub namespace: Namespace,
    policies: PathBuf,
    workloads: PathBuf,
    pins: Tree,
    directory: Tree,
}

impl Cluster {
    /// Makes it. Each node's policy directory is empty; no agent runs.
    ///
    /// # Errors
    /// Without root, or when a program it needs is missing.
    pub fn start(nodes: &[NodePlan], places: &[PlacePlan]) -> Result<Self> {
        let nodes = nodes.iter().map(Node::create).collect::<Result<Vec<_>>>()?;
        join(&nodes)?;
        let mut cluster = Self { places: Vec::new(), nodes };
        for (number, plan) in places.iter().enumerate() {
            cluster.places.push(place(&cluster.nodes, number, *plan)?);
        }
        Ok(cluster)
    }

    /// The place of an address.
    ///
    /// # Panics
    /// When none was planned there.
    pub fn place(&self, address: IpAddr) -> &Place {
        self.places.iter().find(|place| place.plan.address == address).expect("a planned address")
    }
}

impl Node {
    fn create(plan: &NodePlan) -> Result<Self> {
        let name = unique();
        let directory = Tree::create(&Path::new("/run").join(&name))?;
        let pins = Tree::adopt(&Path::new("/sys/fs/bpf").join(&name))?;
        let policies = directory.path().join("policy");
        std::fs::create_dir(&policies)?;
        let namespace = Namespace::create(&name)?;
        namespace.sysctl("ipv4/ip_forward", "1")?;
        namespace.sysctl("ipv6/conf/all/forwarding", "1")?;
        let workloads = policies.join("workloads.yaml");
        Ok(Self { plan: plan.clone(), namespace, policies, workloads, pins, directory })
    }

    /// Starts its agent and returns once that enforces.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent(&self) -> Result<Agent<'_>> {
        let station = Station {
            node: &self.namespace,
            name: self.plan.name,
            policies: &self.policies,
            workloads: &self.workloads,
            pins: self.pins.path(),
            socket: self.directory.path().join("enforcer.sock"),
        };
        Agent::start(station, &[])
    }

    /// Writes a file of the policy directory, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let hidden = self.directory.path().join(file);
        std::fs::write(&hidden, text).with_context(|| format!("failed to write {}", hidden.display()))?;
        let path = self.policies.join(file);
        std::fs::rename(&hidden, &path).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// Gives every node its addresses, on the interface to the other one; with a single node that leads nowhere.
fn join(nodes: &[Node]) -> Result<()> {
    match nodes {
        [only] => only.namespace.ip("link add uplink type veth peer name nowhere\nlink set nowhere up\n")?,
        [one, other] => one
            .namespace
            .ip(&format!("link add uplink type veth peer name uplink netns {}\n", other.namespace.name()))?,
        _ => anyhow::bail!("one node or two"),
    }
    for node in nodes {
        let [v4, v6] = node.plan.addresses;
        node.namespace.ip(&format!(
            "link set uplink up\naddr add {v4}/24 dev uplink\naddr add {v6}/64 dev uplink nodad\n"
        ))?;
    }
    Ok(())
}

/// Makes one place; the other node finds the way to it over its own.
fn place(nodes: &[Node], number: usize, plan: PlacePlan) -> Result<Place> {
    let PlacePlan { node, address } = plan;
    let interface = format!("place{number}");
    let own = &nodes[node].namespace;
    let namespace = Namespace::create(&format!("{}-{number}", own.name()))?;
    builder::connect(own, &interface, &namespace)?;
    builder::settle(own, &interface, &namespace, address)?;
    let is_v4 = address.is_ipv4();
    let gateway = nodes[node].plan.addresses[usize::from(!is_v4)];
    let bits = if is_v4 { 32 } else { 128 };
    for (_, other) in nodes.iter().enumerate().filter(|(index, _)| *index != node) {
        other.namespace.ip(&format!("route add {address}/{bits} via {gateway}\n"))?;
    }
    Ok(Place { plan, interface, namespace })
}
