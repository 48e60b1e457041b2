//! The observer API as the real `hubble` client sees it: real flows, names, policies and queries; a port that wants
//! certificates; a client that stops reading.

use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use enforcer_tests::hubble::{Certificates, Hubble};
use enforcer_tests::{Agent, Family, Lab, Outcome};
use serde_json::{Value, json};

use crate::policies::{CLUSTER_DNS, UPDATE};

const ADDRESS: &str = "127.0.0.1:4244";

fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("update").mode("update", "enforce").pod("other").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    lab.policy("update.yaml", UPDATE)?;
    Ok(lab)
}

fn hubble(lab: &Lab) -> Result<Hubble<'_>> {
    Hubble::of_socket(&lab.node, &lab.socket().with_file_name("hubble.sock"))
}

/// update looks github.com up, reaches its port 22 and not its port 443; the client sees all of it afterwards.
fn happen(lab: &Lab, hubble: &Hubble<'_>) -> Result<()> {
    let listening = hubble.listen(&["observe", "--follow", "--since", "1h"])?;
    assert_eq!(lab.pod("update").visit("github.com", 22, Family::V4), Outcome::Connected);
    assert_eq!(lab.pod("update").visit("github.com", 443, Family::V4), Outcome::TimedOut);
    listening.await_line("the refusal", |line| line.contains(":443 ") && line.contains("DENIED"))?;
    listening.await_line("the end of the connection", |line| line.contains("TCP ended"))?;
    Ok(())
}

#[test]
fn the_hubble_client_prints_flows_names_and_policies() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    let hubble = hubble(&lab)?;
    ensure!(hubble.says(&["status"])?.contains("Healthcheck (via unix://"), "no health");
    happen(&lab, &hubble)?;
    let to_github = hubble.says(&["observe", "--to-fqdn", "github.com", "--print-policy-names"])?;
    for part in [
        "-> github.com:22 (world) policy-verdict:L3-L4 EGRESS ALLOWED BY update-egress (SegmentPolicy) (TCP admitted: rule)",
        "-> github.com:443 (world) policy-verdict:L3-L4 EGRESS DENIED BY default (Tier) (TCP refused: tier-default)",
        "-> github.com:22 (world) from-endpoint FORWARDED (TCP ended: closed, sent ",
    ] {
        ensure!(
            to_github.lines().any(|line| line.contains(part) && line.contains(" update/update:")),
            "{to_github}"
        );
    }
    let count = |flags: &[&str]| hubble.flows(flags).map(|flows| flows.len());
    let everything = count(&["--last", "1000"])?;
    ensure!(everything >= 4, "{everything} flows");
    assert_eq!(count(&["--all"])?, everything);
    let of_update = count(&["--pod", "update/update", "--last", "1000"])?;
    assert_eq!(count(&["--not", "--pod", "update/update", "--last", "1000"])?, everything - of_update);
    ensure!(of_update < everything, "the resolver's own flow is not update's");
    assert_eq!(count(&["--pod", "other/other"])?, 0);
    assert_eq!(count(&["--to-fqdn", "*.example"])?, 0);
    assert_eq!(count(&["--last", "1"])?, 1);
    let denied = count(&["--verdict", "DROPPED"])?;
    ensure!(denied > 0 && denied < everything, "{denied} of {everything}");
    assert_eq!(count(&["--not", "--verdict", "DROPPED", "--last", "1000"])?, everything - denied);
    assert_eq!(
        count(&["--namespace", "update", "--to-port", "22", "--protocol", "tcp", "-t", "policy-verdict"])?,
        1
    );
    let refused = hubble.complains(&["observe", "--from-ip", "10.0.0.0/33"])?;
    ensure!(refused.contains("whitelist[0].source_ip[0]: \"10.0.0.0/33\""), "{refused}");
    Ok(())
}

