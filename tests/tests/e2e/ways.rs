//! The ways from a pod to its interface, in a cluster without any other agent: each alone leads there, and where they
//! disagree nobody's policy is enforced on somebody else. The agent is a process of the node, started anew for each.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use enforcer_tests::agent;
use enforcer_tests::kube::{Kube, Machine, node_name};
use serde_json::{Value, json};

use super::Story;
use super::install::{Pair, gone};

/// Where a route leads to each pod.
pub(crate) const ROUTED: &[Story] =
    &[("each_way_leads_to_a_pod_alone", routed), ("ways_that_disagree_change_nothing", disagreeing)];
/// Where pods are behind a bridge.
pub(crate) const BRIDGED: &[Story] = &[("each_way_leads_to_a_pod_alone", bridged)];

const PINS: &str = "/sys/fs/bpf/ways";
const SOCKET: &str = "/run/ways/enforcer.sock";
const RUNTIME: &str = "--cri-socket=/run/containerd/containerd.sock";
const NOBODY: &str = "--cri-socket=/run/nobody.sock";

/// Network namespace that has a pod's address and is none.
const FORGED: &str = "forged";

fn routed(cluster: &Kube) -> Result<()> {
    each_way_alone(cluster, true)
}

fn bridged(cluster: &Kube) -> Result<()> {
    each_way_alone(cluster, false)
}

/// From a kernel without anything of the agent's, each time: what is enforced is so by the one way.
fn each_way_alone(cluster: &Kube, is_routed: bool) -> Result<()> {
    let namespace = "ways";
    cluster.namespace(namespace, &[])?;
    let pair = Pair::unenforced(cluster, namespace)?;
    let place = Place::of(cluster)?;
    for way in ["cni", "cri", "processes"].into_iter().chain(is_routed.then_some("route")) {
        pair.awaits([true, true])?;
        let agent = place.agent(&[way], &[RUNTIME])?;
        pair.awaits([true, false]).with_context(|| format!("by {way} alone: {}", agent.says()))?;
        agent.server(|server| server["enforced"] == true && server["found_by"] == json!([way]))?;
        agent.end()?;
        place.clear()?;
    }
    pair.awaits([true, true])?;
    if !is_routed {
        let agent = place.agent(&["route"], &[])?;
        let why = "nothing leads to its interface, looked for by route";
        agent.server(|server| server["enforced"] == false && contains(&server["problem"], why))?;
        pair.awaits([true, true])?;
        agent.end()?;
    }
    let all: &[&str] =
        if is_routed { &["cni", "cri", "processes", "route"] } else { &["cni", "cri", "processes"] };
    let agent = place.agent(all, &[RUNTIME])?;
    pair.awaits([true, false])?;
    agent.server(|server| server["found_by"] == json!(all))?;
    agent.end()?;
    // A runtime that cannot be asked is told, and the others go on; what was in force is, all the time.
    pair.never_open(|| {
        let agent = place.agent(all, &[NOBODY])?;
        agent.status("the runtime is missed", |status| {
            contains(&status["policy"]["problems"], "cannot be connected to")
        })?;
        agent.server(|server| server["enforced"] == true && !contains(&server["found_by"], "cri"))?;
        let text = place.enforcer(&["status", "--socket", SOCKET])?;
        ensure!(text.contains("(found by cni, processes") && text.contains("--cri-socket"), "{text}");
        agent.end()
    })?;
    place.clear()?;
    gone(cluster, namespace)
}

/// A result of CNI that leads to another pod, and one that leads to an impostor with the pod's own address.
fn disagreeing(cluster: &Kube) -> Result<()> {
    let namespace = "doubt";
    cluster.namespace(namespace, &[])?;
    let pair = Pair::unenforced(cluster, namespace)?;
    let place = Place::of(cluster)?;
    let file =
        |name: &str| Ok::<_, anyhow::Error>(cluster.sandbox(namespace, name)?.1.replace("/run/netns/", ""));
    let (server, client) = (file("server")?, file("client")?);
    let (_, result) = cluster.cni_result(namespace, "server")?;
    let kept = std::fs::read_to_string(&result)?;
    let lead_to = |other: &str| std::fs::write(&result, kept.replace(&server, other));
    lead_to(&client)?;
    let agent = place.agent_of(namespace, &["cni", "processes"], &[])?;
    pair.awaits([true, false])?;
    agent.server(|server| {
        let doubts = &server["doubts"];
        let is_told = contains(doubts, "the results of CNI") && contains(doubts, &client);
        server["found_by"] == json!(["processes"]) && is_told
    })?;
    agent.end()?;
    pair.never_open(|| {
        let agent = place.agent_of(namespace, &["cni"], &[])?;
        agent.server(|server| has_words(&server["problem"], &["the results of CNI", &client]))?;
        agent.end()?;
        place.forge(cluster.addresses(namespace, "server")?[0])?;
        lead_to(FORGED)?;
        let agent = place.agent_of(namespace, &["cni", "processes"], &[])?;
        let words = ["in doubt", FORGED, "the results of CNI", "its processes"];
        agent.server(|server| server["interface"] != FORGED && has_words(&server["problem"], &words))?;
        // This agent has found nobody there; what the one before has put into the kernel stays, to the last port.
        pair.awaits([true, false])?;
        agent.end()
    })?;
    std::fs::write(&result, kept)?;
    place.node.run("ip", &["netns", "delete", FORGED])?;
    place.clear()?;
    gone(cluster, namespace)
}

