//! The product as a platform team installs it: by the chart, with real pods. What is in force must outlive agents and the API
//! server, and uninstalling must leave nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use enforcer_core::protocol::Protocol;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::kube::{Kube, chart, node_name};
use enforcer_tests::probe::{Attempt, Greeters, probe};
use enforcer_tests::{Namespace, Outcome, kube};
use serde_json::{Value, json};

use super::{Story, ways};

/// What comes first in every cluster that has the product.
pub(crate) const BEGIN: &[Story] = &[("the_chart_installs", the_chart_installs)];
/// What is in force, whatever happens to agents and API server. Each leaves the cluster as it was.
pub(crate) const LIFE: &[Story] = &[
    ("a_rolling_update_lets_nothing_through_and_loses_nothing", a_rolling_update),
    ("agents_that_crash_leave_policy_in_force", agents_that_crash),
    ("without_the_api_server_policy_stays_in_force", without_the_api_server),
    ("an_interface_that_is_renamed_stays_enforced", an_interface_that_is_renamed),
];
/// What comes last.
pub(crate) const END: &[Story] = &[("uninstalling_leaves_the_nodes_clean", uninstalling)];

/// How long a denied connection is waited for.
const SILENCE: Duration = Duration::from_millis(700);

fn the_chart_installs(cluster: &Kube) -> Result<()> {
    cluster.give_image()?;
    cluster.install(&[])?;
    for node in 0..cluster.nodes.len() {
        let status = status(cluster, node)?;
        let is_whole = !status.to_string().contains("failed to make an interface");
        ensure!(status["node"] == node_name(node) && is_whole, "{status:#}");
    }
    Ok(())
}

/// What the agent of a node says of itself.
pub(crate) fn status(cluster: &Kube, node: usize) -> Result<Value> {
    let said = enforcer(cluster, node, &["status", "-o", "json"])?;
    serde_json::from_str(&said).with_context(|| format!("the status is no JSON: {said}"))
}

/// Runs the command in the agent's container on a node.
pub(crate) fn enforcer(cluster: &Kube, node: usize, arguments: &[&str]) -> Result<String> {
    let selector = format!("--field-selector=spec.nodeName={}", node_name(node));
    let pod = ["-n", chart::NAMESPACE, "get", "pod", &selector, "-o", "jsonpath={.items[0].metadata.name}"];
    let pod = cluster.kubectl(&pod)?;
    let command = [&["-n", chart::NAMESPACE, "exec", pod.trim(), "--", "enforcer"], arguments].concat();
    cluster.kubectl(&command)
}

/// Two pods of one namespace, the server on the last node; the policy admits one of two ports.
pub(crate) struct Pair {
    client: Namespace,
    server: IpAddr,
    _greeters: Greeters,
}

/// Port that the policy admits, and one that it does not.
const OPEN: u16 = 80;
const CLOSED: u16 = 81;

impl Pair {
    /// Makes it and waits until the policy is in force.
    pub(crate) fn make(cluster: &Kube, namespace: &str) -> Result<Self> {
        cluster.namespace(namespace, &[])?;
        Self::again(cluster, namespace)
    }

    /// As [`Self::make`], in a namespace that is there already.
    pub(crate) fn again(cluster: &Kube, namespace: &str) -> Result<Self> {
        let pair = Self::unenforced(cluster, namespace)?;
        pair.await_policy()?;
        Ok(pair)
    }

