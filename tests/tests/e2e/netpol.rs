//! Kubernetes' own tests of NetworkPolicy, and those of the Network Policy API for ClusterNetworkPolicy, with real pods. Owns which
//! suites there are and what they need; how they are played is [`super::suites`]'s.

use anyhow::{Result, ensure};
use enforcer_tests::conformance::Suite;
use enforcer_tests::kube::Kube;
use serde_json::json;

use super::{Story, suites};

/// In order.
pub(crate) const STORIES: &[Story] = &[
    ("the_suite_of_kubernetes_passes", the_suite_of_kubernetes_passes),
    ("the_suite_of_cluster_network_policy_passes", the_suite_of_cluster_network_policy_passes),
];

fn the_suite_of_kubernetes_passes(cluster: &Kube) -> Result<()> {
    let cells = suites::play(cluster, &Suite::k8s_netpol_e2e()?)?;
    ensure!(cells == 476, "the suite has 476 cells of TCP and UDP, {cells} were asked");
    Ok(())
}

/// The kind is not part of Kubernetes: its definition is installed while agents run, and taken away again.
fn the_suite_of_cluster_network_policy_passes(cluster: &Kube) -> Result<()> {
    cluster.apply(&definition().to_string())?;
    let name = format!("crd/{}", definition()["metadata"]["name"].as_str().unwrap_or_default());
    cluster.kubectl(&["wait", "--for=condition=Established", &name, "--timeout=60s"])?;
    let cells = suites::play(cluster, &Suite::cnp_conformance()?)?;
    ensure!(cells == 211, "the suite has 211 cells of TCP and UDP, {cells} were asked");
    cluster.kubectl(&["delete", &name]).map(drop)
}

/// The kind without its schema: what a field means is the agent's to know.
fn definition() -> serde_json::Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "clusternetworkpolicies.policy.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": "policy.networking.k8s.io",
            "scope": "Cluster",
            "names": {
                "kind": "ClusterNetworkPolicy",
                "listKind": "ClusterNetworkPolicyList",
                "plural": "clusternetworkpolicies",
                "singular": "clusternetworkpolicy",
            },
            "versions": [{
                "name": "v1alpha2",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": any},
            }],
        },
    })
}
