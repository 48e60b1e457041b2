//! A resolver of the node's own at the address that node-local resolvers have: pods ask it, and what it answers opens names as
//! the cluster's resolver does.

use anyhow::{Result, ensure};
use enforcer_tests::internet::NAME_SERVER;
use enforcer_tests::kube::{AGNHOST, AT_ONCE, Kube, node_name};
use serde_json::{Value, json};

use super::Story;
use super::install::status;

/// In order.
pub(crate) const STORIES: &[Story] =
    &[("names_of_a_node_local_resolver_count", names_of_a_node_local_resolver)];

const NAMESPACE: &str = "node-local";
/// Where node-local resolvers listen.
const RESOLVER: &str = "169.254.20.10";

/// CoreDNS runs on the node itself, as with `hostNetwork`. It is trusted once its address is there, and no more when it is gone.
fn names_of_a_node_local_resolver(cluster: &Kube) -> Result<()> {
    let node = &cluster.nodes[0];
    let corefile = cluster.directory().join("node-local.conf");
    std::fs::write(&corefile, format!(". {{\n  errors\n  forward . {NAME_SERVER}\n  cache 5\n}}\n"))?;
    node.run("ip", &["address", "add", &format!("{RESOLVER}/32"), "dev", "lo"])?;
    let arguments = ["-conf".to_owned(), corefile.display().to_string()];
    node.daemon("node-local", "coredns", &arguments)?;
    let trusted = || -> Result<bool> {
        let status = status(cluster, 0)?;
        Ok(status["resolvers"].as_array().is_some_and(|all| all.contains(&json!(RESOLVER))))
    };
    cluster.wait("the resolver is trusted", || Ok(trusted()?.then_some(())))?;
    cluster.namespace(NAMESPACE, &[("enforcer.dev/mode", "enforce")])?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [policy(), pod()]}).to_string())?;
    cluster.ready(NAMESPACE, "pod/client")?;
    cluster.wait("a name that is admitted is reached", || {
        Ok(cluster.connect(NAMESPACE, "client", "github.com:22")?.is_empty().then_some(()))
    })?;
    for target in ["api.github.com:443", "pagerduty.com:443"] {
        let said = cluster.connect(NAMESPACE, "client", target)?;
        ensure!(said == AT_ONCE, "{target}: {said:?}");
    }
    node.run("ip", &["address", "delete", &format!("{RESOLVER}/32"), "dev", "lo"])?;
    cluster.wait("the resolver is no longer trusted", || Ok((!trusted()?).then_some(())))?;
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]).map(drop)
}

fn policy() -> Value {
    let port = |protocol: &str, port: u16| json!({"protocol": protocol, "port": port});
    json!({
        "apiVersion": "enforcer.dev/v1alpha1",
        "kind": "SegmentPolicy",
        "metadata": {"name": "client", "namespace": NAMESPACE},
        "spec": {
            "subject": {},
            "egress": [
                {"action": "Allow", "to": [{"entities": ["Host"]}], "ports": [port("UDP", 53), port("TCP", 53)]},
                {"action": "Allow", "to": [{"fqdns": ["github.com"]}], "ports": [port("TCP", 22)]},
            ],
        },
    })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": NAMESPACE, "labels": {"app": "client"}},
        "spec": {
            "nodeName": node_name(0),
            "terminationGracePeriodSeconds": 0,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": [RESOLVER]},
            "containers": [{"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": ["pause"]}],
        },
    })
}
