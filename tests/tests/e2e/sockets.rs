//! Refused connects of pods: they fail at once where nothing in the pod may send them elsewhere, and records name who tried.

use anyhow::{Context, Result, ensure};
use enforcer_tests::kube::{AGNHOST, AT_ONCE, Kube, SILENT};
use serde_json::{Value, json};

use super::Story;
use super::install::{enforcer, gone, status};

/// In order.
pub(crate) const STORIES: &[Story] =
    &[("a_refused_connect_of_a_pod_fails_at_once", a_refused_connect_of_a_pod_fails_at_once)];

/// Both pods, and a policy that lets them send to nobody.
const NAMESPACE: &str = "sockets";
/// Nobody answers there.
const TARGET: &str = "203.0.113.77:443";

fn a_refused_connect_of_a_pod_fails_at_once(cluster: &Kube) -> Result<()> {
    cluster.namespace(NAMESPACE, &[])?;
    for (name, capabilities) in [("plain", json!([])), ("meshed", json!(["NET_ADMIN"]))] {
        cluster.apply(&pod(name, &capabilities).to_string())?;
        cluster.ready(NAMESPACE, &format!("pod/{name}"))?;
    }
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "nobody", "namespace": NAMESPACE},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    });
    cluster.apply(&policy.to_string())?;
    let connect = |pod: &str| cluster.connect(NAMESPACE, pod, TARGET);
    cluster.wait("a connect that fails at once", || Ok((connect("plain")? == AT_ONCE).then_some(())))?;
    let said = connect("meshed")?;
    ensure!(said == SILENT, "its packet filter may send it elsewhere: {said:?}");
    let whole = status(cluster, 0)?;
    let unjudged = |name: &str| {
        let workloads = whole["workloads"].as_array().into_iter().flatten();
        let mut found = workloads.filter(|one| one["workload"] == format!("{NAMESPACE}/{name}").as_str());
        Ok::<_, anyhow::Error>(found.next().context("it is not in the status")?["unjudged_sockets"].clone())
    };
    ensure!(unjudged("plain")? == Value::Null, "{whole:#}");
    ensure!(unjudged("meshed")? == json!("one of its containers may change its network"), "{whole:#}");
    let refused = refusal(cluster)?;
    // The node's processes have numbers of their own here: executable and container are looked for where they are the kernel's.
    ensure!(refused["process"]["command"] == json!("agnhost"), "{refused:#}");
    gone(cluster, NAMESPACE)
}

/// The record of the plain pod's refusal.
fn refusal(cluster: &Kube) -> Result<Value> {
    cluster.wait("a record of the refusal", || {
        let arguments = ["flows", "--namespace", NAMESPACE, "--workload", "plain", "-o", "json"];
        let told = enforcer(cluster, 0, &arguments)?;
        let mut records = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(records.rfind(|record| record["event"] == json!("refused")))
    })
}

fn pod(name: &str, capabilities: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": AGNHOST,
                "imagePullPolicy": "Never",
                "args": ["pause"],
                "securityContext": {"capabilities": {"add": capabilities}},
            }],
        },
    })
}
