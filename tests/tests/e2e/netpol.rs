//! Kubernetes' own tests of NetworkPolicy (`tests/conformance/k8s-netpol-e2e`), with real pods on every node of the cluster. Owns
//! how a step's state is brought about and how it is known to be in force: cells are asked until all are as they must be,
//! and then once more. SCTP has no sockets everywhere: here are TCP and UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use enforcer_core::object::WorkloadId;
use enforcer_core::protocol::Protocol;
use enforcer_tests::conformance::{Cell, Step, Suite};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::kube::{AGNHOST, Kube, node_name};
use enforcer_tests::probe::{Attempt, Greeters, probe};
use enforcer_tests::{Namespace, Outcome};
use serde_json::{Value, json};

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] = &[("the_suite_of_kubernetes_passes", the_suite_of_kubernetes_passes)];

/// How long a denied connection is waited for.
const SILENCE: Duration = Duration::from_millis(700);
/// Every port that the suite asks about, as pods declare them.
const PORTS: [(Protocol, u16); 4] =
    [(Protocol::TCP, 80), (Protocol::TCP, 81), (Protocol::UDP, 80), (Protocol::UDP, 81)];

/// The pods, made once for all cases: the suite's labels follow each step.
struct World {
    pods: BTreeMap<WorkloadId, (Namespace, IpAddr)>,
    _greeters: Greeters,
}

fn the_suite_of_kubernetes_passes(cluster: &Kube) -> Result<()> {
    let suite = Suite::k8s_netpol_e2e()?;
    let world = World::make(cluster, &suite)?;
    let mut cells = 0;
    for case in &suite.cases {
        for (number, step) in case.steps.iter().enumerate() {
            let asked: Vec<&Cell> =
                step.cells.iter().filter(|cell| cell.protocol != Protocol::SCTP).collect();
            if asked.is_empty() {
                continue;
            }
            let place = || format!("{}, step {}", case.name, number + 1);
            world.enter(cluster, step).with_context(place)?;
            world.await_cells(step, &asked).with_context(place)?;
            cells += asked.len();
        }
    }
    ensure!(cells == 476, "the suite has 476 cells of TCP and UDP, {cells} were asked");
    let namespaces: BTreeSet<&str> = world.pods.keys().map(|id| id.namespace.as_str()).collect();
    let arguments: Vec<&str> =
        ["delete", "namespace", "--wait=false"].into_iter().chain(namespaces).collect();
    cluster.kubectl(&arguments).map(drop)
}

impl World {
    fn make(cluster: &Kube, suite: &Suite) -> Result<Self> {
        let has_sockets = |step: &&Step| step.cells.iter().any(|cell| cell.protocol != Protocol::SCTP);
        let ids: BTreeSet<&WorkloadId> =
            suite.steps().filter(has_sockets).flat_map(|step| step.pods.iter().map(|pod| &pod.id)).collect();
        let namespaces: BTreeSet<&str> = ids.iter().map(|id| id.namespace.as_str()).collect();
        for namespace in &namespaces {
            cluster.namespace(namespace, &[])?;
        }
        let pods: Vec<Value> = ids
            .iter()
            .enumerate()
            .map(|(index, id)| pod(id, &BTreeMap::new(), index % cluster.nodes.len()))
            .collect();
        cluster.apply(&list(pods))?;
        for namespace in namespaces {
            cluster.ready(namespace, "pod --all")?;
        }
        let mut found = BTreeMap::new();
        for id in ids {
            let network = cluster.network(&id.namespace, &id.name)?;
            let addresses = cluster.addresses(&id.namespace, &id.name)?;
            let v4 = addresses.into_iter().find(IpAddr::is_ipv4).context("a pod with an address of IPv4")?;
            found.insert(id.clone(), (network, v4));
        }
        let servers: Vec<_> = found
            .values()
            .flat_map(|(network, address)| {
                PORTS.map(|(protocol, port)| (network, protocol, SocketAddr::new(*address, port)))
            })
            .collect();
        let greeters = Greeters::serve(&servers)?;
        Ok(Self { _greeters: greeters, pods: found })
    }

    /// Brings a step's state about: labels of namespaces and pods, and its policies instead of those before.
    fn enter(&self, cluster: &Kube, step: &Step) -> Result<()> {
        let text = serde_json::to_string(&step.objects)?;
        let mut objects: Vec<Value> = serde_json::from_str(&self.with_real_addresses(&text, step))?;
        let policies = |objects: &[Value]| -> BTreeSet<(String, String)> {
            let of = |object: &&Value| object["kind"] == "NetworkPolicy";
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name =
                |object: &Value| (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
            objects.iter().filter(of).map(name).collect()
        };
        let wanted = policies(&objects);
        let there: Value = serde_json::from_str(&cluster.kubectl(&[
            "get",
            "networkpolicy",
            "--all-namespaces",
            "-o",
            "json",
        ])?)?;
        for (namespace, name) in policies(there["items"].as_array().context("a list")?) {
            if !wanted.contains(&(namespace.clone(), name.clone())) {
                cluster.kubectl(&["-n", &namespace, "delete", "networkpolicy", &name])?;
            }
        }
        let ids: Vec<&WorkloadId> = self.pods.keys().collect();
        for written in &step.pods {
            let index = ids.iter().position(|id| **id == written.id).context("a pod that was made")?;
            objects.push(pod(&written.id, &written.labels, index % cluster.nodes.len()));
        }
        cluster.apply(&list(objects)).map(drop)
    }

    /// Policies of the suite name its pods' addresses; these pods have others.
    fn with_real_addresses(&self, text: &str, step: &Step) -> String {
        let real = |word: &str| {
            let address: IpAddr = word.strip_suffix("/32")?.parse().ok()?;
            let pod = step.pods.iter().find(|pod| pod.address == address)?;
            Some(format!("{}/32", self.pods[&pod.id].1))
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
                namespace: &of(cell.from).0,
                protocol: cell.protocol,
                port: 0,
                server: SocketAddr::new(of(cell.to).1, cell.port),
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
}

fn list(items: Vec<Value>) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// A pod of the suite: it declares every port, which is served by the story.
fn pod(id: &WorkloadId, labels: &BTreeMap<String, String>, node: usize) -> Value {
    let ports = PORTS.map(|(protocol, port)| {
        let name = format!("serve-{port}-{protocol}").to_lowercase();
        json!({"name": name, "containerPort": port, "protocol": protocol.to_string()})
    });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": id.name, "namespace": id.namespace, "labels": labels},
        "spec": {
            "nodeName": node_name(node),
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "ports": ports}],
        },
    })
}