#[test]
fn the_hubble_client_reads_every_field() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    let hubble = hubble(&lab)?;
    happen(&lab, &hubble)?;
    let allowed = hubble.flows(&["--to-port", "22", "-t", "policy-verdict"])?;
    let [flow] = &allowed[..] else { anyhow::bail!("{allowed:?}") };
    let expected = [
        ("/verdict", json!("FORWARDED")),
        ("/source/namespace", json!("update")),
        ("/source/pod_name", json!("update")),
        ("/source/labels", json!(["k8s:io.kubernetes.pod.namespace=update", "k8s:app=update"])),
        ("/destination/identity", json!(2)),
        ("/destination_names", json!(["github.com"])),
        ("/l4/TCP/destination_port", json!(22)),
        ("/traffic_direction", json!("EGRESS")),
        ("/event_type", json!({"type": 5})),
        ("/egress_allowed_by/0/name", json!("update-egress")),
        ("/egress_allowed_by/0/namespace", json!("update")),
        ("/egress_allowed_by/0/kind", json!("SegmentPolicy")),
        ("/is_reply", json!(false)),
    ];
    for (path, value) in expected {
        assert_eq!(flow.pointer(path), Some(&value), "{path} of {flow:#}");
    }
    let answers = hubble.flows(&["--protocol", "dns", "--to-pod", "update/", "--last", "100"])?;
    let is_a = |flow: &&Value| flow["l7"]["dns"]["qtypes"] == json!(["A"]);
    let answer = answers.iter().find(is_a).with_context(|| format!("no answer: {answers:?}"))?;
    assert_eq!(
        (&answer["l7"]["dns"]["query"], &answer["l7"]["type"]),
        (&json!("github.com."), &json!("RESPONSE"))
    );
    assert_eq!(answer["source"]["pod_name"], json!("coredns"));
    let by_number = hubble.flows(&["--uuid", flow["uuid"].as_str().context("a number")?])?;
    assert_eq!(by_number, allowed);
    Ok(())
}

/// A flag of the client's for each filter of the API: a value that means flows of [`happen`], and one that means none.
const FILTERS: [[&str; 3]; 37] = [
    ["--from-ip", "10.0.0.0/8", "192.0.2.77"],
    ["--to-ip", "0.0.0.0/0", "192.0.2.77"],
    ["--from-pod", "update/up", "update/down"],
    ["--to-pod", "kube-system/core", "kube-system/dns"],
    ["--from-fqdn", "", "github.com"],
    ["--to-fqdn", "*hub.com", "pagerduty.com"],
    ["--from-label", "app=update", "app=payment"],
    ["--to-label", "k8s-app in (kube-dns)", "k8s-app notin (kube-dns),k8s-app"],
    ["--from-namespace", "update", "alerts"],
    ["--to-namespace", "kube-system", "alerts"],
    ["--from-service", "", "kube-system/kube-dns"],
    ["--to-service", "", "kube-system/kube-dns"],
    ["--from-workload", "update", "Deployment/update"],
    ["--to-workload", "coredns", "DaemonSet/coredns"],
    ["--from-identity", "", "77"],
    ["--to-identity", "world", "77"],
    ["--from-port", "", "77"],
    ["--to-port", "443", "77"],
    ["--from-cluster", "default", "other"],
    ["--to-cluster", "default", "other"],
    ["--protocol", "dns", "sctp"],
    ["--ip-version", "v4", "v6"],
    ["--tcp-flags", "syn", "urg"],
    ["--verdict", "DROPPED", "AUDIT"],
    ["--drop-reason-desc", "POLICY_DENIED", "INVALID_SOURCE_IP"],
    ["--traffic-direction", "egress", ""],
    ["--type", "trace:from-endpoint", "capture"],
    ["--node-name", "no*", "other/node"],
    ["--node-label", "", "zone=a"],
    ["--uuid", "", "77"],
    ["--interface", "", "eth0"],
    ["--snat-ip", "", "10.0.0.0/8"],
    ["--http-status", "", "200"],
    ["--http-method", "", "get"],
    ["--http-path", "", "/.*"],
    ["--http-url", "", ".*"],
    ["--trace-id", "", "77"],
];

