//! Pods of a node whose agent is away: what runs stays enforced; what starts waits, or is open until the agent is back, as the
//! failure policy says. And what the kubelet asks of pods whatever their policy.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use enforcer_tests::kube::{AGNHOST, Kube, chart, node_name};
use serde_json::{Value, json};

use super::Story;
use super::faults::event;
use super::install::{Pair, gone, status};

/// In order.
pub(crate) const STORIES: &[Story] = &[
    ("a_pod_that_starts_without_an_agent_waits", waits),
    ("with_the_failure_policy_open_it_starts_and_is_enforced_later", starts_open),
    ("probes_pass_whatever_the_policy", probes_pass),
];

/// How long a pod that could start would have started twice over.
const LONG: Duration = Duration::from_secs(8);

/// Takes the agents away, as from nodes that the DaemonSet is not for.
pub(crate) fn take_agents_away(cluster: &Kube) -> Result<()> {
    let elsewhere =
        json!({"spec": {"template": {"spec": {"nodeSelector": {"tests.enforcer.dev/agent": "none"}}}}});
    let patch = ["patch", "daemonset", chart::RELEASE, "-p", &elsewhere.to_string()];
    cluster.kubectl(&[&["-n", chart::NAMESPACE], &patch[..]].concat())?;
    cluster.wait("no agent is left", || {
        let pods = cluster.kubectl(&["-n", chart::NAMESPACE, "get", "pods", "-o", "name"])?;
        Ok(pods.is_empty().then_some(()))
    })
}

/// Brings them back with these values.
pub(crate) fn bring_agents_back(cluster: &Kube, values: &[&str]) -> Result<()> {
    let everywhere = r#"[{"op": "remove", "path": "/spec/template/spec/nodeSelector"}]"#;
    let patch = ["patch", "daemonset", chart::RELEASE, "--type=json", "-p", everywhere];
    cluster.kubectl(&[&["-n", chart::NAMESPACE], &patch[..]].concat())?;
    cluster.install(values)
}

/// A pod of the first node in a namespace where nothing is admitted, besides what `container` says.
pub(crate) fn late(namespace: &str, container: &Value) -> Value {
    let mut main = json!({"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": ["pause"]});
    main.as_object_mut()
        .into_iter()
        .for_each(|main| main.extend(container.as_object().cloned().unwrap_or_default()));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "namespace": namespace},
        "spec": {"nodeName": node_name(0), "terminationGracePeriodSeconds": 0, "containers": [main]},
    });
    let nothing = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "nothing", "namespace": namespace}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [nothing, pod]})
}

/// True when a container of the pod runs.
pub(crate) fn runs(cluster: &Kube, namespace: &str) -> Result<bool> {
    let path = "jsonpath={.status.containerStatuses[0].state.running.startedAt}";
    Ok(!cluster.kubectl(&["-n", namespace, "get", "pod", "late", "-o", path])?.is_empty())
}

/// Waits until the first node's agent has its policy in force.
pub(crate) fn enforced(cluster: &Kube, namespace: &str) -> Result<()> {
    let name = format!("{namespace}/late");
    cluster.wait("the pod is enforced", || {
        let status = status(cluster, 0)?;
        let mut all = status["workloads"].as_array().into_iter().flatten();
        Ok(all.any(|one| one["workload"] == name.as_str() && one["enforced"] == true).then_some(()))
    })
}

fn waits(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "closed")?;
    cluster.namespace("late-closed", &[])?;
    pair.watch(|| {
        take_agents_away(cluster)?;
        cluster.apply(&late("late-closed", &json!({})).to_string())?;
        event(cluster, "FailedCreatePodSandBox", &["policy of late-closed/late is not in force"])?;
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            ensure!(!runs(cluster, "late-closed")?, "the pod runs without policy");
        }
        bring_agents_back(cluster, &[])?;
        cluster.ready("late-closed", "pod/late")?;
        enforced(cluster, "late-closed")
    })?;
    ["closed", "late-closed"].iter().try_for_each(|name| gone(cluster, name))
}

fn starts_open(cluster: &Kube) -> Result<()> {
    cluster.install(&["failurePolicy=open"])?;
    let pair = Pair::make(cluster, "open")?;
    cluster.namespace("late-open", &[])?;
    pair.watch(|| {
        take_agents_away(cluster)?;
        cluster.apply(&late("late-open", &json!({})).to_string())?;
        cluster.ready("late-open", "pod/late")?;
        bring_agents_back(cluster, &["failurePolicy=open"])?;
        enforced(cluster, "late-open")?;
        cluster.install(&[])
    })?;
    ["open", "late-open"].iter().try_for_each(|name| gone(cluster, name))
}

/// By HTTP and by connecting: the kubelet is the node, which a pod's policy never keeps out. Another pod is kept out.
fn probes_pass(cluster: &Kube) -> Result<()> {
    let namespace = "probed";
    cluster.namespace(namespace, &[])?;
    let every = json!({"periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 1});
    let probe = |kind: &str, what: Value| {
        let mut probe = every.clone();
        probe[kind] = what;
        probe
    };
    let container = json!({
        "args": ["netexec", "--http-port=8080"],
        "readinessProbe": probe("httpGet", json!({"path": "/healthz", "port": 8080})),
        "livenessProbe": probe("tcpSocket", json!({"port": 8080})),
    });
    cluster.apply(&late(namespace, &container).to_string())?;
    cluster.ready(namespace, "pod/late")?;
    enforced(cluster, namespace)?;
    cluster.pod(namespace, "client", &node_name(0), &["pause"])?;
    let address = cluster.addresses(namespace, "late")?[0];
    let said = cluster.connect(namespace, "client", &std::net::SocketAddr::new(address, 8080).to_string())?;
    ensure!(!said.is_empty(), "another pod is let in");
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        let path =
            "jsonpath={.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}";
        let told = cluster.kubectl(&["-n", namespace, "get", "pod", "late", "-o", path])?;
        ensure!(told == "true 0", "a probe failed: {told}");
    }
    gone(cluster, namespace)
}