fn has_words(value: &Value, words: &[&str]) -> bool {
    words.iter().all(|word| contains(value, word))
}

/// A workload of a status.
pub(crate) fn workload<'a>(status: &'a Value, name: &str) -> Result<&'a Value> {
    let all = status["workloads"].as_array().context("workloads")?;
    all.iter().find(|one| one["workload"] == name).with_context(|| format!("{name} in {status:#}"))
}

fn contains(value: &Value, word: &str) -> bool {
    value.to_string().contains(word)
}

/// The node of the server.
struct Place<'a> {
    cluster: &'a Kube,
    node: &'a Machine,
    name: String,
    program: String,
}

impl<'a> Place<'a> {
    fn of(cluster: &'a Kube) -> Result<Self> {
        let last = cluster.nodes.len() - 1;
        let program = agent::binary()?.display().to_string();
        Ok(Self { cluster, node: &cluster.nodes[last], name: node_name(last), program })
    }

    fn agent(&self, ways: &[&str], more: &[&str]) -> Result<Agent<'_>> {
        self.agent_of("ways", ways, more)
    }

    /// Starts an agent that finds pods by these ways only.
    fn agent_of(&self, namespace: &str, ways: &[&str], more: &[&str]) -> Result<Agent<'_>> {
        let own = ["agent", "--source=kubernetes", "--cgroup=none", "--log-format=text"];
        let mut arguments: Vec<String> = own.iter().chain(more).map(|word| (*word).to_owned()).collect();
        arguments.extend(ways.iter().map(|way| format!("--find-pods-by={way}")));
        arguments.push(format!("--node-name={}", self.name));
        arguments.push(format!("--pin-directory={PINS}"));
        arguments.push(format!("--socket={SOCKET}"));
        self.node.daemon("enforcer", &self.program, &arguments)?;
        Ok(Agent { place: self, server: format!("{namespace}/server") })
    }

    fn enforcer(&self, arguments: &[&str]) -> Result<String> {
        self.node.run(&self.program, arguments)
    }

    /// Takes everything away from the kernel.
    fn clear(&self) -> Result<()> {
        self.enforcer(&["uninstall", "--pin-directory", PINS]).map(drop)
    }

    /// Makes a namespace with an address that is a pod's.
    fn forge(&self, address: IpAddr) -> Result<()> {
        self.node.run("ip", &["netns", "add", FORGED])?;
        let lines =
            format!("link add {FORGED} type veth peer name eth0 netns {FORGED}\nlink set {FORGED} up\n");
        self.node.feed("ip", &["-batch", "-"], &lines)?;
        let own = format!("address add {address}/32 dev eth0\nlink set eth0 up\n");
        self.node.feed("ip", &["-netns", FORGED, "-batch", "-"], &own).map(drop)
    }
}

/// An agent that runs.
struct Agent<'a> {
    place: &'a Place<'a>,
    server: String,
}

impl Agent<'_> {
    /// Waits until what it says of itself is as it must be.
    fn status(&self, what: &str, is_right: impl Fn(&Value) -> bool) -> Result<()> {
        let mut last = String::new();
        let look = || {
            let said =
                self.place.node.output(&self.place.program, &["status", "--socket", SOCKET, "-o", "json"])?;
            let status = serde_json::from_slice(&said.stdout).unwrap_or(Value::Null);
            last = status["workloads"].to_string();
            Ok(is_right(&status).then_some(()))
        };
        let waited = self.place.cluster.wait(what, look);
        waited.with_context(|| format!("{last}\n{}", self.says()))
    }

    /// Waits until what it says of the server is as it must be.
    fn server(&self, is_right: impl Fn(&Value) -> bool) -> Result<()> {
        let is_right = |status: &Value| workload(status, &self.server).is_ok_and(&is_right);
        self.status("the status says of the server what it must", is_right)
    }

    fn says(&self) -> String {
        self.place.node.last_words("enforcer")
    }

    /// Ends it; what it has in force stays.
    fn end(self) -> Result<()> {
        let node = self.place.node;
        ensure!(node.kill("enforcer", "TERM")? == 1, "there is one agent on the node: {}", self.says());
        // It may end between being listed and being asked.
        let has_ended = || Ok(matches!(node.kill("enforcer", "0"), Ok(0)).then_some(()));
        self.place.cluster.wait("it has ended", has_ended)
    }
}