#[test]
fn every_filter_of_the_hubble_client_means_what_it_says() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    let hubble = hubble(&lab)?;
    happen(&lab, &hubble)?;
    let count =
        |flags: &[&str]| hubble.flows(&[&["--last", "1000"], flags].concat()).map(|flows| flows.len());
    for [flag, some, none] in FILTERS {
        if !some.is_empty() {
            ensure!(count(&[flag, some])? > 0, "{flag} {some} means none");
        }
        if !none.is_empty() {
            assert_eq!(count(&[flag, none])?, 0, "{flag} {none}");
        }
    }
    let all = count(&[])?;
    assert_eq!(count(&["--unencrypted"])?, all);
    assert_eq!(count(&["--encrypted"])?, 0);
    assert_eq!(count(&["--reply"])? + count(&["--not-reply"])?, all);
    assert_eq!((count(&["--ip-trace-id", "7"])?, count(&["--http-header", "a:b"])?), (0, 0));
    let said = hubble.complains(&["observe", "--cel-expression", "true"])?;
    ensure!(said.contains("experimental.cel_expression: CEL is not spoken here"), "{said}");

    let earliest = hubble.flows(&["--first", "2"])?;
    assert_eq!(earliest, hubble.flows(&["--all"])?[..2]);
    assert_eq!(hubble.flows(&["--since", "1h", "--until", "30m"])?.len(), 0);
    let time = earliest[1]["time"].as_str().context("a time")?;
    let until = hubble.flows(&["--since", "1h", "--until", time])?;
    ensure!(until.len() < all && until.contains(&earliest[1]), "{} of {all} until {time}", until.len());
    Ok(())
}

#[test]
fn the_hubble_client_learns_of_the_node_and_follows_until_the_agent_ends() -> Result<()> {
    let lab = lab()?;
    let mut agent = lab.agent()?;
    let hubble = hubble(&lab)?;
    happen(&lab, &hubble)?;
    let nodes = hubble.says(&["list", "nodes"])?;
    ensure!(nodes.contains("Connected") && nodes.contains("/32768"), "{nodes}");
    let namespaces = hubble.says(&["list", "namespaces"])?;
    assert_eq!(namespaces.split_whitespace().collect::<Vec<_>>(), ["NAMESPACE", "kube-system", "update"]);
    let mut peers = hubble.listen(&["watch", "peers"])?;
    peers.await_line("the node", |line| line.starts_with("PEER_ADDED") && line.contains("hubble.sock"))?;
    let mut following = hubble.listen(&["observe", "-f", "--verdict", "FORWARDED", "--port", "22"])?;
    // It says nothing when it is ready: another connection goes by until it has seen one.
    let seen = || following.lines().read(|lines| lines.iter().any(|line| line.contains("github.com:22")));
    while !seen() {
        assert_eq!(lab.pod("update").visit("github.com", 22, Family::V4), Outcome::Connected);
    }
    agent.terminate()?;
    following.ends()?;
    peers.ends()?;
    ensure!(!lab.socket().with_file_name("hubble.sock").exists(), "the socket is left");
    Ok(())
}

