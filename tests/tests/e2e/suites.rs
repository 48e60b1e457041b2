//! Suites of others with real pods on every node of the cluster. Owns how a step's state is brought about and how it is known to be
//! in force: cells are asked until all are as they must be, and then once more. SCTP has no sockets everywhere: here are TCP
//! and UDP.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use enforcer_core::object::WorkloadId;
use enforcer_core::protocol::Protocol;
use enforcer_tests::conformance::{self, Cell, Step, Suite};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::kube::{AGNHOST, Kube, address, node_name};
use enforcer_tests::probe::{Attempt, Greeters, probe};
use enforcer_tests::{Namespace, Outcome};
use serde_json::{Value, json};

/// How long a denied connection is waited for.
const SILENCE: Duration = Duration::from_millis(700);

/// Name, number and protocol of ports.
type Ports = BTreeSet<(String, u16, String)>;
/// Kind, namespace and name of a policy.
type Policy = (String, String, String);

/// The pods of a suite, made once for all its cases: labels and policies follow each step.
pub(crate) struct World<'a> {
    cluster: &'a Kube,
    pods: BTreeMap<WorkloadId, Made>,
    /// Policies of the latest step.
    policies: RefCell<BTreeSet<Policy>>,
    _greeters: Greeters,
}

/// A pod that was made.
struct Made {
    network: Namespace,
    address: IpAddr,
    manifest: Value,
}

/// Plays every case, and returns how many cells were asked. Nothing is left of it.
pub(crate) fn play(cluster: &Kube, suite: &Suite) -> Result<usize> {
    let world = World::make(cluster, suite)?;
    let mut cells = 0;
    for case in &suite.cases {
        for (number, step) in case.steps.iter().enumerate() {
            let asked: Vec<&Cell> = step.cells.iter().filter(|cell| has_sockets(cell)).collect();
            if asked.is_empty() {
                continue;
            }
            let place = || format!("{}, step {}", case.name, number + 1);
            world.enter(step).with_context(place)?;
            world.await_cells(step, &asked).with_context(place)?;
            cells += asked.len();
        }
    }
    world.leave()?;
    Ok(cells)
}

fn has_sockets(cell: &Cell) -> bool {
    cell.protocol != Protocol::SCTP
}

impl<'a> World<'a> {
    fn make(cluster: &'a Kube, suite: &Suite) -> Result<Self> {
        let manifests = manifests(suite, cluster.nodes.len());
        let namespaces: BTreeSet<&str> = manifests.keys().map(|id| id.namespace.as_str()).collect();
        for namespace in &namespaces {
            cluster.namespace(namespace, &[])?;
        }
        cluster.apply(&list(manifests.values().cloned().collect()))?;
        for namespace in namespaces {
            cluster.ready(namespace, "pod --all")?;
        }
        let mut pods = BTreeMap::new();
        for (id, manifest) in manifests {
            pods.insert(id.clone(), Made::find(cluster, &id, manifest)?);
        }
        let asked = suite.steps().flat_map(|step| {
            let cells = step.cells.iter().filter(|cell| has_sockets(cell));
            cells.map(|cell| (&step.pods[cell.to].id, cell.protocol, cell.port))
        });
        let asked: BTreeSet<_> = asked.collect();
        let servers: Vec<_> = asked
            .into_iter()
            .map(|(id, protocol, port)| {
                (&pods[id].network, protocol, SocketAddr::new(pods[id].address, port))
            })
            .collect();
        let greeters = Greeters::serve(&servers)?;
        Ok(Self { cluster, policies: RefCell::default(), _greeters: greeters, pods })
    }

    /// Brings a step's state about: labels of namespaces and pods, and its policies instead of those before.
    fn enter(&self, step: &Step) -> Result<()> {
        let text = serde_json::to_string(&step.objects)?;
        let mut objects: Vec<Value> = serde_json::from_str(&self.with_real_addresses(&text, step))?;
        let wanted: BTreeSet<Policy> = objects.iter().filter_map(policy).collect();
        let before = self.policies.replace(wanted.clone());
        for (kind, namespace, name) in before.difference(&wanted) {
            let mut arguments = vec!["delete", kind.as_str(), name.as_str(), "--wait=false"];
            arguments.extend(["--namespace", namespace].into_iter().filter(|_| !namespace.is_empty()));
            self.cluster.kubectl(&arguments)?;
        }
        for written in &step.pods {
            let mut manifest = self.pods[&written.id].manifest.clone();
            manifest["metadata"]["labels"] = json!(written.labels);
            objects.push(manifest);
        }
        self.cluster.apply(&list(objects)).map(drop)
    }

    /// Policies of a suite name its pods' addresses; these pods have others.
    fn with_real_addresses(&self, text: &str, step: &Step) -> String {
        let real = |word: &str| {
            let address: IpAddr = word.strip_suffix("/32")?.parse().ok()?;
            let pod = step.pods.iter().find(|pod| pod.address == address)?;
            Some(format!("{}/32", self.pods[&pod.id].address))
        };
        let words = text.split('"').map(|word| real(word).unwrap_or_else(|| word.to_owned()));
        words.collect::<Vec<_>>().join("\"")
    }

