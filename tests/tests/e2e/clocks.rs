//! An agent that lives in another time than the API server: an hour that passes while the server is away, and clocks that differ.
//! The agent is a process on a node of `Large`, with a clock of its own; API server, kernel and traffic are real.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enforcer_core::protocol::Protocol;
use enforcer_tests::clock::{BELIEF, Clock};
use enforcer_tests::probe::{Attempt, Greeters, probe};
use enforcer_tests::scale::{Large, Size, objects};
use enforcer_tests::{Agent, Outcome};
use jiff::Timestamp;
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

use super::is_asked_for;

/// A story that needs no cluster of its own: its name, and what happens.
type Story = (&'static str, fn() -> Result<()>);

const STORIES: &[Story] = &[
    ("clocks::an_hour_without_the_api_server_changes_nothing", an_hour_without_the_api_server),
    ("clocks::clocks_that_differ_are_told_or_do_not_matter", clocks_that_differ),
];
/// Two nodes of which one is real, with two pods: a server and a client.
const SIZE: Size = Size { nodes: 2, pods: 10, policies: 0, local: 2 };
const PORTS: [u16; 2] = [80, 81];
/// How long something may take. Generous: it is waited out only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a denied connection is waited for.
const SILENCE: Duration = Duration::from_millis(500);
/// Minutes of the agent's clock that pass at once.
const LEAP: usize = 3;
/// Seconds.
const HOUR: i64 = 3600;

/// Runs those that are asked for; true when nothing failed.
pub(crate) fn run(arguments: &Arguments) -> bool {
    let asked_for = STORIES.iter().filter(|(name, _)| is_asked_for(arguments, name));
    let trial = |(name, story): &Story| {
        let story = *story;
        Trial::test(*name, move || story().map_err(|error| format!("{error:#}").into()))
    };
    let arguments = Arguments { filter: None, ..arguments.clone() };
    !libtest_mimic::run(&arguments, asked_for.map(trial).collect()).has_failed()
}

/// What becomes of a connection from the client to each port of the server.
fn ask(large: &Large) -> Result<[Outcome; 2]> {
    let attempts = PORTS.map(|port| Attempt {
        namespace: large.pod(1),
        protocol: Protocol::TCP,
        port: 0,
        server: SocketAddr::new(objects::address(0).into(), port),
        patience: SILENCE,
    });
    let seen = probe(&attempts)?;
    Ok([seen[0].outcome.clone(), seen[1].outcome.clone()])
}

const FIRST: [Outcome; 2] = [Outcome::Connected, Outcome::TimedOut];
const SECOND: [Outcome; 2] = [Outcome::TimedOut, Outcome::Connected];

fn awaits(large: &Large, expected: [Outcome; 2]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let seen = ask(large)?;
        if seen == expected {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{seen:?} after {PATIENCE:?}, not {expected:?}");
    }
}

fn serve(large: &Large) -> Result<Greeters> {
    let server = objects::address(0).into();
    let ports = PORTS.map(|port| (large.pod(0), Protocol::TCP, SocketAddr::new(server, port)));
    Greeters::serve(&ports)
}

/// A policy that admits one port of every pod.
fn admit(large: &Large, port: u16) -> Result<()> {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "one-port", "namespace": objects::namespace_name(0)},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port, "protocol": "TCP"}]}]},
    });
    large.apply(&policy.to_string())
}

/// Waits until a problem has these words.
fn problem(agent: &Agent<'_>, words: &[&str]) -> Result<()> {
    agent.await_status(&format!("a problem with {words:?}"), PATIENCE, |status| {
        let problems = status["policy"]["problems"].to_string();
        Ok(words.iter().all(|word| problems.contains(word)).then_some(()))
    })
}