#[test]
fn the_port_wants_a_certificate_and_follows_new_ones() -> Result<()> {
    let lab = lab()?;
    let (own, strange) = (Certificates::new()?, Certificates::new()?);
    let served = |agent: &Agent<'_>| -> Result<Value> { Ok(agent.status()?["observer"].clone()) };
    let [certificate, key, ca] = ["agent.pem", "agent.key", "ca.pem"].map(|name| own.file(name));
    let agent = lab.agent_with(&[
        "--observer-socket",
        "none",
        "--observer-address",
        ADDRESS,
        "--observer-certificate",
        &certificate,
        "--observer-key",
        &key,
        "--observer-client-ca",
        &ca,
    ])?;
    assert_eq!(served(&agent)?, json!([format!("tls://{ADDRESS}")]));
    let client = |shown| Hubble::of_port(&lab.node, ADDRESS, &own, shown);
    ensure!(client(Some(&own))?.says(&["status"])?.contains("Ok"), "a client with a certificate is served");
    assert_eq!(lab.pod("update").visit("github.com", 443, Family::V4), Outcome::TimedOut);
    agent.await_record("the refusal", |record| record.event() == "refused")?;
    assert_eq!(client(Some(&own))?.flows(&["--verdict", "DROPPED", "--to-port", "443"])?.len(), 1);
    ensure!(!lab.socket().with_file_name("hubble.sock").exists(), "no socket was wanted");
    for stranger in [None, Some(&strange)] {
        client(stranger)?.complains(&["status"])?;
    }
    agent.await_log("a client of the observer API was refused")?;
    own.renew()?;
    ensure!(client(Some(&own))?.says(&["status"])?.contains("Ok"), "new certificates count");
    agent.await_log("certificates were read again")?;
    std::fs::write(own.file("agent.pem"), "no certificate")?;
    ensure!(client(Some(&own))?.says(&["status"])?.contains("Ok"), "those before count on");
    agent.await_log("cannot be used; the ones before are")?;
    Ok(())
}

/// New flows of the pod `other`, one for each port.
fn send(lab: &Lab, ports: Range<u16>) -> Result<()> {
    let send = || -> std::io::Result<()> {
        for port in ports {
            // What a refusal of one before says is the next one's error.
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"new", (Ipv4Addr::new(203, 0, 113, 2), port))?;
        }
        Ok(())
    };
    Ok(lab.pod("other").namespace.enter(send)?)
}

/// What a client was given so far: flows, and how many others it was told that it missed.
#[derive(Default)]
struct Given {
    lines: usize,
    flows: u64,
    lost: u64,
}

impl Given {
    /// Counts the lines that are new.
    fn count(&mut self, lines: &[String]) {
        for line in &lines[self.lines..] {
            let answer: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            self.flows += u64::from(answer["flow"].is_object());
            let lost = answer["lost_events"]["num_events_lost"].as_str();
            self.lost += lost.map_or(0, |text| text.parse().expect("a number"));
        }
        self.lines = lines.len();
    }
}

#[test]
fn a_client_that_stops_reading_is_told_exactly_what_it_missed() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent_with(&["--flow-capacity", "64"])?;
    let hubble = hubble(&lab)?;
    send(&lab, 9_999..10_000)?;
    let listening = hubble.listen(&["observe", "--follow", "--since", "1h", "-o", "jsonpb"])?;
    listening.await_line("the first flow", |line| line.contains("9999"))?;
    listening.hold(true)?;
    // Few at once, so that the kernel's ring has room for all.
    for first in (10_000..30_000).step_by(500) {
        let before = agent.records().len();
        send(&lab, first..first + 500)?;
        let told = agent.records().wait(|all| (all.len() >= before + 500).then_some(()));
        told.with_context(|| format!("a flow to a port from {first} on has no record"))?;
    }
    listening.hold(false)?;
    let mut given = Given::default();
    loop {
        let seen = agent.status()?["flows"]["seen"].as_u64().context("no count of flows")?;
        let all_given = listening.lines().wait(|lines| {
            given.count(lines);
            (given.flows + given.lost >= seen).then_some(())
        });
        all_given.with_context(|| format!("{} given, {} lost of {seen}", given.flows, given.lost))?;
        // More may have come meanwhile: ends of flows.
        let status = agent.status()?;
        if status["flows"]["seen"] == json!(given.flows + given.lost) {
            assert_eq!(status["losses"]["observer-reader-missed"], json!(given.lost));
            break;
        }
    }
    ensure!(given.lost > 0, "nothing was lost of {}", given.flows);
    Ok(())
}
