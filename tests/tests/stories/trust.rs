//! Whose answers count follows the cluster's DNS service, the node's cache and the node's own list as they change, with
//! nobody restarting anything.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use enforcer_tests::{Agent, Family, Lab, Outcome, client};
use serde_json::Value;

use crate::policies::{CLUSTER_DNS, egress, rule};

/// A server that knows every name and is nobody's resolver yet.
const STRANGER: &str = "198.51.100.53";
/// Longer than a change may take to be seen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The cluster's DNS service as Kubernetes has it, with the stranger as one of its endpoints.
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], selector: {k8s-app: kube-dns}, ports: [{port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-x, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: [198.51.100.53]}]
ports: [{port: 53, protocol: UDP}]
";

/// Waits until these resolvers are trusted, and no others.
fn await_resolvers(agent: &Agent<'_>, expected: &[&str]) -> Result<()> {
    agent.await_status(&format!("trust in {expected:?}"), PATIENCE, |status| {
        let resolvers = status["resolvers"].as_array().context("no resolvers")?;
        let told: Vec<_> = resolvers.iter().filter_map(Value::as_str).collect();
        Ok((told == expected).then_some(()))
    })
}

/// What comes of asking the stranger for a name and connecting to what it says.
fn visit(lab: &Lab, name: &str) -> Result<Outcome> {
    let (pod, stranger): (_, IpAddr) = (lab.pod("app"), STRANGER.parse()?);
    let told = client::resolve(&pod.namespace, stranger, name, Family::V4)?;
    Ok(pod.connect(*told.first().context("the stranger knows every name")?, 443))
}

#[test]
fn trust_follows_the_service_the_cache_and_the_nodes_own_list() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let stranger = format!("cidr: {STRANGER}/32");
    let rules = [
        rule("names", "Allow", "fqdns: [\"*.fresh.example\"]", "TCP", 443),
        rule("stranger", "Allow", &stranger, "UDP", 53),
    ];
    lab.policy("app.yaml", &egress("app", &rules))?;
    let list = tempfile::tempdir()?;
    let file = list.path().join("resolv.conf");
    std::fs::write(&file, "search svc.cluster.local\n")?;
    let agent = lab.agent_with(&["--resolv-conf", file.to_str().context("a path of text")?])?;

    await_resolvers(&agent, &["10.0.0.2", "fd00:10::2"])?;
    assert_eq!(visit(&lab, "n1.fresh.example")?, Outcome::TimedOut, "nobody named it");
    lab.policy("kube-dns.yaml", SERVICE)?;
    await_resolvers(&agent, &["10.0.0.2", "10.96.0.10", STRANGER, "fd00:10::2"])?;
    assert_eq!(visit(&lab, "n2.fresh.example")?, Outcome::Connected, "an endpoint of the service");
    lab.remove_policy("kube-dns.yaml")?;
    await_resolvers(&agent, &["10.0.0.2", "fd00:10::2"])?;
    assert_eq!(visit(&lab, "n3.fresh.example")?, Outcome::TimedOut, "the service is gone");

    std::fs::write(&file, format!("nameserver 127.0.0.1\nnameserver {STRANGER}\n"))?;
    await_resolvers(&agent, &["10.0.0.2", STRANGER, "fd00:10::2"])?;
    assert_eq!(visit(&lab, "n4.fresh.example")?, Outcome::Connected, "a server of the node");
    lab.node.ip("addr add 169.254.20.10/32 dev uplink\n")?;
    await_resolvers(&agent, &["10.0.0.2", "169.254.20.10", STRANGER, "fd00:10::2"])?;
    std::fs::write(&file, "search svc.cluster.local\n")?;
    await_resolvers(&agent, &["10.0.0.2", "169.254.20.10", "fd00:10::2"])?;
    assert_eq!(visit(&lab, "n5.fresh.example")?, Outcome::TimedOut, "it is no longer on the list");
    Ok(())
}
