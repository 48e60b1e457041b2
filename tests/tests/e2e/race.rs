//! Pods that send from their first instruction: nothing may arrive where policy does not admit it, however early it is sent,
//! and nothing may be denied wrongly once a pod is ready. With the network plugin nothing is lost at all.
//!
//! `ENFORCER_POD_STARTS` says how many pods are started each time; 50 otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enforcer_tests::Namespace;
use enforcer_tests::kube::{FIRST, Kube, Machine, chart, node_name};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Story;

/// With the plugin.
pub(crate) const STORIES: &[Story] =
    &[("a_pod_that_starts_is_neither_open_nor_wrongly_denied", with_the_plugin)];
/// Without it.
pub(crate) const GUARDED: &[Story] =
    &[("without_the_plugin_a_pod_that_starts_is_denied_until_it_is_known", without_the_plugin)];

const NAMESPACE: &str = "race";
const PORT: u16 = 7000;
/// Pods that start at once.
const BATCH: usize = 50;
/// Between two datagrams of a pod.
const PAUSE: Duration = Duration::from_millis(100);
/// Room for what arrives while the machine is busy, octets.
const ROOM: usize = 16 << 20;

/// A datagram: its number, and when it was sent, milliseconds.
type Sent = (u64, u64);

/// What arrives at one server.
struct Server {
    address: SocketAddr,
    datagrams: UdpSocket,
    connections: TcpListener,
}

impl Server {
    fn make(cluster: &Kube, name: &str) -> Result<Self> {
        cluster.pod(NAMESPACE, name, &node_name(cluster.nodes.len() - 1), &["pause"])?;
        let address = SocketAddr::new(cluster.addresses(NAMESPACE, name)?[0], PORT);
        let network: Namespace = cluster.network(NAMESPACE, name)?;
        let (datagrams, connections) = network
            .enter(|| Ok::<_, std::io::Error>((UdpSocket::bind(address)?, TcpListener::bind(address)?)))?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&datagrams, ROOM)?;
        datagrams.set_nonblocking(true)?;
        connections.set_nonblocking(true)?;
        Ok(Self { address, datagrams, connections })
    }

    /// What has arrived since the last call, by who sent it.
    fn take(&self) -> Result<BTreeMap<IpAddr, Vec<Sent>>> {
        let mut all: BTreeMap<IpAddr, Vec<Sent>> = BTreeMap::new();
        let mut datagram = [0; 16];
        while let Ok((length, from)) = self.datagrams.recv_from(&mut datagram) {
            ensure!(length == datagram.len(), "a datagram of {length} octets from {from}");
            let [number, time] = [&datagram[..8], &datagram[8..]]
                .map(|half| u64::from_be_bytes(half.try_into().expect("8 octets")));
            all.entry(from.ip()).or_default().push((number, time));
        }
        while let Ok((_, from)) = self.connections.accept() {
            all.entry(from.ip()).or_default();
        }
        Ok(all)
    }
}

/// A pod as the API server knows it once it is ready.
struct Ready {
    name: String,
    address: IpAddr,
    /// The second after the one in which the API server was told.
    since: Timestamp,
}

/// How many pods are started.
pub(crate) fn starts() -> Result<usize> {
    let told = std::env::var("ENFORCER_POD_STARTS").unwrap_or_else(|_| BATCH.to_string());
    told.parse().context("ENFORCER_POD_STARTS is a number")
}

fn with_the_plugin(cluster: &Kube) -> Result<()> {
    race(cluster, true)
}

/// The agent that is not to install the plugin, and has these values besides, takes away what the one before it has installed.
/// After what happens the plugin is back.
pub(crate) fn with_no_plugin<T>(
    cluster: &Kube,
    values: &[&str],
    happens: impl FnOnce() -> Result<T>,
) -> Result<T> {
    cluster.install(&[&["cni.enabled=false"], values].concat())?;
    let file = |node: &Machine| node.seen("/etc/cni/net.d/00-enforcer.conflist").exists();
    let is_left = |node: &Machine| file(node) || node.seen("/opt/cni/bin/enforcer-cni").exists();
    cluster.wait("agents have taken the plugin away", || {
        Ok((!cluster.nodes.iter().any(is_left)).then_some(()))
    })?;
    let outcome = happens();
    cluster.install(&[])?;
    cluster.wait("the plugin is back", || Ok(cluster.nodes.iter().all(file).then_some(())))?;
    outcome
}

fn without_the_plugin(cluster: &Kube) -> Result<()> {
    let said = with_no_plugin(cluster, &[], || {
        race(cluster, false)?;
        cluster.kubectl(&["-n", chart::NAMESPACE, "logs", "daemonset/enforcer", "--all-pods"])
    })?;
    let guarded = said.lines().filter(|line| line.contains("denied until its pod is known")).count();
    ensure!(guarded >= starts()?, "{guarded} interfaces were guarded:\n{said}");
    ensure!(!said.contains("no longer denied"), "a pod's interface was given up:\n{said}");
    Ok(())
}

