//! Services of every kind: policy speaks of pods and their ports, whatever address and port a client uses. The client may send to
//! one of two servers only; each is reached, or not, in all the ways there are.

use anyhow::{Context, Result, ensure};
use enforcer_tests::kube::{AT_ONCE, Kube, address, node_name};
use serde_json::{Value, json};

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] = &[("services_mean_their_backends", services_mean_their_backends)];

const NAMESPACE: &str = "services";
/// Port of the servers, and of their services.
const TARGET_PORT: u16 = 8080;
const PORT: u16 = 80;
/// Servers, each with the last number of its external address and its node port.
const SERVERS: [(&str, u8, u16); 2] = [("may", 200, 30_080), ("must-not", 201, 30_081)];

fn services_mean_their_backends(cluster: &Kube) -> Result<()> {
    cluster.namespace(NAMESPACE, &[])?;
    let last = node_name(cluster.nodes.len() - 1);
    for (name, external, node_port) in SERVERS {
        cluster.pod(NAMESPACE, name, &last, &["netexec", &format!("--http-port={TARGET_PORT}")])?;
        for service in [service(name, external, node_port), headless(name)] {
            cluster.apply(&service.to_string())?;
        }
    }
    cluster.pod(NAMESPACE, "client", &node_name(0), &["pause"])?;
    let ways = [ways(cluster, SERVERS[0])?, ways(cluster, SERVERS[1])?];
    for (way, target) in ways.iter().flatten() {
        let reached = || Ok(cluster.connect(NAMESPACE, "client", target)?.is_empty().then_some(()));
        cluster.wait(&format!("without policy every server is reached, {way}"), reached)?;
    }
    cluster.apply(&policy().to_string())?;
    let (way, target) = &ways[1][0];
    let denied = || Ok((cluster.connect(NAMESPACE, "client", target)? == AT_ONCE).then_some(()));
    cluster.wait(&format!("the policy is in force, {way}"), denied)?;
    let mut wrong = Vec::new();
    for (ways, expected) in ways.iter().zip(["", AT_ONCE]) {
        for (way, target) in ways {
            let said = cluster.connect(NAMESPACE, "client", target)?;
            if said != expected {
                wrong.push(format!("{way} ({target}): {said:?}, not {expected:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]).map(drop)
}

/// Every way to a server, with where it leads.
fn ways(cluster: &Kube, (name, external, node_port): (&str, u8, u16)) -> Result<Vec<(String, String)>> {
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let addresses = cluster.kubectl(&["-n", NAMESPACE, "get", "service", name, "-o", path])?;
    let addresses: Vec<std::net::IpAddr> = addresses
        .split_whitespace()
        .map(|word| word.parse().context("a service's address"))
        .collect::<Result<_>>()?;
    let mut ways: Vec<(String, String)> = cluster
        .addresses(NAMESPACE, name)?
        .into_iter()
        .map(|pod| {
            (format!("{name} by its own address"), std::net::SocketAddr::from((pod, TARGET_PORT)).to_string())
        })
        .collect();
    for service in addresses {
        ways.push((
            format!("{name} by its ClusterIP"),
            std::net::SocketAddr::from((service, PORT)).to_string(),
        ));
    }
    let domain = format!("{NAMESPACE}.svc.cluster.local");
    ways.push((format!("{name} by its service's name"), format!("{name}.{domain}:{PORT}")));
    ways.push((format!("{name} by a headless service"), format!("{name}-headless.{domain}:{TARGET_PORT}")));
    ways.push((format!("{name} by its external address"), format!("192.0.2.{external}:{PORT}")));
    ways.push((format!("{name} by its node port"), format!("{}:{node_port}", address(0))));
    Ok(ways)
}

fn service(name: &str, external: u8, node_port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort",
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": name},
            "externalIPs": [format!("192.0.2.{external}")],
            "sessionAffinity": "ClientIP",
            "ports": [{"port": PORT, "targetPort": TARGET_PORT, "nodePort": node_port}],
        },
    })
}

fn headless(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("{name}-headless"), "namespace": NAMESPACE},
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": TARGET_PORT}]},
    })
}

/// The client may ask the resolver, and send to one of the servers.
fn policy() -> Value {
    let resolver = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    });
    let dns = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "one-server", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [resolver], "ports": dns},
                {
                    "to": [{"podSelector": {"matchLabels": {"app": SERVERS[0].0}}}],
                    "ports": [{"port": TARGET_PORT, "protocol": "TCP"}],
                },
            ],
        },
    })
}
