//! Services reached from outside the cluster and by their own pods: by node port, load balancer and external address, with and
//! without the client's own address kept; by a pod behind the service itself; with session affinity. Policy speaks of
//! the pod's port, which is another than the service's, and of whoever the pod sees.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use enforcer_core::protocol::Protocol;
use enforcer_tests::Namespace;
use enforcer_tests::kube::{Kube, address, node_name};
use enforcer_tests::lab::unique;
use enforcer_tests::probe::Greeters;
use serde_json::{Value, json};

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] = &[("services_from_outside_and_by_themselves", services_from_outside)];

const NAMESPACE: &str = "outside";
/// Port of the servers, and of their services.
const TARGET_PORT: u16 = 8080;
const PORT: u16 = 80;
/// How long a denied connection is waited for.
const SILENCE: Duration = Duration::from_millis(1500);
/// Clients outside: one that policy admits, and one that it does not.
const CLIENTS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];

/// A service with both servers behind it.
struct Service {
    name: &'static str,
    /// What becomes of traffic from outside: `Local` keeps the client's address, `Cluster` does not.
    traffic: &'static str,
    node_port: u16,
    /// Last numbers of its external address and of its load balancer's.
    addresses: [u8; 2],
    /// Whether a client stays with the server it got first.
    affinity: &'static str,
}

const SERVICES: [Service; 2] = [
    Service {
        name: "local",
        traffic: "Local",
        node_port: 30_090,
        addresses: [210, 211],
        affinity: "ClientIP",
    },
    Service {
        name: "cluster",
        traffic: "Cluster",
        node_port: 30_091,
        addresses: [212, 213],
        affinity: "None",
    },
];

impl Service {
    /// Ways from outside by a node, with where they lead.
    fn ways(&self, node: usize) -> [(&'static str, SocketAddr); 3] {
        let [external, balancer] = self.addresses.map(|last| Ipv4Addr::new(192, 0, 2, last));
        [
            ("node port", (address(node), self.node_port).into()),
            ("external address", (external, PORT).into()),
            ("load balancer", (balancer, PORT).into()),
        ]
    }
}

fn services_from_outside(cluster: &Kube) -> Result<()> {
    let last = cluster.nodes.len() - 1;
    cluster.namespace(NAMESPACE, &[])?;
    let _greeters = servers(cluster, last)?;
    for service in &SERVICES {
        cluster.apply(&object(service.name, json!({"role": "web"}), Some(service)).to_string())?;
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": service.ways(last)[2].1.ip()}]}}})
            .to_string();
        let patch = ["patch", "service", service.name, "--subresource=status", "--type=merge", "-p", &status];
        cluster.kubectl(&[&["-n", NAMESPACE][..], &patch].concat())?;
    }
    cluster.apply(&object("own", json!({"app": "web-1"}), None).to_string())?;
    let visitor = visitor(cluster)?;
    let clients = [&cluster.internet.namespace, &visitor];
    for client in clients {
        route(client, last)?;
        for (way, target) in SERVICES.iter().flat_map(|service| service.ways(last)) {
            let what = format!("without policy everybody is served, {way} {target}");
            cluster.wait(&what, || Ok(greeting(client, target)))?;
        }
    }
    cluster.apply(&policies().to_string())?;
    cluster.wait("the policy is in force", || {
        Ok(greeting(&visitor, SERVICES[0].ways(last)[0].1).is_none().then_some(()))
    })?;
    from_outside(cluster, clients, last)?;
    inside(cluster)?;
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]).map(drop)
}