/// Starts pods in batches, all on the first node. Nothing is lost of what they send where they are waited for.
pub(crate) fn race(cluster: &Kube, is_waited_for: bool) -> Result<()> {
    cluster.namespace(NAMESPACE, &[])?;
    let (may, must_not) = (Server::make(cluster, "may")?, Server::make(cluster, "must-not")?);
    cluster.apply(&policy().to_string())?;
    // One that no policy selects: what is counted below is counted.
    cluster.apply(&pod("free", "free", [&may, &must_not]).to_string())?;
    cluster.ready(NAMESPACE, "pod/free")?;
    cluster.wait("both servers are heard of by a pod without policy", || {
        Ok((!may.take()?.is_empty() && !must_not.take()?.is_empty()).then_some(()))
    })?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", "free"])?;
    silence(cluster, [&may, &must_not])?;
    let (count, begun) = (starts()?, Instant::now());
    let mut lost = 0;
    for first in (0..count).step_by(BATCH) {
        let names: Vec<String> =
            (first..count.min(first + BATCH)).map(|number| format!("p{number}")).collect();
        let objects: Vec<Value> = names.iter().map(|name| pod(name, "first", [&may, &must_not])).collect();
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        cluster.ready(NAMESPACE, "pod -l app=first")?;
        let ready = ready(cluster)?;
        ensure!(ready.len() == names.len(), "{} pods of {} are ready", ready.len(), names.len());
        lost += batch(cluster, &may, &ready, is_waited_for)?;
        let leaked = must_not.take()?;
        ensure!(leaked.is_empty(), "what policy denies has arrived: {leaked:?}");
        cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", "-l", "app=first"])?;
        silence(cluster, [&may, &must_not])?;
    }
    println!(
        "{count} pods started in {:.0} s: nothing leaked, nothing denied once ready, {lost} datagrams before",
        begun.elapsed().as_secs_f64()
    );
    cluster.kubectl(&["delete", "namespace", NAMESPACE]).map(drop)
}

/// Waits until pods that were deleted have ended, which the API server does not tell: they send ten times a second.
fn silence(cluster: &Kube, servers: [&Server; 2]) -> Result<()> {
    let mut since = Instant::now();
    cluster.wait("pods that were deleted have ended", || {
        for server in servers {
            if !server.take()?.is_empty() {
                since = Instant::now();
            }
        }
        Ok((since.elapsed() > Duration::from_secs(1)).then_some(()))
    })
}

/// Waits until every pod was heard long enough, and returns how many datagrams did not arrive: none when pods wait for their
/// policy, and none sent once a pod is ready.
fn batch(cluster: &Kube, may: &Server, ready: &[Ready], is_waited_for: bool) -> Result<u64> {
    let mut heard: BTreeMap<IpAddr, Vec<Sent>> = BTreeMap::new();
    let after = ready.iter().map(|pod| pod.since).max().context("a pod")?.as_millisecond() as u64 + 300;
    cluster.wait("every pod is heard after it is ready", || {
        may.take()?.into_iter().for_each(|(from, sent)| heard.entry(from).or_default().extend(sent));
        let is_heard = |pod: &Ready| {
            heard.get(&pod.address).is_some_and(|all| all.iter().any(|(_, time)| *time > after))
        };
        Ok(ready.iter().all(is_heard).then_some(()))
    })?;
    let mut lost = 0;
    for Ready { name, address, since } in ready {
        let sent = &heard[address];
        let numbers: BTreeSet<u64> = sent.iter().map(|(number, _)| *number).collect();
        let (first, last) = (numbers.first().context("a datagram")?, numbers.last().context("a datagram")?);
        let began = sent.iter().map(|(_, time)| *time).min().context("a datagram")?;
        ensure!(!is_waited_for || *first == 0, "{name}: {first} datagrams were lost although it waited");
        ensure!(numbers.len() as u64 == last - first + 1, "{name}: some were lost in between: {numbers:?}");
        // One that lost nothing may have begun to send after it was ready.
        let last_lost = began.saturating_sub(PAUSE.as_millis() as u64);
        ensure!(
            *first == 0 || last_lost < since.as_millisecond() as u64,
            "{name} was ready before {since}, and what it sent at {last_lost} ms was denied"
        );
        lost += first;
    }
    Ok(lost)
}

/// Pods that are ready.
fn ready(cluster: &Kube) -> Result<Vec<Ready>> {
    let asked = ["get", "pods", "-l", "app=first", "-o", "json", "--show-managed-fields"];
    let told = cluster.kubectl(&[&["-n", NAMESPACE], &asked[..]].concat())?;
    let told: Value = serde_json::from_str(&told)?;
    let one = |pod: &Value| -> Result<Ready> {
        let conditions = pod["status"]["conditions"].as_array().context("a pod with conditions")?;
        let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
        ensure!(conditions.iter().any(is_ready), "a pod that is not ready: {pod}");
        // The condition says when the kubelet saw it, which may be long before it has told anybody.
        let fields = pod["metadata"]["managedFields"].as_array().context("a pod with managed fields")?;
        let is_kubelet = |entry: &&Value| entry["manager"] == "kubelet" && entry["subresource"] == "status";
        let since = fields.iter().find(is_kubelet).and_then(|entry| entry["time"].as_str());
        let since: Timestamp = since.context("a kubelet that told the pod's status")?.parse()?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
        Ok(Ready {
            name: text(&pod["metadata"]["name"])?,
            address: text(&pod["status"]["podIP"])?.parse()?,
            since: since + Duration::from_secs(1),
        })
    };
    told["items"].as_array().context("a list")?.iter().map(one).collect()
}

fn pod(name: &str, app: &str, servers: [&Server; 2]) -> Value {
    let arguments = servers.map(|server| server.address.to_string());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": app}},
        "spec": {
            "nodeName": node_name(0),
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": FIRST, "imagePullPolicy": "Never", "args": arguments}],
        },
    })
}

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "one-server", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"app": "first"}},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{"podSelector": {"matchLabels": {"app": "may"}}}],
                "ports": [{"port": PORT, "protocol": "UDP"}],
            }],
        },
    })
}