    /// As [`Self::again`], whether or not anybody enforces the policy.
    pub(crate) fn unenforced(cluster: &Kube, namespace: &str) -> Result<Self> {
        cluster.pod(namespace, "server", &node_name(cluster.nodes.len() - 1), &["pause"])?;
        cluster.pod(namespace, "client", &node_name(0), &["pause"])?;
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "one-port", "namespace": namespace},
            "spec": {
                "podSelector": {"matchLabels": {"app": "server"}},
                "ingress": [{"ports": [{"port": OPEN, "protocol": "TCP"}]}],
            },
        });
        cluster.apply(&policy.to_string())?;
        Self::between(cluster, namespace)
    }

    /// The pods that there are.
    pub(crate) fn between(cluster: &Kube, namespace: &str) -> Result<Self> {
        let server = cluster.addresses(namespace, "server")?[0];
        let network = cluster.network(namespace, "server")?;
        let ports = [OPEN, CLOSED].map(|port| (&network, Protocol::TCP, SocketAddr::new(server, port)));
        let greeters = Greeters::serve(&ports)?;
        Ok(Self { client: cluster.network(namespace, "client")?, server, _greeters: greeters })
    }

    /// What becomes of a connection to each port.
    fn ask(&self) -> Result<BTreeMap<u16, Outcome>> {
        let attempts = [(OPEN, PATIENCE), (CLOSED, SILENCE)].map(|(port, patience)| Attempt {
            namespace: &self.client,
            protocol: Protocol::TCP,
            port: 0,
            server: SocketAddr::new(self.server, port),
            patience,
        });
        let seen = probe(&attempts)?.into_iter().map(|seen| seen.outcome);
        Ok([OPEN, CLOSED].into_iter().zip(seen).collect())
    }

    /// Waits until the policy is in force.
    fn await_policy(&self) -> Result<()> {
        self.awaits([true, false])
    }

    /// Waits until connections to these ports, the first and the second one, succeed, and to the others are denied.
    pub(crate) fn awaits(&self, open: [bool; 2]) -> Result<()> {
        let outcome = |is_open| if is_open { Outcome::Connected } else { Outcome::TimedOut };
        let wanted: BTreeMap<u16, Outcome> = [OPEN, CLOSED].into_iter().zip(open.map(outcome)).collect();
        let deadline = Instant::now() + kube::PATIENCE;
        loop {
            let seen = self.ask()?;
            if seen == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the policy is not in force: {seen:?}");
            }
        }
    }

    /// Asks again and again while `work` goes on: what is denied must stay so, what is admitted may be interrupted.
    pub(crate) fn never_open(&self, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            let mut rounds = 0;
            while !work.is_finished() {
                let seen = self.ask()?;
                ensure!(seen[&CLOSED] != Outcome::Connected, "round {rounds}: {seen:?}");
                rounds += 1;
            }
            work.join().expect("a thread of the story panicked")
        })
    }

    /// Asks again and again while `work` goes on; every answer must be the policy's. Returns how many there were.
    pub(crate) fn watch(&self, work: impl FnOnce() -> Result<()> + Send) -> Result<usize> {
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            let mut rounds = 0;
            while !work.is_finished() {
                let seen = self.ask()?;
                ensure!(seen == in_force(), "round {rounds}: {seen:?}");
                rounds += 1;
            }
            work.join().expect("a thread of the story panicked")?;
            Ok(rounds)
        })
    }
}

fn in_force() -> BTreeMap<u16, Outcome> {
    [(OPEN, Outcome::Connected), (CLOSED, Outcome::TimedOut)].into()
}

/// Has a namespace go, without waiting for it.
pub(crate) fn gone(cluster: &Kube, namespace: &str) -> Result<()> {
    cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"]).map(drop)
}

/// Every agent is replaced while connections are made.
fn a_rolling_update(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "update")?;
    let values = [
        "podAnnotations.edition=second",
        "updateStrategy.maxUnavailable=1",
        "cri.socket=/run/containerd/containerd.sock",
    ];
    let rounds = pair.watch(|| cluster.install(&values))?;
    ensure!(rounds >= cluster.nodes.len(), "{rounds} rounds are too few to have seen the update");
    cluster.wait("the container runtime has told the agent of the server", || {
        let status = status(cluster, cluster.nodes.len() - 1)?;
        let server = ways::workload(&status, "update/server")?;
        let ways = server["found_by"].as_array().context("the ways to it")?;
        Ok((server["enforced"] == true && ways.iter().any(|way| way == "cri")).then_some(()))
    })?;
    gone(cluster, "update")
}

