//! Metrics as a real Prometheus sees them, and the alert rules that are shipped.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::prometheus::{Prometheus, check};
use enforcer_tests::{Family, Lab, Outcome, client};
use serde_json::Value;
use tempfile::TempDir;

use crate::policies::{CLUSTER_DNS, egress, rule};

const ADDRESS: &str = "127.0.0.1:9478";

/// A page of the agent's: its status line, headers and text.
fn get(lab: &Lab, path: &str, accept: &str) -> Result<String> {
    let address: SocketAddr = ADDRESS.parse()?;
    lab.node.enter(|| {
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: agent\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        )?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })
}

/// A file that is shipped.
fn deployed(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).join(file)
}

#[test]
fn prometheus_sees_what_happens() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let names = "fqdns: [\"*.fresh.example\"]";
    lab.policy("app.yaml", &egress("app", &[rule("names", "Allow", names, "TCP", 443)]))?;
    let _agent = lab.agent_with(&["--metrics-address", ADDRESS])?;
    let prometheus = Prometheus::start(&lab.node, ADDRESS.parse()?, &deployed("prometheus/rules.yaml"))?;
    assert_eq!(lab.pod("app").visit("n1.fresh.example", 443, Family::V4), Outcome::Connected);
    assert_eq!(lab.pod("app").visit("n1.fresh.example", 22, Family::V4), Outcome::TimedOut);
    for expression in [
        "up{job=\"enforcer\"}",
        "enforcer_build{version!=\"\"}",
        "enforcer_policy_revision",
        "enforcer_workloads{enforced=\"true\"}",
        "enforcer_map_entries{map=\"RULES\"} / on (map) enforcer_map_capacity",
        "enforcer_dropped_packets_total{reason=\"tier-default\"}",
        "enforcer_flows_total{namespace=\"app\",workload=\"app\",direction=\"egress\",verdict=\"FORWARDED\"}",
        "enforcer_flows_total{namespace=\"app\",workload=\"app\",direction=\"egress\",verdict=\"DENIED\"}",
        "enforcer_flow_bytes_total{workload=\"app\",verdict=\"FORWARDED\"}",
        "enforcer_dns_queries_total{outcome=\"learned\"}",
        "enforcer_dns_responses_total{rcode=\"NOERROR\"}",
        "enforcer_dns_learned_addresses_total",
        "enforcer_dns_latency_seconds_count",
        "histogram_quantile(0.5, enforcer_dns_latency_seconds_bucket)",
        "enforcer_workload_dns_queries_total{namespace=\"app\",workload=\"app\"}",
    ] {
        prometheus.await_value(expression)?;
    }
    let page = get(&lab, "/metrics", "text/plain")?;
    let (head, metrics) = page.split_once("\r\n\r\n").context("a head")?;
    ensure!(head.contains("text/plain; version=0.0.4"), "{head}");
    check(&lab.node, &["check", "metrics"], metrics)?;
    let page = get(&lab, "/metrics", "application/openmetrics-text; version=1.0.0")?;
    ensure!(page.contains("application/openmetrics-text") && page.trim_end().ends_with("# EOF"), "{page}");
    Ok(())
}

