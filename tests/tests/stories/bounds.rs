//! Zones that answer with ever new addresses, or have ever new names: what a name and a workload may learn is bounded, the
//! oldest makes room and is counted, and nobody else notices.

use std::net::IpAddr;

use anyhow::{Context, Result};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::{Agent, Family, Lab, Outcome, client, zone};
use serde_json::{Value, json};

use crate::policies::{egress, rule};

/// Asked directly, so that no cache is between.
const RESOLVER: &str = "198.51.100.53";
/// Bounds of a workload and of a name.
const PER_WORKLOAD: u16 = 200;
const PER_NAME: u16 = 50;
/// How often the one name is asked for, and how many names there are.
const TURNS: u16 = 30;
const NAMES: u16 = 600;

fn lab() -> Result<Lab> {
    let pods = ["flooder", "victim"];
    let lab = pods.iter().fold(Lab::builder(), |lab, pod| lab.pod(pod).mode(pod, "enforce")).start()?;
    let names = format!("fqdns: [\"*.{}\", \"*.{}\"]", zone::LASTING, zone::EVER);
    let resolver = format!("cidr: {RESOLVER}/32");
    let rules = [rule("names", "Allow", &names, "TCP", 443), rule("resolver", "Allow", &resolver, "UDP", 53)];
    for pod in pods {
        lab.policy(&format!("{pod}.yaml"), &egress(pod, &rules))?;
    }
    Ok(lab)
}

/// The addresses that a pod gets for a name.
fn ask(lab: &Lab, pod: &str, name: &str) -> Result<Vec<IpAddr>> {
    client::resolve(&lab.pod(pod).namespace, RESOLVER.parse()?, name, Family::V4)
}

/// Waits until the status says this of what is learned.
fn await_learned(agent: &Agent<'_>, expected: &Value) -> Result<()> {
    let what = format!("{expected} learned");
    agent.await_status(&what, PATIENCE, |status| Ok((status["learned"] == *expected).then_some(())))
}

/// Addresses that `names` shows for a name, and how many it says made room.
fn shown(agent: &Agent<'_>, name: &str) -> Result<(usize, Option<u64>)> {
    let out = agent.cli(&["names", "-o", "json"])?;
    let lines: Vec<Value> =
        String::from_utf8(out.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of_name: Vec<_> = lines.iter().filter(|line| line["name"] == name).collect();
    Ok((of_name.len(), of_name.first().and_then(|line| line["evicted"].as_u64())))
}

#[test]
fn names_and_workloads_are_bounded_and_nobody_else_notices() -> Result<()> {
    let lab = lab()?;
    let (per_workload, per_name) = (PER_WORKLOAD.to_string(), PER_NAME.to_string());
    let agent = lab.agent_with(&[
        "--trusted-resolver",
        RESOLVER,
        "--learned-per-workload",
        &per_workload,
        "--learned-per-name",
        &per_name,
    ])?;
    let connect = |pod: &str, address| lab.pod(pod).connect(address, 443);
    let own = *ask(&lab, "victim", "n1.lasting.example")?.first().context("no address")?;
    assert_eq!(connect("victim", own), Outcome::Connected);

    let mut given = Vec::new();
    for _ in 0..TURNS {
        given.extend(ask(&lab, "flooder", "x.ever.example")?);
    }
    let learned = TURNS * zone::EVER_NEW;
    assert_eq!(given.len(), usize::from(learned));
    let expected = json!({
        "per_workload": PER_WORKLOAD, "per_name": PER_NAME, "entered": 1 + learned,
        "evicted_by_node": 0, "evicted_by_workload": 0, "evicted_by_name": learned - PER_NAME,
        "workloads": {"flooder/flooder": PER_NAME, "victim/victim": 1},
    });
    await_learned(&agent, &expected)?;
    assert_eq!(shown(&agent, "x.ever.example")?, (PER_NAME.into(), Some((learned - PER_NAME).into())));
    assert_eq!(connect("flooder", given[given.len() - 1]), Outcome::Connected, "the newest");
    assert_eq!(connect("flooder", given[0]), Outcome::TimedOut, "the oldest");

    for number in 100..100 + NAMES {
        ask(&lab, "flooder", &format!("n{number}.lasting.example"))?;
    }
    let expected = json!({
        "per_workload": PER_WORKLOAD, "per_name": PER_NAME, "entered": 1 + learned + NAMES,
        "evicted_by_node": 0, "evicted_by_workload": PER_NAME + NAMES - PER_WORKLOAD,
        "evicted_by_name": learned - PER_NAME,
        "workloads": {"flooder/flooder": PER_WORKLOAD, "victim/victim": 1},
    });
    await_learned(&agent, &expected)?;
    assert_eq!(connect("victim", own), Outcome::Connected, "it learned nothing since");
    Ok(())
}