    fn await_cells(&self, step: &Step, cells: &[&Cell]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut has_been_right = false;
        loop {
            let wrong = self.wrong(step, cells)?;
            if wrong.is_empty() && has_been_right {
                return Ok(());
            }
            has_been_right = wrong.is_empty();
            if Instant::now() > deadline {
                bail!("{} of {} cells are wrong:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
            }
        }
    }

    /// Asks every cell at once; tells those that are not as they must be.
    fn wrong(&self, step: &Step, cells: &[&Cell]) -> Result<Vec<String>> {
        let of = |pod: usize| &self.pods[&step.pods[pod].id];
        let attempts: Vec<Attempt<'_>> = cells
            .iter()
            .map(|cell| Attempt {
                namespace: &of(cell.from).network,
                protocol: cell.protocol,
                port: 0,
                server: SocketAddr::new(of(cell.to).address, cell.port),
                patience: SILENCE,
            })
            .collect();
        let tell = |cell: &Cell, outcome: &Outcome| {
            let [from, to] = [cell.from, cell.to].map(|pod| &step.pods[pod].id);
            format!("{from} to {to} {}/{}: {outcome:?}", cell.protocol, cell.port)
        };
        let seen = probe(&attempts)?;
        let wrong =
            |(cell, outcome): &(&&Cell, Outcome)| (*outcome == Outcome::Connected) != cell.expected.admitted;
        let outcomes = cells.iter().zip(seen.into_iter().map(|seen| seen.outcome));
        Ok(outcomes.filter(wrong).map(|(cell, outcome)| tell(cell, &outcome)).collect())
    }

    /// Takes away what is not in a namespace, and the namespaces.
    fn leave(self) -> Result<()> {
        for (kind, namespace, name) in self.policies.take() {
            if namespace.is_empty() {
                self.cluster.kubectl(&["delete", &kind, &name])?;
            }
        }
        let namespaces: BTreeSet<&str> = self.pods.keys().map(|id| id.namespace.as_str()).collect();
        let arguments: Vec<&str> =
            ["delete", "namespace", "--wait=false"].into_iter().chain(namespaces).collect();
        self.cluster.kubectl(&arguments).map(drop)
    }
}

impl Made {
    /// Where the pod is: one with its node's network has the node's address.
    fn find(cluster: &Kube, id: &WorkloadId, manifest: Value) -> Result<Self> {
        if manifest["spec"]["hostNetwork"] == true {
            let on = |index: &usize| manifest["spec"]["nodeName"] == node_name(*index);
            let index = (0..cluster.nodes.len()).find(on).context("a pod of a node")?;
            let path = format!("/proc/{}/ns/net", cluster.nodes[index].number());
            let network = Namespace::open(&node_name(index), path.as_ref())?;
            return Ok(Self { network, address: address(index).into(), manifest });
        }
        let addresses = cluster.addresses(&id.namespace, &id.name)?;
        let v4 = addresses.into_iter().find(IpAddr::is_ipv4).context("a pod with an address of IPv4")?;
        Ok(Self { network: cluster.network(&id.namespace, &id.name)?, address: v4, manifest })
    }
}

fn list(items: Vec<Value>) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// What a policy is called; nothing for other objects.
fn policy(object: &Value) -> Option<Policy> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]).to_lowercase();
    let metadata = &object["metadata"];
    kind.ends_with("policy").then(|| (kind, text(&metadata["namespace"]), text(&metadata["name"])))
}

/// Every pod that is asked anything, with all ports it ever declares; where the suite has one node only, they are spread
/// over these.
fn manifests(suite: &Suite, nodes: usize) -> BTreeMap<WorkloadId, Value> {
    let asked = suite.steps().filter(|step| step.cells.iter().any(has_sockets));
    let mut pods: BTreeMap<WorkloadId, (&conformance::Pod, Ports)> = BTreeMap::new();
    let mut is_placed = false;
    for step in asked {
        is_placed |= step.nodes.len() > 1;
        for pod in &step.pods {
            let ports = &mut pods.entry(pod.id.clone()).or_insert((pod, Ports::new())).1;
            ports.extend(
                pod.ports.iter().map(|port| (port.name.clone(), port.port, port.protocol.to_string())),
            );
        }
    }
    let placed = pods.into_iter().enumerate().map(|(index, (id, (pod, ports)))| {
        let node = if is_placed { pod.node } else { index } % nodes;
        let manifest = manifest(&id, node, pod.on_host, ports);
        (id, manifest)
    });
    placed.collect()
}

/// A pod that serves nothing by itself: the story does.
fn manifest(id: &WorkloadId, node: usize, on_host: bool, ports: Ports) -> Value {
    let port = |(name, port, protocol)| json!({"name": name, "containerPort": port, "protocol": protocol});
    let ports: Vec<Value> = ports.into_iter().map(port).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": id.name, "namespace": id.namespace},
        "spec": {
            "nodeName": node_name(node),
            "hostNetwork": on_host,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "ports": ports}],
        },
    })
}