/// Who keeps its address is judged by it. Who does not comes as a node: as the pod's own, which reaches its pods always, or as
/// another one, which no rule admits.
fn from_outside(cluster: &Kube, clients: [&Namespace; 2], last: usize) -> Result<()> {
    let [local, masked] = &SERVICES;
    let mut wrong = Vec::new();
    let mut ask = |client: &Namespace, (way, target): (&str, SocketAddr), is_admitted: bool, who: &str| {
        if greeting(client, target).is_some() != is_admitted {
            wrong.push(format!("{who} by the {way} {target}: admitted must be {is_admitted}"));
        }
    };
    for way in local.ways(last) {
        ask(clients[0], way, true, "the client with its own address");
        ask(clients[1], way, false, "the other one with its own address");
    }
    for way in masked.ways(last) {
        ask(clients[1], way, true, "the other one as the pod's node");
    }
    if last != 0 {
        clients.iter().try_for_each(|client| route(client, 0))?;
        for way in masked.ways(0) {
            ask(clients[0], way, false, "the client as another node");
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}\n{}", cluster.agents_say());
    Ok(())
}

/// A pod reaches itself by its service although no rule for ingress says so, and a client stays with one server, or does not, as
/// the service says.
fn inside(cluster: &Kube) -> Result<()> {
    let [web, client] = ["web-1", "client"].map(|pod| cluster.network(NAMESPACE, pod));
    let (web, client) = (web?, client?);
    let of = |service: &str| -> Result<SocketAddr> {
        let path = ["-n", NAMESPACE, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}"];
        let address: IpAddr = cluster.kubectl(&path)?.trim().parse().context("a service's address")?;
        Ok((address, PORT).into())
    };
    ensure!(greeting(&web, of("own")?).is_some(), "a pod does not reach itself by its own service");
    let seen = |service: &str| -> Result<std::collections::BTreeSet<String>> {
        let target = of(service)?;
        let one =
            |_| greeting(&client, target).with_context(|| format!("{service} does not answer the client"));
        (0..24).map(one).collect()
    };
    ensure!(seen("local")?.len() == 1, "with session affinity a client stays with its server");
    ensure!(seen("cluster")?.len() == 2, "without it both servers are asked");
    Ok(())
}

/// Two servers of one role, and a client that may ask nobody else.
fn servers(cluster: &Kube, node: usize) -> Result<Greeters> {
    for name in ["web-1", "web-2", "client"] {
        cluster.pod(NAMESPACE, name, &node_name(if name == "client" { 0 } else { node }), &["pause"])?;
    }
    let mut found = Vec::new();
    for name in ["web-1", "web-2"] {
        cluster.kubectl(&["-n", NAMESPACE, "label", "pod", name, "role=web"])?;
        let v4 = cluster.addresses(NAMESPACE, name)?.into_iter().find(IpAddr::is_ipv4);
        found.push((cluster.network(NAMESPACE, name)?, v4.context("a pod with an address of IPv4")?));
    }
    let server = |(network, v4)| (network, Protocol::TCP, SocketAddr::new(v4, TARGET_PORT));
    let servers: Vec<_> = found.iter().map(|(network, v4)| server((network, *v4))).collect();
    Greeters::serve(&servers)
}

/// A second machine beside the nodes.
fn visitor(cluster: &Kube) -> Result<Namespace> {
    let visitor = Namespace::create(&unique())?;
    let name = visitor.name();
    cluster.internet.namespace.ip(&format!(
        "link add visitor type veth peer name eth0 netns {name}\nlink set visitor master nodes up\n"
    ))?;
    visitor.ip(&format!("link set eth0 up\naddr add {}/24 dev eth0\n", CLIENTS[1]))?;
    Ok(visitor)
}

/// Makes a client send to the services' addresses by way of a node.
fn route(client: &Namespace, node: usize) -> Result<()> {
    let addresses = SERVICES.iter().flat_map(|service| service.addresses);
    let lines: String =
        addresses.map(|last| format!("route replace 192.0.2.{last}/32 via {}\n", address(node))).collect();
    client.ip(&lines)
}

/// What a server says; nothing when nobody answers.
fn greeting(client: &Namespace, target: SocketAddr) -> Option<String> {
    let stream = client.enter(|| TcpStream::connect_timeout(&target, SILENCE)).ok()?;
    stream.set_read_timeout(Some(SILENCE)).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    (!line.is_empty()).then_some(line)
}

fn object(name: &str, selector: Value, service: Option<&Service>) -> Value {
    let mut port = json!({"port": PORT, "targetPort": TARGET_PORT});
    let mut spec = json!({"selector": selector});
    if let Some(Service { traffic, node_port, addresses, affinity, .. }) = service {
        port["nodePort"] = json!(node_port);
        spec["type"] = json!("LoadBalancer");
        spec["externalTrafficPolicy"] = json!(traffic);
        spec["externalIPs"] = json!([format!("192.0.2.{}", addresses[0])]);
        spec["sessionAffinity"] = json!(affinity);
    }
    spec["ports"] = json!([port]);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// The servers' own port is open to one client outside and to one inside, which may ask nobody else.
fn policies() -> Value {
    let ports = json!([{"port": TARGET_PORT, "protocol": "TCP"}]);
    let outside = json!({"ipBlock": {"cidr": format!("{}/32", CLIENTS[0])}});
    let client = json!({"podSelector": {"matchLabels": {"app": "client"}}});
    let web = json!({"podSelector": {"matchLabels": {"role": "web"}}});
    let policy = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    };
    let servers = json!({
        "podSelector": {"matchLabels": {"role": "web"}},
        "ingress": [{"from": [outside, client], "ports": ports}],
    });
    let clients = json!({
        "podSelector": {"matchLabels": {"app": "client"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [web], "ports": ports}],
    });
    let items = [policy("servers", servers), policy("client", clients)];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