/// Backoff, renewals, expiry of whatever is kept: all of it runs on the agent's clock, which leaps minutes ahead.
fn an_hour_without_the_api_server() -> Result<()> {
    let large = Large::start(SIZE)?;
    let _greeters = serve(&large)?;
    admit(&large, PORTS[0])?;
    let clock = Clock::new(&large.directory().join("clock"), 0)?;
    let agent = large.agent_with(&[], &clock.environment())?;
    awaits(&large, FIRST)?;
    large.stop_api_server();
    problem(&agent, &["pods cannot be followed", "what was in force stays"])?;
    for minute in (0..=60).step_by(LEAP) {
        clock.set(minute * 60)?;
        let believed = Instant::now() + BELIEF;
        while Instant::now() < believed {
            let seen = ask(&large)?;
            ensure!(seen == FIRST, "after {minute} minutes: {seen:?}");
        }
    }
    problem(&agent, &["pods cannot be followed", "what was in force stays"])?;
    // What it could not tell the cluster is said every minute of its clock.
    let last = agent.log().read(|lines| lines.iter().rev().find_map(|line| time(line)));
    let ahead = last.context("a line with a time")?.as_second() - Timestamp::now().as_second();
    ensure!(ahead > 50 * 60, "the agent's clock is {ahead} s ahead only");
    large.start_api_server()?;
    admit(&large, PORTS[1])?;
    awaits(&large, SECOND)?;
    agent.await_status("nothing is wrong any more", PATIENCE, |status| {
        Ok((!status["policy"]["problems"].to_string().contains("cannot be followed")).then_some(()))
    })
}

/// Before the certificate's time the server cannot be trusted, which is said; otherwise policy is followed, and leases with
/// anybody's times in them are judged by whether they change.
fn clocks_that_differ() -> Result<()> {
    let large = Large::start(SIZE)?;
    let _greeters = serve(&large)?;
    admit(&large, PORTS[0])?;
    let clock = Clock::new(&large.directory().join("clock"), -3 * 24 * HOUR)?;
    let mut agent = large.agent_with(&[], &clock.environment())?;
    problem(&agent, &["certificate not valid yet", "compare this node's clock"])?;
    agent.kill();
    clock.set(2 * HOUR)?;
    // Somebody who is no longer there has written for all, by a clock of the next century; another node's is of the last.
    large
        .apply(&lease("enforcer-status-writer", "somebody", "2101-01-01T00:00:00.000000Z", "").to_string())?;
    let policy = json!({
        "apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy",
        "metadata": {"name": "told", "namespace": objects::namespace_name(0)},
        "spec": {"subject": {}, "ingress": [{"action": "Allow", "ports": [{"protocol": "TCP", "port": PORTS[0]}]}]},
    });
    large.apply(&policy.to_string())?;
    agent.start_again()?;
    awaits(&large, FIRST)?;
    let own = format!("enforcer-node-{}", objects::node_name(0));
    let digest = until("the node tells what it has in force", || {
        let path = r"jsonpath={.metadata.annotations.enforcer\.dev/in-force}";
        Ok(large.kubectl(&["get", "lease", &own, "-o", path]).ok().filter(|digest| !digest.is_empty()))
    })?;
    let other = objects::node_name(1);
    let past = "2001-01-01T00:00:00.000000Z";
    large.apply(&lease(&format!("enforcer-node-{other}"), &other, past, &digest).to_string())?;
    // A minute in which the lease does not change, by the agent's own clock.
    clock.set(2 * HOUR + 61)?;
    until("conditions count both nodes", || {
        let path = "jsonpath={.status.inForce}";
        let namespace = objects::namespace_name(0);
        let told = large.kubectl(&["-n", &namespace, "get", "segpol", "told", "-o", path])?;
        Ok((told == "2 of 2").then_some(()))
    })
    .with_context(|| agent.log().read(|lines| lines.join("\n")))
}

fn lease(name: &str, holder: &str, renewed: &str, digest: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": name, "namespace": "default",
            "labels": {"app.kubernetes.io/component": if digest.is_empty() { "other" } else { "enforcer-node" }},
            "annotations": {"enforcer.dev/in-force": digest},
        },
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 60},
    })
}

fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "{what}: waited {PATIENCE:?} in vain");
    }
}

/// The time at the beginning of a line of the log.
fn time(line: &str) -> Option<Timestamp> {
    line.split_whitespace().next()?.parse().ok()
}
