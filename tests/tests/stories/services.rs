//! Services, translated as kube-proxy does it: a virtual address whose packets get a backend's in the node, behind the
//! client's interface. Policy speaks of backends; where they differ, nothing is guessed.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use enforcer_tests::client::outcome;
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::{Family, Lab, Namespace, Outcome, Pod};

/// What each service is translated to: the pods' addresses, in turn where there are two. `old` is 10.0.0.4, `new` is
/// 10.0.0.5.
const TRANSLATION: &str = r"
table inet proxy {
  chain out {
    type nat hook prerouting priority dstnat;
    ip daddr 10.96.0.1 tcp dport 80 dnat ip to 10.0.0.4:8080
    ip daddr 10.96.0.1 udp dport 53 dnat ip to 10.0.0.4:5353
    ip daddr 10.96.0.2 tcp dport 80 dnat ip to 10.0.0.5:8080
    ip daddr 10.96.0.2 udp dport 53 dnat ip to 10.0.0.5:5353
    ip daddr 10.96.0.3 tcp dport 80 dnat ip to numgen inc mod 2 map { 0 : 10.0.0.4 , 1 : 10.0.0.5 }:8080
    ip6 daddr fd00:96::1 tcp dport 80 dnat ip6 to [fd00:10::4]:8080
    ip daddr 192.0.2.1 tcp dport 30080 dnat ip to 10.0.0.4:8080
  }
}
";

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: old}}}]
    ports: [{port: 8080}, {protocol: UDP, port: 5353}]
";

/// A service at an address, and its endpoints.
fn service(name: &str, addresses: &str, kind: &str, endpoints: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  clusterIPs: [{addresses}]
  selector: {{service: {name}}}
  ports:
  - {{name: web, port: 80, targetPort: 8080, nodePort: {node_port}}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: 5353}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{part}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {kind}
endpoints: [{endpoints}]
ports: [{{name: web, port: 8080}}, {{name: dns, protocol: UDP, port: 5353}}]
",
        part = kind.to_lowercase(),
        node_port = if name == "allowed" { 30080 } else { 0 },
    )
}

fn services(shared: &str) -> String {
    let old = "{addresses: [10.0.0.4]}";
    let of_allowed = service("allowed", "10.96.0.1, 'fd00:96::1'", "IPv4", old);
    let of_v6 = service("allowed", "10.96.0.1, 'fd00:96::1'", "IPv6", "{addresses: ['fd00:10::4']}");
    let of_v6 = of_v6.split_once("---\napiVersion: discovery").map_or("", |(_, slice)| slice).to_owned();
    [
        of_allowed,
        format!("---\napiVersion: discovery{of_v6}"),
        service("refused", "10.96.0.2", "IPv4", "{addresses: [10.0.0.5]}"),
        service("shared", "10.96.0.3", "IPv4", shared),
    ]
    .concat()
}

/// Puts rules of nftables in force.
fn translate(node: &Namespace) -> Result<()> {
    let mut nft = node.spawn(Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()))?;
    nft.stdin.take().expect("its standard input is a pipe").write_all(TRANSLATION.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refused the rules");
    Ok(())
}

#[test]
fn a_service_is_what_its_backends_are() -> Result<()> {
    let lab = Lab::builder().pod_in("shop", "client").pod_in("shop", "old").pod_in("shop", "new").start()?;
    translate(&lab.node)?;
    lab.policy("out.yaml", POLICY)?;
    let both = "{addresses: [10.0.0.4]}, {addresses: [10.0.0.5]}";
    lab.policy("services.yaml", &services(both))?;
    let (old, new) = (lab.pod("old"), lab.pod("new"));
    let (_old, served_new) = (old.serve(8080)?, new.serve(8080)?);
    let echo = |pod: &Pod| UdpEcho::serve(&pod.namespace, SocketAddr::new(pod.address(Family::V4), 5353));
    let (_old_echo, new_echo) = (echo(old)?, echo(new)?);
    let client = lab.pod("client");
    let ping = |address: &str| {
        client.ping(SocketAddr::new(address.parse().expect("an address"), 53), b"question").is_ok()
    };
    let agent = lab.agent()?;

    assert_eq!(
        open(client, "10.96.0.1", 80),
        Outcome::Connected,
        "another port than the rule's: the backend's is meant"
    );
    assert_eq!(open(client, "fd00:96::1", 80), Outcome::Connected);
    assert_eq!(open(client, "192.0.2.1", 30080), Outcome::Connected, "at the node");
    assert!(ping("10.96.0.1"));
    assert_eq!(open(client, "10.96.0.2", 80), Outcome::TimedOut);
    assert!(!ping("10.96.0.2"));
    let refused = agent.await_record("the refused service", |record| {
        record.verdict() == "DENIED" && record.destination_port() == 80
    })?;
    assert_eq!(
        (refused.text("/reason"), refused.text("/destination/address")),
        ("tier-default", "10.96.0.2")
    );

    for _ in 0..2 {
        assert_eq!(open(client, "10.96.0.3", 80), Outcome::TimedOut, "one of its backends is refused");
    }
    let mixed =
        agent.await_record("the shared service", |record| record.text("/reason") == "backends-differ")?;
    assert_eq!((mixed.verdict(), mixed.text("/destination/address")), ("DENIED", "10.96.0.3"));
    assert_eq!((served_new.accepted.len(), new_echo.received()), (0, 0), "nothing has reached it");
    let explained =
        agent.cli(&["policy", "explain", "--from", "shop/client", "--to", "10.96.0.3", "--port", "80"])?;
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    for line in ["backend 10.0.0.4:8080: FORWARDED", "backend 10.0.0.5:8080: DENIED"] {
        assert!(explained.contains(line), "{line:?} is missing in:\n{explained}");
    }
    Ok(())
}

#[test]
fn endpoints_that_change_change_what_their_service_is() -> Result<()> {
    let lab = Lab::builder().pod_in("shop", "client").pod_in("shop", "old").pod_in("shop", "new").start()?;
    translate(&lab.node)?;
    lab.policy("out.yaml", POLICY)?;
    lab.policy("services.yaml", &services("{addresses: [10.0.0.5]}"))?;
    let _served = (lab.pod("old").serve(8080)?, lab.pod("new").serve(8080)?);
    let _agent = lab.agent()?;
    let client = lab.pod("client");
    assert_eq!(open(client, "10.96.0.3", 80), Outcome::TimedOut);
    let ready = "{addresses: [10.0.0.4]}, {addresses: [10.0.0.5], conditions: {ready: false}}";
    lab.policy("services.yaml", &services(ready))?;
    await_outcome(client, &Outcome::Connected)?;
    lab.policy("services.yaml", &services("{addresses: [10.0.0.4]}, {addresses: [10.0.0.5]}"))?;
    await_outcome(client, &Outcome::TimedOut)
}

/// Connects to the shared service until it comes out like this.
fn await_outcome(client: &Pod, wanted: &Outcome) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while open(client, "10.96.0.3", 80) != *wanted {
        ensure!(Instant::now() < deadline, "it never was {wanted:?}");
    }
    Ok(())
}

/// Connects; the greeting names the backend that the service was translated to.
fn open(client: &Pod, address: &str, port: u16) -> Outcome {
    match client.open(address.parse().expect("an address"), port) {
        Err(error) if error.to_string().starts_with("reached ") => Outcome::Connected,
        other => outcome(&other),
    }
}
