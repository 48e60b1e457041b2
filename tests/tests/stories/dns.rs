//! C11, every query is logged: who asked whom for what, over which transport, what came back, what it opened, how long it
//! took; once each, in the same stream as flows, and by `enforcer dns`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use enforcer_tests::dig::{Ask, Transport};
use enforcer_tests::resolver::Software;
use enforcer_tests::{Agent, Lab, Record, zone};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::policies::{CLUSTER_DNS, egress, rule};

/// Longer than a question may stay open.
const GIVEN_UP: Duration = Duration::from_secs(60);

fn lab(software: Software) -> Result<Lab> {
    let lab = Lab::builder().resolver(software).pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let peers = format!("fqdns: [\"*.{}\", \"*.{}\"]", zone::FRESH, zone::CHAIN);
    lab.policy("app.yaml", &egress("app", &[rule("names", "Allow", &peers, "TCP", 443)]))?;
    Ok(lab)
}

/// A question of the pod `app` to the cluster's resolver.
fn ask(lab: &Lab, name: &str, kind: RecordType, transport: Transport) -> Result<()> {
    let pod = lab.pod("app");
    let ask = Ask { resolver: pod.resolver(), name, kind, transport, payload: Some(1232) };
    pod.namespace.enter(|| ask.here()).map(drop)
}

/// Waits for so many DNS records of the pod `app` and returns what each tells that does not differ from run to run.
fn await_queries(agent: &Agent<'_>, count: usize) -> Result<Vec<Value>> {
    let of_app = |record: &&Record| record.event() == "dns" && record.source() == "app/app";
    let found = agent.records().wait(|all| {
        let queries: Vec<_> = all.iter().filter(of_app).map(|record| record.0.clone()).collect();
        (queries.len() >= count).then_some(queries)
    });
    let mut queries = found.with_context(|| format!("there are not {count} DNS records"))?;
    for query in &mut queries {
        ensure!(
            query["destination"]["workload"] == "coredns" && query["destination"]["port"] == 53,
            "{query}"
        );
        ensure!(query["verdict"] == "FORWARDED", "{query}");
        let latency = query["dns"]["latency_ns"].as_u64().context("no latency")?;
        ensure!((1_000..3_000_000_000).contains(&latency), "{query}");
        let protocol = query["protocol"].take();
        *query = query["dns"].take();
        let dns = query.as_object_mut().context("no dns")?;
        dns.remove("latency_ns");
        dns.remove("id");
        dns.insert("protocol".to_owned(), protocol);
        let answers = query.pointer_mut("/answers").and_then(Value::as_array_mut);
        for answer in answers.into_iter().flatten() {
            // Seconds may pass between server and resolver.
            let ttl = answer["ttl"].take();
            ensure!(ttl.as_u64().is_some_and(|ttl| ttl <= 1), "{ttl}");
        }
    }
    Ok(queries)
}

/// What is expected of a query.
fn query(name: &str, kind: &str, protocol: &str, (outcome, rcode): (&str, &str), learned: u32) -> Value {
    json!({"name": name, "type": kind, "protocol": protocol, "outcome": outcome, "rcode": rcode, "learned": learned})
}

fn with_answers(mut query: Value, answers: &[(Option<&str>, &str, &str)]) -> Value {
    let answer = |(name, kind, data): &(Option<&str>, &str, &str)| match name {
        Some(name) => json!({"name": name, "type": kind, "ttl": null, "data": data}),
        None => json!({"type": kind, "ttl": null, "data": data}),
    };
    query["answers"] = answers.iter().map(answer).collect();
    query
}

fn every_query(software: Software) -> Result<()> {
    let lab = lab(software)?;
    let agent = lab.agent()?;
    let tcp = Transport::Tcp { pieces: usize::MAX };
    ask(&lab, "n1.fresh.example", RecordType::A, Transport::Udp)?;
    ask(&lab, "N2.Chain.Example", RecordType::AAAA, Transport::Udp)?;
    ask(&lab, "nowhere.example", RecordType::A, Transport::Udp)?;
    ask(&lab, "github.com", RecordType::TXT, Transport::Udp)?;
    ask(&lab, "n3.fresh.example", RecordType::A, tcp)?;
    let expected = vec![
        with_answers(
            query("n1.fresh.example", "A", "UDP", ("learned", "NOERROR"), 1),
            &[(None, "A", "198.18.0.1")],
        ),
        with_answers(
            query("n2.chain.example", "AAAA", "UDP", ("learned", "NOERROR"), 1),
            &[
                (None, "CNAME", "n2.hop.example"),
                (Some("n2.hop.example"), "CNAME", "n2.edge.example"),
                (Some("n2.edge.example"), "AAAA", "2001:db8:f:1::2"),
            ],
        ),
        query("nowhere.example", "A", "UDP", ("server-error", "NXDOMAIN"), 0),
        query("github.com", "TXT", "UDP", ("nothing", "NOERROR"), 0),
        with_answers(
            query("n3.fresh.example", "A", "TCP", ("learned", "NOERROR"), 1),
            &[(None, "A", "198.18.0.3")],
        ),
    ];
    assert_eq!(await_queries(&agent, expected.len())?, expected);
    let told = |arguments: &[&str]| -> Result<Vec<String>> {
        let out = agent.cli(&[&["dns", "-o", "json", "--last", "100"], arguments].concat())?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let name = |line: &str| -> Result<String> {
            let record: Value = serde_json::from_str(line)?;
            Ok(record["dns"]["name"].as_str().unwrap_or_default().to_owned())
        };
        String::from_utf8(out.stdout)?.lines().map(name).collect()
    };
    assert_eq!(told(&["--workload", "app/app"])?.len(), expected.len());
    assert_eq!(told(&["--rcode", "nxdomain"])?, ["nowhere.example"]);
    assert_eq!(told(&["--name", "*.hop.example"])?, ["n2.chain.example"]);
    assert_eq!(told(&["--protocol", "tcp", "--type", "a"])?, ["n3.fresh.example"]);
    assert_eq!(told(&["--namespace", "kube-system"])?, [""; 0]);
    Ok(())
}

#[test]
fn c11_every_query_is_logged_that_dnsmasq_answers() -> Result<()> {
    every_query(Software::Dnsmasq)
}

#[test]
fn c11_every_query_is_logged_that_unbound_answers() -> Result<()> {
    every_query(Software::Unbound)
}

#[test]
fn c11_every_query_is_logged_that_bind_answers() -> Result<()> {
    every_query(Software::Bind)
}

#[test]
fn a_query_that_nobody_answers_is_logged_as_such() -> Result<()> {
    let lab = lab(Software::Dnsmasq)?;
    let agent = lab.agent()?;
    let silent = format!("n1.{}", zone::SILENT);
    assert!(ask(&lab, &silent, RecordType::AAAA, Transport::Udp).is_err());
    let is_it = |record: &&Record| record.event() == "dns" && record.text("/dns/outcome") == "timeout";
    let found = agent.records().wait_within(GIVEN_UP, |all| all.iter().find(is_it).cloned());
    let record = found.context("it was never given up")?;
    let told = ["/dns/name", "/dns/type", "/verdict", "/protocol"].map(|pointer| record.text(pointer));
    assert_eq!(told, [silent.as_str(), "AAAA", "FORWARDED", "UDP"]);
    assert_eq!((record.source().as_str(), record.0.pointer("/dns/rcode")), ("app/app", None));
    assert!(record.number("/dns/latency_ns") >= 30_000_000_000);
    Ok(())
}
