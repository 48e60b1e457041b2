//! A node with as many pods as Kubernetes puts on one, and a node that is emptied: every pod is enforced, and what is gone is
//! forgotten.

use anyhow::{Context, Result};
use enforcer_tests::kube::{AGNHOST, Kube, node_name};
use serde_json::{Value, json};

use super::Story;
use super::install::status;

/// In order.
pub(crate) const STORIES: &[Story] = &[("a_full_node_is_enforced_and_forgotten_when_drained", a_full_node)];

/// Kubernetes' bound for a node is 110 pods; a few run there already.
const PODS: usize = 104;

/// The last node is filled, then drained.
fn a_full_node(cluster: &Kube) -> Result<()> {
    let index = cluster.nodes.len() - 1;
    let node = node_name(index);
    cluster.namespace("crowd", &[])?;
    cluster.apply(&deployment(&node).to_string())?;
    cluster.kubectl(&["-n", "crowd", "rollout", "status", "deployment/crowd", "--timeout=300s"])?;
    cluster.wait("every pod of the node is enforced", || {
        let status = status(cluster, index)?;
        let crowd = crowd(&status)?;
        let are_enforced = crowd.iter().all(|workload| workload["enforced"] == true);
        Ok((crowd.len() == PODS && are_enforced).then_some(()))
    })?;
    let drain =
        ["drain", &node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=180s"];
    cluster.kubectl(&drain)?;
    let forgotten = || Ok(crowd(&status(cluster, index)?)?.is_empty().then_some(()));
    cluster.wait("the drained node's agent has forgotten its pods", forgotten)?;
    cluster.kubectl(&["delete", "namespace", "crowd", "--wait=false"])?;
    cluster.kubectl(&["uncordon", &node])?;
    let resolver = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"];
    cluster.kubectl(&resolver).map(drop)
}

/// The story's workloads: pods of other stories may still be going.
fn crowd(status: &Value) -> Result<Vec<&Value>> {
    let all = status["workloads"].as_array().context("a status with workloads")?;
    let is_of_crowd =
        |workload: &&Value| workload["workload"].as_str().is_some_and(|id| id.starts_with("crowd/"));
    Ok(all.iter().filter(is_of_crowd).collect())
}

fn deployment(node: &str) -> Value {
    let container = json!({"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "command": ["sleep", "1000000"]});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "crowd", "namespace": "crowd"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": {"app": "crowd"}},
            "template": {
                "metadata": {"labels": {"app": "crowd"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "nodeSelector": {"kubernetes.io/hostname": node},
                    "containers": [container],
                },
            },
        },
    })
}