/// The kinds of loss that the operator's guide lists.
fn documented_losses() -> BTreeSet<String> {
    let guide = include_str!("../../../docs/operate.md");
    let section = guide.split("\n## Losses\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section.unwrap_or_default().lines().filter_map(|row| row.strip_prefix("| `"));
    let names = rows.filter_map(|row| Some(row.split_once(" |")?.0));
    names.flat_map(|names| names.split(", ")).map(|name| name.trim_matches('`').to_owned()).collect()
}

/// The values of a label of one metric.
fn values(page: &str, metric: &str, label: &str) -> BTreeSet<String> {
    let samples = page.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    let value = |sample: &str| {
        let (_, rest) = sample.split_once(&format!("{label}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    samples.filter_map(value).collect()
}

#[test]
fn what_may_be_lost_is_told_before_anything_is() -> Result<()> {
    let lab = Lab::builder().pod("app").start()?;
    let to = ["--otlp", "http://127.0.0.1:4317", "--syslog", "tcp://127.0.0.1:5514"];
    let _agent = lab.agent_with(&[&["--metrics-address", ADDRESS], &to[..]].concat())?;
    let page = get(&lab, "/metrics", "text/plain")?;
    assert_eq!(values(&page, "enforcer_losses_total", "kind"), documented_losses());
    let reasons = values(&page, "enforcer_dropped_packets_total", "reason");
    ensure!(reasons.contains("tier-default") && reasons.len() > 20, "{reasons:?}");
    let outcomes = values(&page, "enforcer_dns_queries_total", "outcome");
    ensure!(outcomes.contains("timeout") && outcomes.len() == 8, "{outcomes:?}");
    Ok(())
}

#[test]
fn no_counter_falls_when_a_flow_is_judged_again() -> Result<()> {
    let [server, staying]: [SocketAddr; 2] = ["203.0.113.1:4000".parse()?, "203.0.113.2:4000".parse()?];
    let lab = Lab::builder().pod("app").mode("app", "observe").start()?;
    let policy = |action| egress("app", &[rule("data", action, "cidr: 203.0.113.1/32", "UDP", 4000)]);
    lab.policy("app.yaml", &policy("Deny"))?;
    let _echo = UdpEcho::serve(&lab.internet.namespace, server)?;
    let agent = lab.agent_with(&["--metrics-address", ADDRESS])?;
    let prometheus = Prometheus::start(&lab.node, ADDRESS.parse()?, &deployed("prometheus/rules.yaml"))?;
    let socket = lab.pod("app").namespace.enter(|| client::datagram_socket(server))?;
    socket.set_read_timeout(Some(client::CONNECT))?;
    let echo = |times| -> Result<()> {
        for _ in 0..times {
            socket.send(b"x")?;
            socket.recv(&mut [0; 1]).context("no echo")?;
        }
        Ok(())
    };
    let of_app = |verdict: &str| {
        let labels = format!("workload=\"app\",direction=\"egress\",verdict=\"{verdict}\"");
        format!("enforcer_flow_packets_total{{{labels}}}")
    };
    // Two flows: one stays what it is.
    lab.pod("app").namespace.enter(|| client::datagram_socket(staying)?.send(b"x"))?;
    echo(10)?;
    prometheus.await_value(&format!("{} >= 21", of_app("WOULD_DENY")))?;
    let before = agent.status()?["policy"]["revision"].clone();
    lab.policy("app.yaml", &policy("Allow"))?;
    agent.await_status("the edit", PATIENCE, |status| {
        Ok((status["policy"]["revision"] != before).then_some(()))
    })?;
    // Its counts go along with it.
    echo(1)?;
    prometheus.await_value(&format!("{} >= 22", of_app("FORWARDED")))?;
    // From one scrape to the next, some times over.
    prometheus.await_value(&format!("count_over_time({}[1m]) >= 4", of_app("FORWARDED")))?;
    assert_eq!(prometheus.await_number(&format!("resets({}[1m])", of_app("WOULD_DENY")))?, 0.0);
    Ok(())
}

#[test]
fn workloads_beyond_the_bound_are_one_series() -> Result<()> {
    let lab = Lab::builder().pod("one").pod("two").pod("three").start()?;
    let _agent = lab.agent_with(&["--metrics-address", ADDRESS, "--metrics-workloads", "2"])?;
    let prometheus = Prometheus::start(&lab.node, ADDRESS.parse()?, &deployed("prometheus/rules.yaml"))?;
    for pod in ["one", "two", "three"] {
        assert_eq!(lab.pod(pod).visit("github.com", 443, Family::V4), Outcome::Connected);
    }
    // Theirs and the resolver's: two have names, two are one.
    for metric in ["enforcer_flows_total", "enforcer_workload_dns_queries_total"] {
        prometheus.await_value(&format!("{metric}{{namespace=\"\",workload=\"\"}}"))?;
    }
    prometheus.await_value("count(count by (workload) (enforcer_flows_total)) == 3")?;
    let page = get(&lab, "/metrics", "text/plain")?;
    assert_eq!(values(&page, "enforcer_flows_total", "workload").len(), 3);
    Ok(())
}

#[test]
fn every_query_of_the_dashboard_has_data() -> Result<()> {
    let text = std::fs::read_to_string(deployed("grafana/enforcer.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    ensure!(queries.len() > 20, "{queries:?}");

    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let names = "fqdns: [\"*.fresh.example\"]";
    lab.policy("app.yaml", &egress("app", &[rule("names", "Allow", names, "TCP", 443)]))?;
    let spool = TempDir::new()?;
    let directory = spool.path().to_string_lossy().into_owned();
    // Nobody is there to export to.
    let export = ["--syslog", "tcp://127.0.0.1:1", "--spool", &directory];
    let _agent = lab.agent_with(&[&["--metrics-address", ADDRESS], &export[..]].concat())?;
    let prometheus = Prometheus::start(&lab.node, ADDRESS.parse()?, &deployed("prometheus/rules.yaml"))?;
    assert_eq!(lab.pod("app").visit("n1.fresh.example", 22, Family::V4), Outcome::TimedOut);
    // Rates need a scrape before and one after.
    prometheus.await_value("enforcer_dns_latency_seconds_count")?;
    assert_eq!(lab.pod("app").visit("n1.fresh.example", 443, Family::V4), Outcome::Connected);
    assert_eq!(lab.pod("app").visit("n1.fresh.example", 22, Family::V4), Outcome::TimedOut);
    for query in queries {
        let query = query.replace("$__rate_interval", "10m").replace("$instance", ".*");
        prometheus.await_number(&query)?;
    }
    for moved in ["enforcer_flows_total", "enforcer_export_waiting_records", "enforcer_export_away"] {
        prometheus.await_value(moved)?;
    }
    Ok(())
}

#[test]
fn probes_tell_whether_policy_is_in_force() -> Result<()> {
    let lab = Lab::builder().pod("app").start()?;
    let _agent = lab.agent_with(&["--metrics-address", ADDRESS])?;
    for (path, expected) in [
        ("/healthz", "HTTP/1.1 200 OK"),
        ("/readyz", "HTTP/1.1 200 OK"),
        ("/elsewhere", "HTTP/1.1 404 Not Found"),
    ] {
        let page = get(&lab, path, "*/*")?;
        ensure!(page.starts_with(expected), "{path}: {page}");
    }
    Ok(())
}

#[test]
fn shipped_alerts_fire_on_what_they_are_for() -> Result<()> {
    let lab = Lab::builder().start()?;
    let path = |file| deployed(file).to_string_lossy().into_owned();
    check(&lab.node, &["check", "rules", &path("prometheus/rules.yaml")], "")?;
    check(&lab.node, &["test", "rules", &path("prometheus/rules_test.yaml")], "")
}