/// Agents that end at once, again and again: by an argument that does not exist.
fn agents_that_crash(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "crash")?;
    let crashed = || -> Result<()> {
        cluster.ask_for(&["extraArgs={--no-such-flag}"])?;
        let path = "jsonpath={.items[*].status.containerStatuses[0].restartCount}";
        let restarts = || -> Result<Option<()>> {
            let told = cluster.kubectl(&["-n", chart::NAMESPACE, "get", "pods", "-o", path])?;
            let most = told.split_whitespace().filter_map(|count| count.parse::<u32>().ok()).max();
            Ok((most >= Some(2)).then_some(()))
        };
        cluster.wait("an agent has crashed three times", restarts)
    };
    pair.watch(crashed)?;
    pair.watch(|| cluster.install(&[]))?;
    gone(cluster, "crash")
}

/// The API server ends, an agent is started anew meanwhile, and the server comes back.
fn without_the_api_server(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "outage")?;
    pair.watch(|| {
        ensure!(cluster.nodes[0].kill("kube-apiserver", "KILL")? == 1, "there is one API server");
        ensure!(cluster.nodes[0].kill("enforcer", "KILL")? == 1, "there is one agent on a node");
        let is_back = || Ok((cluster.nodes[0].kill("enforcer", "0")? == 1).then_some(()));
        cluster.wait("the kubelet has started the agent anew", is_back)?;
        cluster.start_api_server()?;
        cluster.await_agents()
    })?;
    gone(cluster, "outage")
}

/// The host's side of a pod's interface gets another name while it is in use; the next agent knows it by that.
fn an_interface_that_is_renamed(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "renamed")?;
    let last = cluster.nodes.len() - 1;
    let name = || -> Result<String> {
        let status = status(cluster, last)?;
        let all = status["workloads"].as_array().context("workloads")?;
        let one = all.iter().find(|one| one["workload"] == "renamed/server").context("the server")?;
        ensure!(one["enforced"] == true, "{one}");
        Ok(one["interface"].as_str().context("an interface")?.to_owned())
    };
    let node = &cluster.nodes[last];
    pair.watch(|| {
        node.run("ip", &["link", "set", &name()?, "name", "other"])?;
        ensure!(node.kill("enforcer", "KILL")? == 1, "there is one agent on a node");
        let is_other = || Ok(name().is_ok_and(|name| name == "other").then_some(()));
        cluster.wait("an agent knows the interface by its new name", is_other)
    })?;
    gone(cluster, "renamed")
}

/// As the chart's notes say: first everything is taken away from the kernels, then the chart.
fn uninstalling(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "last")?;
    let before: Vec<Vec<String>> = remains(cluster)?;
    ensure!(before.iter().all(|node| !node.is_empty()), "agents keep what is in force: {before:?}");
    cluster.install(&["uninstall=true"])?;
    ensure!(remains(cluster)?.iter().all(Vec::is_empty), "{:?}", remains(cluster)?);
    cluster.nodes[0]
        .run("helm", &["uninstall", chart::RELEASE, "--namespace", chart::NAMESPACE, "--wait"])?;
    let open: BTreeMap<u16, Outcome> = [OPEN, CLOSED].map(|port| (port, Outcome::Connected)).into();
    ensure!(pair.ask()? == open, "nothing is enforced any more: {:?}", pair.ask()?);
    let left = cluster.kubectl(&["get", "clusterrole,clusterrolebinding", "-o", "name"])?;
    ensure!(!left.contains("/enforcer"), "{left}");
    cluster.kubectl(&["delete", "namespace", chart::NAMESPACE])?;
    gone(cluster, "last")
}

/// What every node has in its BPF filesystem and in its directories for the product.
fn remains(cluster: &Kube) -> Result<Vec<Vec<String>>> {
    let of = |node: &kube::Machine| {
        let found =
            node.run("find", &["/sys/fs/bpf", "/opt/cni/bin", "/etc/cni/net.d", "-name", "*enforcer*"])?;
        Ok(found.lines().map(str::to_owned).collect())
    };
    cluster.nodes.iter().map(of).collect()
}
